"""`Feed`: what the step reads on the device, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from siamjax.training.parallel import Devices
from siamjax.training.step import Data


@dataclass(frozen=True)
class Feed:
    """Images and tables of a run, on the host.

    Images go to the device once and stay there. Where pairs are a fixed table, its order is
    shuffled on the host once an epoch: a permutation inside the step would sort the table at
    every step.

    Attributes:
        images: `uint8 [n, h, w, c]`.
        table: what the pair scheme draws from.
        epoch: steps in an epoch.
        order: `epoch number -> int32 [epoch * b]`, rows of a pair table; None for schemes that
            draw inside the step.
    """

    images: np.ndarray
    table: Any
    epoch: int
    order: Callable[[int], np.ndarray] | None = None

    @property
    def waited(self) -> float:
        """Seconds that the loop has waited for data: none, they are on the device."""
        return 0.0

    def host(self, step: int) -> Data:
        """The data for the step after `step`, on the host."""
        return Data(self.images, self.table_at(step))

    def table_at(self, step: int) -> Any:
        """What the scheme draws from at the step after `step`."""
        if self.order is None:
            return self.table
        return self.table._replace(order=self.order(step // self.epoch))

    def start(self, devices: Devices, step: int) -> Data:
        """The data for the step after `step`, on the devices."""
        return devices.put(self.host(step))

    def turn(self, data: Data, devices: Devices, step: int) -> Data:
        """The data for the step after `step`: a new order at the start of an epoch."""
        if self.order is None or step % self.epoch:
            return data
        order = devices.put(self.order(step // self.epoch))
        return data._replace(table=data.table._replace(order=order))
