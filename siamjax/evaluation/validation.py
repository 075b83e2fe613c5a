"""`Validation`: the figures that a run watches while it trains."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from siamjax import metrics
from siamjax.evaluation import decision, one_shot
from siamjax.evaluation.decision import DecisionCard
from siamjax.evaluation.encoder import Encoder, scores
from siamjax.types import Episodes, LabelledImages, PairOutput, PairTable


class Validated(NamedTuple):
    """What a validation found.

    Attributes:
        figures: for the metrics file.
        one_shot: the one-shot result, if there are trials.
        card: calibration and thresholds, fitted to the validation pairs.
        similarity: of each validation pair, calibrated.
    """

    figures: dict[str, float | str]
    one_shot: one_shot.OneShotResult | None
    card: DecisionCard
    similarity: np.ndarray


class Validation:
    """One-shot trials and pairs over validation images, fixed for the whole run.

    Args:
        images: the validation images; only those that trials or pairs name are ever embedded.
        episodes: one-shot trials, or None for data without classes to draw them from.
        pairs: validation pairs.
        loss: `(output, same) -> [b]`, or None for a loss that is not one of pairs.
        source: what the pairs are, for the decision card.

    Attributes:
        used: `int [u]`, the images that trials and pairs name, in order.
    """

    def __init__(
        self,
        images: LabelledImages,
        episodes: Episodes | None,
        pairs: PairTable,
        loss: Callable[[PairOutput, jax.Array], jax.Array] | None,
        source: str = "validation pairs",
    ):
        self.images, self.pairs, self._loss, self._source = images, pairs, loss, source
        named = [pairs.left, pairs.right]
        if episodes is not None:
            named += [episodes.query, episodes.support]
        self.used = np.unique(np.concatenate([np.ravel(a) for a in named]))
        self._episodes = None
        if episodes is not None:
            query, support = self._place(episodes.query), self._place(episodes.support)
            self._episodes = replace(episodes, query=query, support=support)
        self._left, self._right = self._place(pairs.left), self._place(pairs.right)

        self._inputs: np.ndarray | None = None

    def over(self, inputs: np.ndarray) -> Validation:
        """The same validation, with `inputs [used, ...]` embedded in place of the used images."""
        other = copy(self)
        other._inputs = inputs
        return other

    def _place(self, index: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.used, np.asarray(index)).astype(np.int32)

    @property
    def inputs(self) -> np.ndarray:
        """What is embedded: the used images, or what stands in their place."""
        return self.images.images[self.used] if self._inputs is None else self._inputs

    def __call__(self, encoder: Encoder) -> Validated:
        """Embeds each image once and measures."""
        return self.measure(encoder, encoder.embed(self.inputs))

    def measure(self, encoder: Encoder, z: np.ndarray) -> Validated:
        """Measures the embeddings `z [used, d]` that an encoder made of `inputs`."""
        output = encoder.compare(z[self._left], z[self._right])
        score = scores(output)
        same = self.pairs.same
        encoder.card = decision.fit(score, same, self._source)
        # A loss over sets says nothing of where alike begins: only calibration does.
        decided = output.same if self._loss is not None else encoder.similarity(output) >= 0.5
        figures: dict[str, float | str] = {
            "pair_accuracy": float(np.mean(np.asarray(decided) == same)),
            "best_accuracy": metrics.best_accuracy(score, same)[0],
            "auc": metrics.roc_auc(score, same),
            "eer": metrics.equal_error_rate(score, same)[0],
        }
        if self._loss is not None:
            figures["loss"] = float(np.mean(self._loss(output, jnp.asarray(same))))
        trial = None
        if self._episodes is not None:
            trial = one_shot.evaluate(z, encoder.score, self._episodes)
            figures |= trial.figures
        return Validated(figures, trial, encoder.card, encoder.similarity(output))
