"""Are two images the same? All that can be said of a network's answers to labelled pairs.

Small functions on two arrays, `scores` (large = alike) and `same`, and `verify`, which puts them
together. Thresholds come from the decision card, fitted to validation pairs: none is chosen here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from siamjax import metrics
from siamjax.evaluation.decision import FALSE_ACCEPT_RATES, DecisionCard
from siamjax.types import typed

BINS = 15  # of the reliability table
HARDEST = 50  # errors of each kind that are listed
CONFUSED = 20  # pairs of classes that are listed


class Reliability(NamedTuple):
    """The reliability table: `[bins]` each; a bin without pairs has NaN.

    Attributes:
        claimed: mean similarity of the bin's pairs.
        found: their share of same pairs.
        pairs: how many there are.
        error: the expected calibration error.
    """

    claimed: np.ndarray
    found: np.ndarray
    pairs: np.ndarray
    error: float


class Decided(NamedTuple):
    """What a threshold does: FNMR, FMR, and the share of pairs decided right, all in 0..1."""

    threshold: float
    false_non_matches: float
    false_matches: float
    accuracy: float


@typed
def roc(
    scores: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"]
) -> tuple[np.ndarray, np.ndarray]:
    """False and true accept rates at each threshold, rising from (0, 0) to (1, 1).

    Example:
        >>> false, true = roc(np.array([0.9, 0.6, 0.3]), np.array([True, False, True]))
        >>> false.tolist(), true.tolist()
        ([0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0])
    """
    _, hits, false_alarms = metrics.operating_points(scores, same)
    return false_alarms / false_alarms[-1], hits / hits[-1]


@typed
def precision_recall(
    scores: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"]
) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of "same" at each distinct score, recall rising to 1.

    Example:
        >>> p, r = precision_recall(np.array([0.9, 0.6, 0.3]), np.array([True, False, True]))
        >>> p.round(2).tolist(), r.tolist()
        ([1.0, 0.5, 0.67], [0.5, 0.5, 1.0])
    """
    _, hits, false_alarms = metrics.operating_points(scores, same)
    return hits[1:] / (hits + false_alarms)[1:], hits[1:] / hits[-1]


