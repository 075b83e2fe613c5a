"""`Validation`: the figures that a run watches while it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from siamjax import metrics
from siamjax.evaluation import one_shot
from siamjax.evaluation.encoder import Encoder
from siamjax.types import Episodes, LabelledImages, PairDraw, PairOutput


class Validated(NamedTuple):
    """Figures for the metrics file, the one-shot result, and the pairs behind them."""

    figures: dict[str, float]
    one_shot: one_shot.OneShotResult
    similarity: np.ndarray


class Validation:
    """One-shot trials and pairs over validation images, fixed for the whole run.

    Args:
        images: the validation images; only those that trials or pairs name are ever embedded.
        episodes: one-shot trials.
        draw: validation pairs.
        loss: `(output, same) -> [b]`, or None for a loss that is not one of pairs.
    """

    def __init__(
        self,
        images: LabelledImages,
        episodes: Episodes,
        draw: PairDraw,
        loss: Callable[[PairOutput, jax.Array], jax.Array] | None,
    ):
        self.images, self.draw, self._loss = images, draw, loss
        named = [episodes.query, episodes.support, draw.left, draw.right]
        self._used = np.unique(np.concatenate([np.ravel(a) for a in named]))
        self._episodes = Episodes(
            query=self._place(episodes.query),
            support=self._place(episodes.support),
            answer=episodes.answer,
            protocol=episodes.protocol,
        )
        self._left, self._right = self._place(draw.left), self._place(draw.right)
        self._same = np.asarray(draw.same)

    def _place(self, index: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._used, np.asarray(index)).astype(np.int32)

    def __call__(self, encoder: Encoder) -> Validated:
        """Embeds each image once and measures."""
        z = encoder.embed(self.images.images[self._used])
        trial = one_shot.evaluate(z, encoder.score, self._episodes)
        output = encoder.compare(z[self._left], z[self._right])
        similarity = np.asarray(output.similarity)
        score = encoder.score(z[self._left], z[self._right])
        figures = trial.figures | {
            "pair_accuracy": float(np.mean(np.asarray(output.same) == self._same)),
            "best_accuracy": metrics.best_accuracy(score, self._same)[0],
            "auc": metrics.roc_auc(score, self._same),
            "eer": metrics.equal_error_rate(score, self._same)[0],
        }
        if self._loss is not None:
            figures["loss"] = float(np.mean(self._loss(output, jnp.asarray(self._same))))
        return Validated(figures, trial, similarity)

