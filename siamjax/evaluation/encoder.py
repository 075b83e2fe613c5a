"""`Encoder`: embeds any number of images and compares any number of pairs, in compiled chunks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from siamjax import backend
from siamjax.evaluation.decision import DecisionCard
from siamjax.models import Ensemble, Siamese
from siamjax.types import Distance, PairOutput, typed


class Encoder:
    """A model and its weights, in inference mode.

    Inputs are padded to the next power of two up to a chunk, so few programs are compiled
    whatever the sizes, and memory is bounded.

    Args:
        model: tower and head, or several of them as one.
        weights: `{"params", "batch_stats"}`.
        card: of the run; `similarity` is calibrated with it, where it has a calibration;
            None for an empty one.
        chunk: images in one call at most.
        pair_chunk: comparisons in one call at most.
    """

    def __init__(
        self,
        model: Siamese | Ensemble,
        weights: Any,
        card: DecisionCard | None = None,
        *,
        chunk: int = 128,
        pair_chunk: int = 4096,
    ):
        self.model, self.weights = model, weights
        self.card = card or DecisionCard()
        self._chunk, self._pair_chunk = chunk, pair_chunk
        self._embed = backend.jit(lambda w, x: model.apply(w, x, method="embed"))
        self._compare = backend.jit(lambda w, a, b: model.apply(w, a, b, method="compare"))

    @typed
    def embed(self, images: Num[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
        """Embeddings of any number of images (or of what the model takes for them), each once."""
        return self._in_chunks(lambda x: self._embed(self.weights, x), self._chunk, images)

    @typed
    def compare(
        self, left: Float[np.ndarray, "m d"], right: Float[np.ndarray, "m d"]
    ) -> PairOutput:
        """Row-wise comparisons of embeddings: a `Distance` or `Logit` of shape `[m]`."""
        kind: list[PairOutput] = []

        def values(a: np.ndarray, b: np.ndarray) -> jax.Array:
            kind[:] = [self._compare(self.weights, a, b)]
            return kind[0].value

        value = self._in_chunks(values, self._pair_chunk, left, right)
        return jax.tree.map(lambda _: jnp.asarray(value), kind[0])

    def score(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Row-wise scores, large = alike: the logit, or minus the distance."""
        return scores(self.compare(left, right))

    def similarity(self, output: PairOutput) -> np.ndarray:
        """How alike, in 0..1: calibrated, or as the head has it."""
        if self.card.calibration is None:
            return np.asarray(output.similarity)
        return self.card.similarity(scores(output))

    @staticmethod
    def _in_chunks(function: Any, chunk: int, *arrays: np.ndarray) -> np.ndarray:
        n = len(arrays[0])
        results = []
        for start in range(0, max(n, 1), chunk):
            parts = [a[start : start + chunk] for a in arrays]
            size = len(parts[0])
            padded = min(chunk, 1 << max(0, size - 1).bit_length())
            if padded > size:
                fill = [(0, padded - size)]
                parts = [np.pad(p, fill + [(0, 0)] * (p.ndim - 1)) for p in parts]
            results.append(np.asarray(function(*parts))[:size])
        return np.concatenate(results)


def scores(output: PairOutput) -> np.ndarray:
    """Large = alike, from every head: the logit, or minus the distance."""
    value = np.asarray(output.value)
    return -value if isinstance(output, Distance) else value
