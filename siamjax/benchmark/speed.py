"""How fast a recipe's step runs here: with resident images, and with streamed ones."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from siamjax import backend
from siamjax.benchmark.machine import MIB
from siamjax.config import ConfigDict
from siamjax.recipe import assemble
from siamjax.training import memory
from siamjax.training.features import use_features
from siamjax.training.loop import Run
from siamjax.types import DataSplits

WAYS = ("resident", "streamed")
ROOM = 0.9  # share of the available memory that a step may take


@dataclass
class Speed:
    """Pairs per second in each of several windows.

    Attributes:
        windows: of the measurement.
        waiting: share of the time in which the loop waited for a batch; while it waits, and the
            step before is done, the device does nothing.
    """

    windows: list[float]
    waiting: float = 0.0

    @property
    def median(self) -> float:
        """Of the windows."""
        return statistics.median(self.windows)

    @property
    def least(self) -> float:
        """Of the windows."""
        return min(self.windows)

    @property
    def most(self) -> float:
        """Of the windows."""
        return max(self.windows)


@dataclass
class Measured:
    """What was measured.

    Attributes:
        run: of the first way, as the trainer has it; its state is spent.
        speeds: by way.
        build, compile, first: seconds to assemble the first way's run and put it on the device,
            to compile its step, and to take the first dispatch.
        cached: whether the step came from the compilation cache.
        compiled_mib: memory of the compiled step: arguments, results and what is between.
        first_step: `time.perf_counter()` when the first step of the first way was done.
    """

    run: Run
    speeds: dict[str, Speed] = field(default_factory=dict)
    build: float = 0.0
    compile: float = 0.0
    first: float = 0.0
    cached: bool = False
    compiled_mib: float = 0.0
    first_step: float = 0.0


def steady_state(
    config: ConfigDict,
    splits: DataSplits,
    windows: int = 5,
    seconds: float = 5.0,
    names: Sequence[str] = WAYS,
    profile: Path | None = None,
) -> Measured:
    """Pairs per second after warm-up, the ways in turn, so that a drifting machine hits all.

    Args:
        config: of a recipe.
        splits: real images: on zeros or noise a step may run at another speed.
        windows: measured windows of each way.
        seconds: length of a window.
        names: of the ways to measure. "resident": images on the device, pairs drawn, gathered and
            warped in the step. "streamed": the same pairs, drawn and gathered on the host, the
            next batches prepared while the device works.
        profile: folder for a trace of some dispatches of the first way, for Perfetto and XProf.

    Raises:
        OutOfMemoryError: if the compiled step needs more memory than there is.
        ValueError: for another way.
    """
    if not names or not set(names) <= set(WAYS):
        raise ValueError(f"ways are {', '.join(WAYS)}; got {', '.join(names) or 'none'}")
    begun = time.perf_counter()
    run = _prepared(config, splits, names[0])
    measured = Measured(run, build=time.perf_counter() - begun)
    ways = {names[0]: _dispatches(run, measured)}
    for _ in range(3):  # compile, and fill the pipeline
        next(ways[names[0]])
    for name in names[1:]:
        other = _prepared(config, splits, name)
        ways[name] = _dispatches(other, Measured(other))
        for _ in range(3):
            next(ways[name])
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for _ in range(windows):
        for name, way in ways.items():
            found[name].append(_window(way, seconds))
    for name, rows in found.items():
        waited, total = (sum(row[i] for row in rows) for i in (1, 2))
        measured.speeds[name] = Speed([row[0] for row in rows], waited / total)
    if profile is not None:
        _trace(ways[names[0]], profile)
    return measured


def _trace(way: Iterator[tuple[int, float]], folder: Path, dispatches: int = 5) -> None:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # every call of Python would be ten times as many events
    with jax.profiler.trace(str(folder), create_perfetto_trace=True, profiler_options=options):
        for _ in range(dispatches):
            next(way)


def _window(way: Iterator[tuple[int, float]], seconds: float) -> tuple[float, float, float]:
    """Pairs a second, seconds waited for batches, seconds in all."""
    start, pairs, waited = time.perf_counter(), 0, 0.0
    while time.perf_counter() - start < seconds:
        more, wait = next(way)
        pairs, waited = pairs + more, waited + wait
    total = time.perf_counter() - start
    return pairs / total, waited, total


def _prepared(config: ConfigDict, splits: DataSplits, way: str) -> Run:
    """A run as the trainer has it, its images where the way wants them."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.resident_limit = 0 if way == "streamed" else 2**40
    with backend.own_memory():
        run = assemble(config, splits)
        use_features(run)
    return run


def _dispatches(run: Run, measured: Measured) -> Iterator[tuple[int, float]]:
    """Runs a dispatch and waits for the one before it, as the trainer does.

    Yields:
        Its pairs, and the seconds for which the loop waited for its data.
    """
    size, devices, feed = run.plan.dispatch, run.devices, run.feed
    begun = time.perf_counter()
    state, data = devices.put(run.state), feed.start(devices, 0)
    measured.build += time.perf_counter() - begun
    program = _compiled(run, state, data, measured)
    begun = time.perf_counter()
    state, before = program(state, data)
    jax.block_until_ready(before)
    measured.first_step = time.perf_counter()
    measured.first = measured.first_step - begun
    yield size * run.pairs_per_step, 0.0
    at = size
    while True:
        waited = feed.waited
        data = feed.turn(data, devices, at)
        waited = feed.waited - waited
        with jax.transfer_guard("disallow"):
            state, figures = program(state, data)
        jax.block_until_ready(before)
        before, at = figures, at + size
        yield size * run.pairs_per_step, waited


def _compiled(run: Run, state: Any, data: Any, measured: Measured) -> Callable:
    begun = time.perf_counter()
    with _cache_hits() as hits:
        program = run.devices.program(run.step, run.plan.dispatch).lower(state, data).compile()
    measured.compile, measured.cached = time.perf_counter() - begun, bool(hits)
    measured.compiled_mib = (memory.needed(program) or 0) / MIB
    taken = memory.needed(program, beside=True)  # arguments are there already
    room = memory.available(run.devices.local[0], beside=True)
    if taken is not None and room is not None and taken > ROOM * room:
        raise memory.OutOfMemoryError(
            f"a step with {run.pairs_per_step} pairs needs {taken / MIB:,.0f} MiB beside its"
            f" arguments, and {room / MIB:,.0f} MiB are free: take a smaller config.batch_size"
        )
    return program


@contextmanager
def _cache_hits() -> Iterator[list[str]]:
    """The programs that came from the compilation cache meanwhile."""
    hits: list[str] = []

    def hear(event: str, **_: Any) -> None:
        if event.endswith("compilation_cache/cache_hits"):
            hits.append(event)

    jax.monitoring.register_event_listener(hear)
    try:
        yield hits
    finally:
        jax.monitoring.unregister_event_listener(hear)
