"""What a run writes and prints: metrics.jsonl, train_curves.txt, TensorBoard, progress."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, TextIO

Figure = float | int | str | None | list["Figure"]


class MetricsLog:
    """metrics.jsonl: one JSON object a line, appended as training goes.

    Each row has `step`, `epoch` (or null), `split`, `time` (seconds since the run began, over all
    its restarts) and the figures of that moment. A figure that is NaN or infinite is written as
    null, since JSON has neither.

    A row reaches the operating system in one write before `write` returns, so a killed process
    loses none. If the machine itself dies, the last line may be torn: reading leaves it out, and
    opening the log again cuts it off.

    Args:
        workdir: the run's folder, made if need be.
        mirror: also gets every row.

    Raises:
        ValueError: if a line other than the last is not a JSON object.

    Example:
        >>> import tempfile
        >>> with MetricsLog(tempfile.mkdtemp()) as log:
        ...     log.write(20, "train", {"loss": 0.5})
        ...     log.write(40, "train", {"loss": float("nan")})
        ...     log.rewind(20)
        ...     [(row["step"], row["loss"]) for row in log.rows()]
        [(20, 0.5)]
    """

    def __init__(self, workdir: str | os.PathLike[str], mirror: TensorBoardLog | None = None):
        self.path = Path(workdir) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._mirror = mirror
        self.path.touch()
        rows, whole = _parse(self.path)
        os.truncate(self.path, whole)
        self._file = open(self.path, "ab", buffering=0)
        self._restart_clock(rows)

    def write(
        self, step: int, split: str, figures: Mapping[str, Any], *, epoch: float | None = None
    ) -> None:
        """Appends a row.

        Args:
            step: optimiser steps taken.
            split: "train", "validation" or "doctor".
            figures: name to number (of Python, NumPy or JAX), text, None, or a list of them.
            epoch: passes over the training data, where the run counts them.
        """
        row: dict[str, Any] = {
            "step": int(step),
            "epoch": _plain(epoch),
            "split": split,
            "time": round(time.monotonic() - self._start, 3),
        }
        clash = sorted(row.keys() & figures.keys())
        if clash:
            raise ValueError(f"figures may not be called {clash}: every row has these already")
        row |= {name: _plain(value) for name, value in figures.items()}
        self._append(json.dumps(row, allow_nan=False).encode() + b"\n")
        if self._mirror:
            self._mirror.write(row)

    def _append(self, line: bytes) -> None:
        # Not buffered: what a full disk refused is not tried again at the close.
        while line:
            line = line[self._file.write(line) :]

    def rows(self) -> list[dict[str, Any]]:
        """All rows, oldest first."""
        return _parse(self.path)[0]

    def rewind(self, step: int) -> None:
        """Forgets the rows after `step`: what a resumed run is about to do again.

        The file is replaced in one move, so a kill leaves either the old one or the new one.

        Args:
            step: the step resumed from; -1 forgets everything.
        """
        kept = [row for row in self.rows() if row["step"] <= step]
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept)
        replace_file(self.path, text)
        self._file.close()
        self._file = open(self.path, "ab", buffering=0)
        self._restart_clock(kept)
        if self._mirror:
            self._mirror.rewind(step)

    def close(self) -> None:
        """Puts everything on disk and closes the file."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()
        if self._mirror:
            self._mirror.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _restart_clock(self, rows: list[dict[str, Any]]) -> None:
        elapsed = rows[-1].get("time") or 0.0 if rows else 0.0
        self._start = time.monotonic() - elapsed


