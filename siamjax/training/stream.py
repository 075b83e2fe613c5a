"""`Stream`: batches gathered on the host while the device works, for data too large to stay there.

The host draws what the step would have drawn, from the same key with the same function, and sends
the images of the draw. So a streamed run's numbers are those of a resident one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax import Array

from siamjax.training.feed import Feed
from siamjax.training.parallel import Device, Devices
from siamjax.training.step import Data, step_keys
from siamjax.types import PairDraw, SetDraw

DEPTH = 3  # batches ready or under way
THREADS = 2  # that gather; NumPy and the page cache let go of the interpreter's lock


class _Ahead:
    """Batches under way, oldest first, and the seconds that the loop waited for them."""

    def __init__(self):
        self.batches: deque[tuple[int, Future[Data]]] = deque()
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="stream")
        self.waited = 0.0


@dataclass(frozen=True)
class Stream(Feed):
    """Images and tables of a run that stay on the host; each step gets its own batch.

    A bounded number of batches is prepared ahead. Every process gathers the images of its own
    devices only.

    Attributes:
        draw: `(step, table) -> draw` of the whole batch, as NumPy arrays.
    """

    draw: Callable[[int, Any], PairDraw | SetDraw] = field(kw_only=True)
    _ahead: _Ahead = field(default_factory=_Ahead, repr=False, kw_only=True)

    @property
    def waited(self) -> float:
        """Seconds that the loop has waited for a batch so far."""
        return self._ahead.waited

    def host(self, step: int) -> Data:
        """The whole batch of the step after `step`, on the host."""
        return self._part(self._drawn(step), 0, 1)

    def start(self, devices: Devices, step: int) -> Data:
        """The batch of the step after `step`, on the devices; later ones are begun."""
        self._ahead.batches.clear()
        return self._next(devices, step)

    def turn(self, data: Data, devices: Devices, step: int) -> Data:
        """The batch of the step after `step`, most often ready by now."""
        return self._next(devices, step)

    def _next(self, devices: Devices, step: int) -> Data:
        batches, threads = self._ahead.batches, self._ahead.threads
        for later in range(step + len(batches), step + DEPTH):
            batches.append((later, threads.submit(self._put, devices, later)))
        number, batch = batches.popleft()
        if number != step:
            raise RuntimeError(f"the batch after step {step} was asked for, {number} is next")
        begun = time.perf_counter()
        data = batch.result()
        self._ahead.waited += time.perf_counter() - begun
        return data

    def _put(self, devices: Devices, step: int) -> Data:
        draw = self._drawn(step)
        return devices.put_each([self._part(draw, i, devices.count) for i in devices.shares])

    def _drawn(self, step: int) -> PairDraw | SetDraw:
        return self.draw(step, self.table_at(step))

    def _part(self, draw: PairDraw | SetDraw, part: int, parts: int) -> Data:
        """A share of a draw with its images, as indices into these."""
        own = _share(draw, part, parts)
        pairs = isinstance(own, PairDraw)
        index = np.concatenate([own.left, own.right]) if pairs else own.image_index
        return Data(np.take(self.images, index, axis=0), renumbered(own))


def streamed(feed: Feed, scheme: Callable, key: Array) -> Stream:
    """The same data, sent batch by batch.

    Args:
        feed: images and tables.
        scheme: `(key, step, table) -> draw`, as the step has it.
        key: of the run, `TrainState.rng`.

    Raises:
        ValueError: where JAX was told to leave the CPU out.
    """
    words, kind = np.asarray(jax.random.key_data(key)), jax.random.key_impl(key)
    here = _cpu()

    @jax.jit
    def drawn(words: Array, step: Array, table: Any) -> PairDraw | SetDraw:
        key = jax.random.wrap_key_data(words, impl=kind)
        return scheme(step_keys(key, step)[0], step, table)

    def draw(step: int, table: Any) -> PairDraw | SetDraw:
        with jax.default_device(here):  # a thread's own setting
            return jax.device_get(drawn(words, np.int32(step), table))

    order = None if feed.order is None else lru_cache(2)(feed.order)
    return Stream(feed.images, feed.table, feed.epoch, order, draw=draw)


def _cpu() -> Device:
    """The CPU, which draws the batches."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        told = jax.config.jax_platforms  # pyright: ignore - set at run time
        raise ValueError(
            "images that exceed config.data.resident_limit are drawn on the CPU, and"
            f" JAX_PLATFORMS={told} leaves it out: set JAX_PLATFORMS={told},cpu, or raise the limit"
        ) from error


def _share(draw: PairDraw | SetDraw, part: int, parts: int) -> PairDraw | SetDraw:
    """As `schemes.share`, of NumPy arrays."""
    size = len(draw.weight) // parts
    return jax.tree.map(lambda a: a[part * size : (part + 1) * size], draw)


def renumbered(draw: PairDraw | SetDraw) -> PairDraw | SetDraw:
    """The same draw over its own images, one after the other."""
    count = np.arange(draw.weight.size, dtype=np.int32)
    if isinstance(draw, PairDraw):
        return draw._replace(left=count, right=count + np.int32(len(count)))
    return draw._replace(index=count.reshape(draw.index.shape))