@typed
def average_precision(scores: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"]) -> float:
    """`sum (R_i - R_{i-1}) P_i`: the area under precision and recall, not interpolated.

    Unlike the AUC it depends on the share of same pairs: that is what a collapsed network gets.

    Example:
        >>> average_precision(np.array([0.9, 0.6, 0.3]), np.array([True, False, True])).__round__(3)
        0.833
    """
    precision, recall = precision_recall(scores, same)
    return float((np.diff(recall, prepend=0) * precision).sum())


@typed
def true_accepts_at(
    scores: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"], rate: float
) -> float | None:
    """The share of same pairs accepted where at most `rate` of the different pairs are.

    Returns:
        A share in 0..1; None where there are fewer than `1 / rate` different pairs: then the one
        threshold that qualifies accepts none of them, which tells nothing about that rate.

    Example:
        >>> scores, same = np.array([0.9, 0.6, 0.5, 0.1]), np.array([True, False, True, False])
        >>> true_accepts_at(scores, same, 0.5), true_accepts_at(scores, same, 0.01)
        (1.0, None)
    """
    _, hits, false_alarms = metrics.operating_points(scores, same)
    if false_alarms[-1] * rate < 1:
        return None
    allowed = false_alarms <= rate * false_alarms[-1]
    return float(hits[allowed][-1] / hits[-1])


@typed
def reliability(
    similarity: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"], bins: int = BINS
) -> Reliability:
    """Does similarity 0.8 mean that 80 % are the same?

    Both kinds of pairs weigh the same in total, as in the fit of the calibration, so the answer
    does not depend on how many different pairs were drawn for each same pair.

    Args:
        similarity: in 0..1.
        same: the truth.
        bins: of equal width.

    Returns:
        The table, and the expected calibration error: the mean over all pairs of their bin's
        |claimed - found|.

    Example:
        >>> table = reliability(np.array([0.9, 0.9, 0.1, 0.1]), np.array([True, True, True, False]))
        >>> table.pairs[[1, 13]].tolist()
        [2, 2]

    References:
        Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks" (2017), eq. 3.
    """
    weight = np.where(same, 0.5 / max(same.sum(), 1), 0.5 / max((~same).sum(), 1))
    place = np.clip((similarity * bins).astype(int), 0, bins - 1)
    total = np.bincount(place, weight, bins)
    with np.errstate(invalid="ignore"):
        claimed = np.bincount(place, weight * similarity, bins) / total
        found = np.bincount(place, weight * same, bins) / total
    error = np.nansum(total * np.abs(claimed - found)) / total.sum()
    return Reliability(claimed, found, np.bincount(place, minlength=bins), float(error))


@typed
def decided(
    similarity: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"], threshold: float
) -> Decided:
    """What a threshold does: a pair counts as same from there on.

    Example:
        >>> decided(np.array([0.9, 0.5, 0.6]), np.array([True, True, False]), 0.55)[1:3]
        (0.5, 1.0)
    """
    accepted = similarity >= threshold
    rejects = float((~accepted[same]).mean()), float(accepted[~same].mean())
    return Decided(threshold, *rejects, float((accepted == same).mean()))


def hardest(
    scores: np.ndarray, wrong: np.ndarray, *, most_alike: bool, count: int = HARDEST
) -> np.ndarray:
    """The rows of `wrong` (a mask) with the highest, or the lowest, scores: the worst first."""
    rows = np.flatnonzero(wrong)
    order = np.argsort(-scores[rows] if most_alike else scores[rows], kind="stable")
    return rows[order][:count]


def confused_classes(
    left: np.ndarray, right: np.ndarray, accepted: np.ndarray, count: int = CONFUSED
) -> list[tuple[int, int, int, int]]:
    """The pairs of different classes that were most often taken for the same.

    Args:
        left: the class of each pair's left image, `[b]`.
        right: of its right image.
        accepted: was it taken for the same?
        count: how many to give at most.

    Returns:
        (class, class, false accepts, pairs compared), by false accepts, then by their share.

    Example:
        >>> confused_classes(np.array([0, 2, 1]), np.array([2, 0, 1]), np.array([True] * 3))
        [(0, 2, 2, 2)]
    """
    different = left != right
    low, high = np.minimum(left, right)[different], np.maximum(left, right)[different]
    if not len(low):
        return []
    both, place = np.unique(np.stack([low, high], 1), axis=0, return_inverse=True)
    compared = np.bincount(place.ravel())
    taken = np.bincount(place.ravel(), accepted[different]).astype(int)
    order = np.lexsort((-taken / compared, -taken))[:count]
    rows = zip(both[order], taken[order], compared[order], strict=True)
    return [(int(a), int(b), int(t), int(n)) for (a, b), t, n in rows if t]


class Error(NamedTuple):
    """A pair decided wrong."""

    left: str
    right: str
    similarity: float


@dataclass(frozen=True)
class Verification:
    """How well pairs are told apart, with what a report needs to draw it.

    Attributes:
        pairs: what the pairs are, in words.
        same, different: how many of each.
        auc, eer, average_precision: in 0..1; of the scores, no threshold involved.
        true_accepts: by name of `FALSE_ACCEPT_RATES`, the share of same pairs accepted at that
            false accept rate of these very pairs; None where they are too few to show it.
        at: by name of the decision card's thresholds.
        card_source: where that card was fitted.
        roc: false and true accept rates `[2, m]`; 1 minus the second against the first is the DET.
        precision_recall: `[2, m]`.
        reliability: of the similarity.
        histogram: `[3, 51]` of the similarity: edges of 50 bins, then same and different pairs in
            each (and a 0).
        confused: (class, class, false accepts, pairs compared) at the first threshold.
        false_accepts, false_rejects: the worst errors there, the worst first.
    """

    pairs: str
    same: int
    different: int
    auc: float
    eer: float
    average_precision: float
    true_accepts: dict[str, float | None]
    at: dict[str, Decided]
    card_source: str
    roc: np.ndarray
    precision_recall: np.ndarray
    reliability: Reliability | None
    histogram: np.ndarray | None
    confused: list[tuple[str, str, int, int]]
    false_accepts: list[Error]
    false_rejects: list[Error]

    @property
    def det(self) -> np.ndarray:
        """False match and false non-match rates `[2, m]`."""
        return np.stack([self.roc[0], 1 - self.roc[1]])


def verify(
    scores: np.ndarray,
    same: np.ndarray,
    similarity: np.ndarray | None,
    card: DecisionCard | None,
    *,
    pairs: str,
    names: Sequence[tuple[str, str]],
    classes: tuple[np.ndarray, np.ndarray, Sequence[str]] | None = None,
) -> Verification:
    """All figures of labelled pairs.

    Args:
        scores: `[b]`, large = alike.
        same: `bool [b]`.
        similarity: `[b]`, in 0..1; None for a baseline, which has none.
        card: gives the thresholds on the similarity; None for a baseline.
        pairs: what the pairs are, in words.
        names: of the two images of each pair.
        classes: of the left and of the right images `[b]`, and the classes' names; None where
            only pairs are known.

    Raises:
        ValueError: if the pairs are all same or all different, or a score is NaN.
    """
    auc = metrics.roc_auc(scores, same)  # also checks them
    at: dict[str, Decided] = {}
    confused: list[tuple[str, str, int, int]] = []
    worst: list[list[Error]] = [[], []]
    table = histogram = None
    if similarity is not None and card is not None:
        at = {name: decided(similarity, same, cut) for name, cut in card.thresholds.items()}
        table, histogram = reliability(similarity, same), _histogram(similarity, same)
        accepted = similarity >= next(iter(at.values())).threshold
        for kind, (wrong, alike) in enumerate(
            ((accepted & ~same, True), (~accepted & same, False))
        ):
            rows = hardest(scores, wrong, most_alike=alike)
            worst[kind] = [
                Error(names[row][0], names[row][1], float(similarity[row])) for row in rows
            ]
        if classes is not None:
            left, right, class_names = classes
            found = confused_classes(left, right, accepted)
            confused = [(class_names[a], class_names[b], taken, n) for a, b, taken, n in found]
    return Verification(
        pairs=pairs,
        same=int(same.sum()),
        different=int((~same).sum()),
        auc=auc,
        eer=metrics.equal_error_rate(scores, same)[0],
        average_precision=average_precision(scores, same),
        true_accepts={n: true_accepts_at(scores, same, r) for n, r in FALSE_ACCEPT_RATES.items()},
        at=at,
        card_source="" if card is None else card.source,
        roc=np.stack(roc(scores, same)),
        precision_recall=np.stack(precision_recall(scores, same)),
        reliability=table,
        histogram=histogram,
        confused=confused,
        false_accepts=worst[0],
        false_rejects=worst[1],
    )


def _histogram(similarity: np.ndarray, same: np.ndarray, bins: int = 50) -> np.ndarray:
    edges = np.linspace(0, 1, bins + 1)
    kinds = [np.append(np.histogram(similarity[kind], edges)[0], 0) for kind in (same, ~same)]
    return np.stack([edges, *kinds])
