"""How fast a recipe's step runs here: as the trainer runs it, and fed from the host instead."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from siamjax.config import ConfigDict
from siamjax.recipe import assemble, build_augmentation, build_model, build_objective, build_scheme
from siamjax.training.features import use_features
from siamjax.training.optimizer import create_optimizer
from siamjax.training.step import Data, make_train_step
from siamjax.types import DataSplits, PairDraw, SetDraw


class Speed(NamedTuple):
    """Pairs per second in each of several windows."""

    windows: list[float]

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


class Measured(NamedTuple):
    """What was measured.

    Attributes:
        speeds: by way.
        first_step: `time.perf_counter()` when the first step of the first way was done.
    """

    speeds: dict[str, Speed]
    first_step: float


def steady_state(
    config: ConfigDict,
    splits: DataSplits,
    windows: int = 5,
    seconds: float = 5.0,
    names: Sequence[str] = ("resident", "host"),
) -> Measured:
    """Pairs per second after warm-up, the two ways in turn, so that a drifting machine hits both.

    Args:
        config: of a recipe; one device is used.
        splits: real images: on zeros or noise a step may run at another speed.
        windows: measured windows of each way.
        seconds: length of a window.
        names: of the ways to measure.

    Returns:
        Speeds of "resident": images on the device, pairs drawn, gathered and warped in the step.
        "host": the same step on pairs drawn and gathered on the host by a Python loop, the next
        batch prepared while the device works.
    """
    makers = {"resident": _resident, "host": _from_host}
    if not names or not set(names) <= set(makers):
        raise ValueError(f"ways are {', '.join(makers)}; got {', '.join(names) or 'none'}")
    ways = {name: makers[name](config, splits) for name in names}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    first_step = 0.0
    for way in ways.values():  # compile, and fill the pipeline
        for _ in range(3):
            next(way)
            first_step = first_step or time.perf_counter()
    for _ in range(windows):
        for name, way in ways.items():
            start, pairs = time.perf_counter(), 0
            while time.perf_counter() - start < seconds:
                pairs += next(way)
            speeds[name].append(pairs / (time.perf_counter() - start))
    return Measured({name: Speed(v) for name, v in speeds.items()}, first_step)


def _resident(config: ConfigDict, splits: DataSplits) -> Iterator[int]:
    """Runs a dispatch and waits for the one before it, as the trainer does; yields its pairs."""
    run = assemble(config, splits)
    use_features(run)
    size = run.plan.dispatch
    program = run.devices.compile(run.step, size)
    state = run.devices.put(run.state)
    data = run.feed.start(run.devices, 0)
    return _pipelined(program, state, lambda: data, size * config.batch_size)


def _from_host(config: ConfigDict, splits: DataSplits) -> Iterator[int]:
    run = assemble(config, splits)
    images, table = np.asarray(splits.train.images), run.feed.table
    draw = jax.jit(build_scheme(config))
    step = make_train_step(
        build_model(config),
        lambda key, step, drawn: drawn,  # the batch is the data
        build_augmentation(config),
        build_objective(config),
        create_optimizer(config.optimizer, run.plan.total, run.plan.epoch),
    )
    counter = iter(range(10**9))

    def batch() -> Data:
        number = next(counter)
        drawn = jax.device_get(draw(jax.random.key(number), number, table))
        return run.devices.put(Data(images[drawn.image_index], _renumbered(drawn)))

    return _pipelined(
        run.devices.compile(step), run.devices.put(run.state), batch, config.batch_size
    )


def _renumbered(draw: PairDraw | SetDraw) -> PairDraw | SetDraw:
    """The same draw over its own images, one after the other."""
    index = np.arange(len(draw.image_index), dtype=np.int32)
    if isinstance(draw, PairDraw):
        half = len(index) // 2
        return draw._replace(left=index[:half], right=index[half:])
    return draw._replace(index=index.reshape(draw.index.shape))


def _pipelined(
    program: Callable, state: Any, data: Callable[[], Data], pairs: int
) -> Iterator[int]:
    before = None
    while True:
        state, figures = program(state, data())
        # The first one is waited for: it tells how long starting takes.
        jax.block_until_ready(figures if before is None else before)
        before = figures
        yield pairs
