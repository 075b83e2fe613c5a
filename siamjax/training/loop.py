"""The trainer: dispatches steps, watches them, validates, saves. One for every recipe.

The loop knows no recipe. It keeps one dispatch in flight: while the device works on the next
steps, the host reads the figures of the last ones. (On a CPU, where both are the same cores,
`backend.keep_memory` lets each dispatch wait for its steps.)
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import jax
import numpy as np

from siamjax import backend, cluster
from siamjax.evaluation.decision import DecisionCard
from siamjax.evaluation.encoder import Encoder
from siamjax.evaluation.validation import Validated, Validation
from siamjax.models import Siamese
from siamjax.training.average import averaged
from siamjax.training.checkpoint import BEST, LATEST, CheckpointStore
from siamjax.training.doctor import Doctor
from siamjax.training.feed import Feed
from siamjax.training.optimizer import Patience, Plateau, with_rate_scale
from siamjax.training.parallel import Devices
from siamjax.training.state import TrainState
from siamjax.training.step import Data, Step
from siamjax.training.writer import MetricsLog, Progress


class TrainingDivergedError(ValueError):
    """The loss or a gradient stopped being a finite number."""


@dataclass(frozen=True)
class Plan:
    """When things happen, in steps.

    Attributes:
        total: the step training ends at.
        log, evaluate, checkpoint: steps between lines of metrics, validations, checkpoints.
        epoch: steps in an epoch.
        dispatch: steps in one compiled call, at most.
        shuffles: whether the data change at the start of an epoch.
    """

    total: int
    log: int
    evaluate: int
    checkpoint: int
    epoch: int
    dispatch: int = 1
    shuffles: bool = False

    def size(self, step: int) -> int:
        """Steps of the dispatch after `step`: whole ones up to the next event, then single ones.

        It depends on `step` alone, so a resumed run dispatches what an undisturbed one does.
        """
        periods = [self.log, self.evaluate, self.checkpoint] + [self.epoch] * self.shuffles
        free = min(self.total, *((step // n + 1) * n for n in periods)) - step
        return self.dispatch if free >= self.dispatch else 1

    def due(self, step: int, period: int) -> bool:
        """Whether something that happens every `period` steps, and at the end, happens now."""
        return step % period == 0 or step == self.total


def steps_per_dispatch(wanted: int | str, scans_well: bool, *periods: int) -> int:
    """`wanted`; for "auto" as many as fit between events, where scanning pays, else one."""
    if wanted != "auto":
        return int(wanted)
    return min(*periods, 128) if scans_well else 1


@dataclass
class Run:
    """Everything a training run is made of.

    Attributes:
        title: data set and recipe, as they appear on plots.
        plan: when things happen.
        step: the pure train step.
        devices: where it runs.
        feed: images and tables, on the host.
        state: to start from, one copy.
        encoder: the model in inference mode; its weights are set for each validation.
        validation: what to watch.
        explain: `(state, data) -> str`, the sentence that says where a NaN began.
        about: JSON values saved with each checkpoint.
        pairs_per_step: b over all devices.
        metric: the validation figure that chooses the best checkpoint.
        larger_is_better: of that figure.
        patience: of that figure; ends the run.
        plateau: lowers the learning rate.
        plateau_metric: the validation figure it watches.
        front: the frozen part of the model, if its output is computed once an image and step and
            encoder go on from there; else None.
        best: the best value so far, or None.
        card: of the latest validation.
        doctor: examines the state at the start and at each validation; None for none.
        on_validation: called after each.
    """

    title: str
    plan: Plan
    step: Step
    devices: Devices
    feed: Feed
    state: TrainState
    encoder: Encoder
    validation: Validation
    explain: Callable[[TrainState, Data], str]
    about: dict[str, Any]
    pairs_per_step: int
    metric: str
    larger_is_better: bool
    patience: Patience
    plateau: Plateau
    plateau_metric: str
    front: Siamese | None = None
    best: float | None = None
    card: DecisionCard | None = None
    doctor: Doctor | None = None
    on_validation: Callable[[MetricsLog, Validated], None] = lambda log, validated: None

    def progress(self) -> dict[str, Any]:
        """What the host has to remember beside the state, as JSON values."""
        return {
            "best": self.best,
            "card": None if self.card is None else self.card.to_dict(),
            "patience": self.patience.state(),
            "plateau": self.plateau.state(),
            "doctor": None if self.doctor is None else self.doctor.state(),
        }

    def restore(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Goes on from a saved state and its `progress()`."""
        self.state, self.best = state, progress["best"]
        self.card = None if progress["card"] is None else DecisionCard.from_dict(progress["card"])
        self.patience.restore(progress["patience"])
        self.plateau.restore(progress["plateau"])
        if self.doctor is not None:
            self.doctor.restore(progress.get("doctor"))