class TensorBoardLog:
    """The same figures as TensorBoard events, under "<split>/<figure>"; texts are left out.

    Args:
        workdir: the run's folder; the events go to its subfolder `tensorboard`.

    Raises:
        ValueError: if tensorboardX is not installed.
    """

    def __init__(self, workdir: str | os.PathLike[str]):
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError(
                "TensorBoard logs need tensorboardX, which is not installed:"
                " pip install 'siamjax[tensorboard]', or train without them (metrics.jsonl holds"
                " the same figures)"
            ) from error
        self._open = partial(SummaryWriter, str(Path(workdir) / "tensorboard"))
        self._writer = self._open()

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a row of `MetricsLog`."""
        for name, value in row.items():
            if name not in ("step", "time") and isinstance(value, (int, float)):
                self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def rewind(self, step: int) -> None:
        """Makes TensorBoard hide what was written after `step`."""
        self._writer.close()
        self._writer = self._open(purge_step=step + 1)

    def close(self) -> None:
        """Writes out what is still buffered."""
        self._writer.close()


def open_logs(workdir: str | os.PathLike[str], tensorboard: bool = False) -> MetricsLog:
    """The log of a run, mirrored to TensorBoard on request.

    Args:
        workdir: the run's folder.
        tensorboard: also write TensorBoard events.

    Returns:
        An open `MetricsLog`; close it, or use it as a context manager.

    Raises:
        ValueError: if TensorBoard was asked for and tensorboardX is not installed.
    """
    return MetricsLog(workdir, TensorBoardLog(workdir) if tensorboard else None)


def write_train_curves(
    path: str | os.PathLike[str], losses: Iterable[float], accuracies: Iterable[float]
) -> None:
    """train_curves.txt: two headings, each followed by one line of numbers with trailing commas.

    Args:
        path: the file to write, replaced in one move.
        losses: of each training step, written to 4 decimals.
        accuracies: of each validation, written to 2 decimals as they are given. One that counts
            per cent (87.50) therefore keeps two more digits than a share (0.88).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "train_curves.txt"
        >>> write_train_curves(path, [0.69314, 0.5], [40, 60])
        >>> print(path.read_text())
        [train_loss]
        0.6931,0.5000,
        [valid_accs]
        40.00,60.00,
    """
    text = "[train_loss]\n" + "".join(f"{float(x):.4f}," for x in losses)
    text += "\n[valid_accs]\n" + "".join(f"{float(x):.2f}," for x in accuracies)
    replace_file(Path(path), text)


class Progress:
    """Shows how far training is: a bar on a terminal, otherwise a line every few seconds.

    The time left follows from the recent rate. The clock starts at the first update, so the
    compilation of the first step does not count.

    Args:
        total: the step training ends at.
        start: the step it begins at; not 0 when resumed.
        unit: what the rate counts.
        interactive: draw a bar; None: if the stream is a terminal.
        stream: where to; None: the standard error of the moment.
        every: seconds between lines where there is no bar.
        clock: gives seconds.
        silent: show nothing.

    Example:
        >>> with Progress(1000, 0, interactive=False, stream=sys.stdout) as progress:
        ...     progress.update(200, loss=0.5312, pairs_per_second=312)
        step 200/1000  loss 0.5312  312 pairs/s
    """

    RECENT = 60  # moments at least a second apart that the rate is taken over

    def __init__(
        self,
        total: int,
        start: int = 0,
        *,
        unit: str = "pairs",
        interactive: bool | None = None,
        stream: TextIO | None = None,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        silent: bool = False,
    ):
        self._total, self._unit, self._every, self._clock = total, unit, every, clock
        self._silent = silent
        self._stream = sys.stderr if stream is None else stream
        self._recent: deque[tuple[float, int]] = deque(maxlen=self.RECENT)
        self._printed = -math.inf
        self._pending = ""
        self._bar = None
        if not silent and (self._stream.isatty() if interactive is None else interactive):
            from tqdm import tqdm

            form = "{percentage:3.0f}% {bar} {n_fmt}/{total_fmt}{postfix}"
            self._bar = tqdm(
                total=total, initial=start, file=self._stream, bar_format=form, dynamic_ncols=True
            )

    def update(
        self, step: int, *, loss: float | None = None, pairs_per_second: float | None = None
    ) -> None:
        """Shows that `step` steps are done.

        Args:
            step: steps taken since the beginning of the run, restarts included.
            loss: the training loss now.
            pairs_per_second: the speed now, in `unit` a second.
        """
        now = self._clock()
        left = self._seconds_left(now, step)
        if not self._recent or now - self._recent[-1][0] >= 1:
            self._recent.append((now, step))
        parts = [] if loss is None else [f"loss {loss:.4f}"]
        if pairs_per_second is not None:
            digits = 0 if pairs_per_second >= 10 else 1
            parts.append(f"{pairs_per_second:,.{digits}f} {self._unit}/s")
        if left is not None:
            parts.append(f"{duration(left)} left")
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join(parts), refresh=False)
            self._bar.update(step - self._bar.n)
            return
        self._pending = "  ".join([f"step {step}/{self._total}", *parts])
        if step >= self._total or now - self._printed >= self._every:
            self._flush(now)

    def say(self, text: str) -> None:
        """Prints a line of its own, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif not self._silent:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Shows the last update, and leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
        self._flush(self._clock())

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _seconds_left(self, now: float, step: int) -> float | None:
        if not self._recent or self._recent[0][1] >= step or step >= self._total:
            return None
        before, first = self._recent[0]
        return (self._total - step) * max(0.0, now - before) / (step - first)

    def _flush(self, now: float) -> None:
        if self._pending:
            self.say(self._pending)
            self._pending, self._printed = "", now


def duration(seconds: float) -> str:
    """Seconds in words, the two largest units.

    Example:
        >>> [duration(s) for s in (14.2, 134, 7500, 180000)]
        ['14 s', '2 min 14 s', '2 h 05 min', '2 d 2 h']
    """
    whole = round(seconds)
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h} h"
    if hours:
        return f"{hours} h {m:02d} min"
    return f"{minutes} min {s:02d} s" if minutes else f"{s} s"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, which is not touched: its run may be going on.

    A last line that is being written is left out; without a file there are none.

    Raises:
        ValueError: if another line is not a row.
    """
    return _parse(path)[0] if path.is_file() else []


def _parse(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The whole rows of a metrics file, and how many bytes they take."""
    lines = path.read_bytes().split(b"\n")
    torn = lines.pop()  # what follows the last line's end: nothing, unless the write was cut short
    rows, size = [], 0
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except ValueError as error:
            if number == len(lines) and not torn:
                break
            raise ValueError(
                f"{path}, line {number}: not a row of metrics ({error}); the file was changed by"
                " something else: mend or remove that line"
            ) from error
        rows.append(row)
        size += len(line) + 1
    return rows, size


def _plain(value: Any) -> Figure:
    """A number or text as JSON knows it."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    number = float(value)
    return number if math.isfinite(number) else None


def replace_file(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part."""
    unfinished = path.with_name(path.name + ".partial")
    with open(unfinished, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
