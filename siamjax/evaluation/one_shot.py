"""One-shot accuracy of embeddings and a head, over all trials, with ties counted fairly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float

from siamjax.metrics import one_shot_scores, wilson_interval
from siamjax.types import Episodes

Embeddings = Float[np.ndarray, "m d"]
Compare = Callable[[Embeddings, Embeddings], Float[Array, "m"] | Float[np.ndarray, "m"]]

TIES = 0.01  # more tied trials than this are worth a warning


@dataclass(frozen=True)
class OneShotResult:
    """A one-shot accuracy with all that must be said beside it.

    Attributes:
        protocol: the exact name of the evaluation.
        way: classes in a trial.
        shot: support images of each class.
        trials: how many.
        accuracy: the mean credit, in [0, 1].
        interval: its 95 % Wilson interval. The credits of ties are fractions, of which the
            interval sees only the sum: that makes it a little too wide, never too narrow.
        tie_rate: share of trials whose highest score is shared by several classes.
    """

    protocol: str
    way: int
    shot: int
    trials: int
    accuracy: float
    interval: tuple[float, float]
    tie_rate: float

    @property
    def title(self) -> str:
        """What was measured: "within-alphabet 20-way 1-shot"."""
        return f"{self.protocol} {self.way}-way {self.shot}-shot"

    @property
    def figures(self) -> dict[str, float | str]:
        """The row for the metrics file; `plots.curves` looks for these names."""
        return {
            "one_shot_accuracy": self.accuracy,
            "one_shot_low": self.interval[0],
            "one_shot_high": self.interval[1],
            "one_shot_ties": self.tie_rate,
            "protocol": self.title,
        }

    def __str__(self) -> str:
        low, high = (100 * x for x in self.interval)
        text = (
            f"{self.title}: {100 * self.accuracy:.1f} % [{low:.1f}, {high:.1f}],"
            f" {self.trials:,} trials, ties {100 * self.tie_rate:.1f} %"
        )
        if self.tie_rate > TIES:
            text += (
                " - WARNING: different classes get equal scores (a tie of m counts 1/m);"
                " the embeddings or the scores have collapsed"
            )
        return text


def evaluate(
    embeddings: Float[np.ndarray, "n d"] | Float[Array, "n d"],
    compare: Compare,
    episodes: Episodes,
    *,
    chunk: int = 1024,
) -> OneShotResult:
    """Answers every trial by the class whose supports are most alike to the query.

    With several shots, a class's score is the mean of the query's scores with its supports.

    Each image was embedded once, before; here only the head runs, on `chunk` pairs at a time, the
    last chunk padded, so that `compare` is compiled once and memory stays bounded (1,024 pairs of
    4,096 numbers are twice 16 MiB).

    Args:
        embeddings: of all images the episodes point into.
        compare: `(left [chunk, d], right [chunk, d]) -> score [chunk]`, large means alike,
            row by row. Give a logit or a negated distance rather than a probability: in float32 a
            sigmoid is exactly 1 from about 17 on, and ties where the logits do not.
        episodes: the trials.
        chunk: pairs in a call of `compare`.

    Returns:
        The accuracy with its interval, tie rate and protocol.

    Raises:
        ValueError: if the episodes point past the embeddings, `compare` does not give one score a
            pair, or a score is NaN.

    Example:
        >>> trial = Episodes(np.int32([0]), np.int32([[[2], [1]]]), np.int32([1]), "random-class")
        >>> near = lambda left, right: -np.abs(left - right).sum(1)
        >>> evaluate(np.array([[0.0], [0.1], [1.0]]), near, trial).accuracy
        1.0
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1; got {chunk}")
    trials, way, shot = episodes.support.shape
    if not trials:
        raise ValueError("no trials: the episodes are empty")
    highest = max(int(episodes.query.max()), int(episodes.support.max()))
    if highest >= len(embeddings):
        raise ValueError(
            f"the episodes point at image {highest}, but there are {len(embeddings)} embeddings:"
            " embed the very images the episodes were drawn from"
        )
    left = np.broadcast_to(episodes.query[:, None, None], episodes.support.shape).ravel()
    scores = _in_chunks(np.asarray(embeddings), compare, left, episodes.support.ravel(), chunk)
    by_class = scores.reshape(trials, way, shot).astype(np.float64).mean(2)
    credit, ties = one_shot_scores(by_class, episodes.answer)
    return OneShotResult(
        protocol=episodes.protocol,
        way=way,
        shot=shot,
        trials=trials,
        accuracy=float(credit.mean()),
        interval=wilson_interval(min(float(credit.sum()), trials), trials),
        tie_rate=float(ties.mean()),
    )


def _in_chunks(
    embeddings: np.ndarray, compare: Compare, left: np.ndarray, right: np.ndarray, chunk: int
) -> np.ndarray:
    """`compare` over all pairs of indices: `float32 [pairs]`."""
    scores = np.empty(len(left), np.float32)
    for start in range(0, len(left), chunk):
        rows = slice(start, min(start + chunk, len(left)))
        size = rows.stop - start
        # Padding repeats the last pair: zeros could be NaN under a cosine.
        pad = np.minimum(np.arange(start, start + chunk), rows.stop - 1)
        found = np.asarray(jax.device_get(compare(embeddings[left[pad]], embeddings[right[pad]])))
        if found.shape != (chunk,):
            raise ValueError(
                f"compare must give one score a pair: shape ({chunk},) for {chunk} pairs; got"
                f" {found.shape}"
            )
        scores[rows] = found[:size]
    return scores