def train(run: Run, store: CheckpointStore, log: MetricsLog) -> bool:
    """Trains from `run.state.step` to the end.

    Returns:
        True at the end, or where patience ended; False when Ctrl-C or SIGTERM came first. Either
        way the latest state is saved, and running again goes on from it.

    Raises:
        TrainingDivergedError: where the loss or a gradient is not finite, with step and module.
    """
    plan, devices = run.plan, run.devices
    at = int(run.state.step)
    state, data = devices.put(run.state), run.feed.start(devices, at)
    programs: dict[int, Callable] = {}
    window = _Window(run)
    shown = Progress(plan.total, at, silent=not cluster.is_main())
    with Interruption() as interruption, shown as progress:
        if at == 0:
            _examine(run, devices.get(state), data, log, at, progress)
        while at < plan.total and not run.patience.exhausted:
            if devices.any(interruption.requested, plan.due(at, plan.log)):
                break
            size = plan.size(at)
            if size not in programs:
                programs[size] = devices.compile(run.step, size)
            state, figures = programs[size](state, data)
            at += size
            data = run.feed.turn(data, devices, at)
            window.add(figures)
            progress.update(at, **window.so_far())
            if plan.due(at, plan.log):
                _log(run, window, state, log, at)
            if plan.due(at, plan.evaluate):
                figures = _validate(run, averaged(devices.get(state)), log, store, at, progress)
                _examine(run, devices.get(state), data, log, at, progress, figures)
                state = _slow_down(run, state, figures, progress)
                window.restart_clock()
                if run.patience.update(float(figures[run.metric])):
                    progress.say(f"no better {run.metric} for {run.patience.waited} validations")
            if plan.due(at, plan.checkpoint) and at < plan.total:
                _save(run, devices.get(state), store)
        if window.pending:
            _log(run, window, state, log, at)
        run.state = jax.block_until_ready(devices.get(state))
        _save(run, run.state, store)
    return at >= plan.total or run.patience.exhausted


class _Window:
    """The steps since the last line of metrics."""

    def __init__(self, run: Run):
        self._run = run
        self.pending: list[Any] = []
        self._fetched: dict[str, list[np.ndarray]] = {}
        self._since: float | None
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves out of the speed the time until the next dispatch is done, and that dispatch.

        The first one waits for the compiler; the one after a validation was done long before.
        """
        self._since, self._timed = None, 0

    def add(self, figures: Any) -> None:
        """Takes a dispatch's figures, and waits for those of the dispatch before it."""
        self.pending.append(self._run.devices.get(figures))
        if len(self.pending) > 1:
            self._fetch(self.pending.pop(0))

    def _fetch(self, figures: Any) -> None:
        values = jax.device_get(figures)
        if self._since is None:
            self._since = time.monotonic()
        else:
            self._timed += len(values["loss"])
        for name, value in values.items():
            self._fetched.setdefault(name, []).append(value)

    def so_far(self) -> dict[str, float]:
        """The last loss and the speed, for the progress bar."""
        shown = {}
        if self._fetched.get("loss"):
            shown["loss"] = float(self._fetched["loss"][-1][-1])
        if self._since is not None and self._timed:
            seconds = time.monotonic() - self._since
            shown["pairs_per_second"] = self._timed * self._run.pairs_per_step / max(seconds, 1e-9)
        return shown

    def close(self) -> dict[str, np.ndarray]:
        """Every figure of every step since the last call, `[steps]` each."""
        while self.pending:
            self._fetch(self.pending.pop(0))
        values = {name: np.concatenate(parts) for name, parts in self._fetched.items()}
        self._fetched = {}
        return values


