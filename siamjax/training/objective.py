"""What a step minimises: a loss over a draw, averaged by weight, plus L2 penalties by path."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from siamjax import backend
from siamjax.losses import anchors, row_mean
from siamjax.training.paths import check_patterns, named_leaves
from siamjax.types import Distance, PairDraw, PairOutput, SetDraw


class Measured(NamedTuple):
    """Figures of each example, `[m]`: averages are taken elsewhere, over all devices."""

    loss: Array
    accuracy: Array


@dataclass(frozen=True)
class Objective:
    """A loss and its penalties.

    Attributes:
        name: of the loss, as it appears in metrics ("bce").
        loss: of `losses.PAIR_LOSSES`, or of `SET_LOSSES` where `over_sets`.
        over_sets: whether the loss looks at a whole row of comparisons at once.
        l2: `((path regex, factor), ...)`; each adds `factor * sum(w ** 2)` over the parameters
            whose path (`tower/conv1/kernel`) matches in full. Keras' `l2(factor)`, without 1/2.
    """

    name: str
    loss: Callable[..., Array]
    over_sets: bool = False
    l2: tuple[tuple[str, float], ...] = ()

    def measure(self, output: PairOutput, draw: PairDraw | SetDraw) -> Measured:
        """The loss and the accuracy of each example of a draw."""
        if isinstance(draw, PairDraw):
            right = (output.same == draw.same).astype(jnp.float32)
            return Measured(self.loss(output, draw.same), right)
        same, mask = comparisons(draw)
        if self.over_sets:
            loss = self.loss(output, same, mask)
        else:
            loss = row_mean(self.loss(output, same), mask)
        return Measured(loss, _nearest_is_same(output, same, mask))

    def weight(self, draw: PairDraw | SetDraw) -> Array:
        """How much each example counts, `[m]`: 0 for padding, and for what a loss can't use."""
        if isinstance(draw, PairDraw) or not self.over_sets:
            return draw.weight.reshape(-1)
        return draw.weight.reshape(-1) * anchors(*comparisons(draw))

    def penalty(self, params: Any) -> Array:
        """The sum of the L2 penalties, `[]`."""
        total = jnp.zeros(())
        for path, value in named_leaves(params):
            for pattern, factor in self.l2:
                if re.fullmatch(pattern, path):
                    total += factor * backend.sum_of_squares(value)
        return total

    def check(self, params: Any) -> None:
        """Raises ValueError for an L2 pattern that matches no parameter."""
        check_patterns("config.objective.l2", [pattern for pattern, _ in self.l2], params)


def comparisons(draw: SetDraw) -> tuple[Array, Array]:
    """Which pairs of a set are of one class, and which take part: both `bool [n, m]`.

    A row for each of the n = g m images, against the m images of its own group; it takes part
    with all of them but itself.
    """
    there, m = draw.weight > 0, draw.label.shape[1]
    same = draw.label[:, :, None] == draw.label[:, None, :]
    mask = there[:, :, None] & there[:, None, :] & ~jnp.eye(m, dtype=bool)
    return same.reshape(-1, m), mask.reshape(-1, m)


def _nearest_is_same(output: PairOutput, same: Array, mask: Array) -> Array:
    score = -output.value if isinstance(output, Distance) else output.value
    nearest = jnp.where(mask, score, -jnp.inf).argmax(-1)
    return jnp.take_along_axis(same, nearest[:, None], 1)[:, 0].astype(jnp.float32)