def _log(run: Run, window: _Window, state: Any, log: MetricsLog, at: int) -> None:
    values = window.close()
    finite = np.isfinite(values["loss"] + values["gradient_norm"])
    if not finite.all():
        # The step leaves the state as it was when its loss is not finite, so it can be repeated.
        bad = run.devices.get(state)
        where = run.explain(bad, run.feed.host(int(bad.step)))
        raise TrainingDivergedError(
            f"step {int(bad.step) + 1}: {where}. The state before that step is"
            " not saved; the latest checkpoint is. A lower config.optimizer.learning_rate or"
            " config.optimizer.clip_norm=1.0 often helps."
        )
    figures: dict[str, Any] = {name: float(value.mean()) for name, value in values.items()}
    figures |= {k: v for k, v in window.so_far().items() if k == "pairs_per_second"}
    figures["data"] = run.about["data"]["name"]
    # Nine digits give a float32 back bit for bit: another machine can be compared with this one.
    figures["losses"] = [float(f"{x:.9g}") for x in values["loss"]]
    log.write(at, "train", figures, epoch=at / run.plan.epoch)


@backend.own_memory()
def _validate(
    run: Run,
    state: TrainState,
    log: MetricsLog,
    store: CheckpointStore,
    at: int,
    progress: Progress,
) -> dict[str, Any]:
    run.encoder.weights = {"params": state.params, "batch_stats": state.batch_stats}
    validated = run.validation(run.encoder)
    run.card = validated.card
    agreed = run.devices.from_main(validated.figures)
    figures = agreed | {"data": run.about["data"]["name"]}
    log.write(at, "validation", figures, epoch=at / run.plan.epoch)
    progress.say(f"step {at}: {summary(validated)}")
    value = float(agreed[run.metric])
    sign = 1 if run.larger_is_better else -1
    if math.isfinite(value) and (run.best is None or sign * value > sign * run.best):
        run.best = value
        store.save(BEST, state, run.about | {"progress": run.progress()})
    run.on_validation(log, validated)
    return agreed


@backend.own_memory()
def _examine(
    run: Run,
    state: TrainState,
    data: Data,
    log: MetricsLog,
    at: int,
    progress: Progress,
    validated: dict[str, Any] | None = None,
) -> None:
    """Lets the doctor look, and says what is new."""
    if run.doctor is None:
        return
    auc = None if validated is None else float(validated["auc"])
    figures, findings = run.doctor.look(at, state, run.devices.get(data), auc)
    log.write(
        at, "doctor", figures | {"data": run.about["data"]["name"]}, epoch=at / run.plan.epoch
    )
    for finding in findings:
        progress.say(f"step {at}, something is wrong: {finding}")


def _slow_down(run: Run, state: Any, figures: dict[str, Any], progress: Progress) -> Any:
    """Lowers the learning rate in the state where the plateau's figure says so."""
    if not run.plateau.patience or not run.plateau.update(float(figures[run.plateau_metric])):
        return state
    progress.say(f"plateau: learning rate x {run.plateau.scale:g}")
    return replace(state, opt_state=with_rate_scale(state.opt_state, run.plateau.scale))


def summary(validated: Validated) -> str:
    """The validation in one line, the protocol beside the figure."""
    if validated.one_shot is not None:
        return str(validated.one_shot)
    figures = validated.figures
    return (
        f"validation pairs: accuracy {100 * float(figures['pair_accuracy']):.2f} %,"
        f" AUC {float(figures['auc']):.4f}"
    )


def _save(run: Run, state: TrainState, store: CheckpointStore) -> None:
    if store.newest(LATEST) != int(state.step):
        store.save(LATEST, state, run.about | {"progress": run.progress()})


class Interruption:
    """Ctrl-C and SIGTERM ask for an orderly end; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # elsewhere signals can't be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
