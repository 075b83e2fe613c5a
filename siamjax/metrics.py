"""Figures of merit on the host: one-shot accuracy with ties, and how well a score tells same.

Everywhere a large score means alike, and "same" is decided by `score >= threshold`.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Integer

from siamjax.types import typed


@typed
def one_shot_scores(
    scores: Float[np.ndarray, "t way"], answer: Integer[np.ndarray, "t"]
) -> tuple[Float[np.ndarray, "t"], Bool[np.ndarray, "t"]]:
    """What each one-shot trial earns: 1 for the right class, 1/m where m classes tie for the top.

    Counting the first maximum as the choice would give 100 % to a network that answers the same
    to everything, wherever the right class happens to stand first. With 1/m it gets 1/way.

    Args:
        scores: of each query with each class; large means alike.
        answer: the right class, `0 .. way - 1`.

    Returns:
        The credit of each trial, in [0, 1], and whether its maximum is shared.

    Raises:
        ValueError: if there are no trials, a score is NaN, or an answer is out of range.

    Example:
        >>> credit, ties = one_shot_scores(np.array([[0.1, 0.9], [0.5, 0.5]]), np.array([1, 0]))
        >>> credit.tolist(), ties.tolist()
        ([1.0, 0.5], [False, True])
    """
    trials, way = scores.shape
    if not trials or not way:
        raise ValueError(f"one-shot scores must be [trials, way]; got {scores.shape}: no trials")
    wrong = np.isnan(scores).any(1)
    if wrong.any():
        raise ValueError(
            f"{wrong.sum()} of {trials} one-shot trials have NaN scores: the weights or the"
            " embeddings are no longer finite"
        )
    if answer.min() < 0 or answer.max() >= way:
        raise ValueError(
            f"answers must lie in 0..{way - 1}; got {answer.min()}..{answer.max()}: they are"
            " positions among the classes of the trial, not labels"
        )
    best = scores == scores.max(1, keepdims=True)
    tied = best.sum(1)
    return best[np.arange(trials), answer] / tied, tied > 1


def wilson_interval(successes: float, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a proportion.

    Unlike p ± z·sqrt(p(1-p)/n) it stays within [0, 1] and is honest at 0 % and 100 %.

    Args:
        successes: how many trials succeeded; may be fractional (shared credit).
        trials: how many there were.
        level: coverage, in (0, 1).

    Returns:
        (low, high), shares in [0, 1].

    Raises:
        ValueError: if there are no trials, or successes or level are out of range.

    Example:
        >>> low, high = wilson_interval(18, 20)
        >>> f"{low:.3f} {high:.3f}"
        '0.699 0.972'

    References:
        Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"an interval needs at least one trial and 0 <= successes <= trials; got {successes} of"
            f" {trials}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}: 0.95 means 95 %")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / trials
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + (z / (2 * trials)) ** 2) / (1 + z * z / trials)
    # At the ends the interval touches 0 or 1 exactly; rounding must not push it past p.
    return min(max(0.0, middle - half), p), max(min(1.0, middle + half), p)


@typed
def roc_auc(scores: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"]) -> float:
    """The chance that a same pair scores higher than a different one; a tie counts half.

    Computed exactly from midranks: AUC = (R - s(s+1)/2) / (s·d), with R the sum of the ranks of
    the s same pairs among all s + d pairs.

    Args:
        scores: of each pair; large means alike.
        same: the truth.

    Returns:
        A share in [0, 1]: 1 perfect, 0.5 useless.

    Raises:
        ValueError: if there are no pairs of one kind, or a score is NaN.

    Example:
        >>> roc_auc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
        0.875

    References:
        Hanley and McNeil, "The meaning and use of the area under a receiver operating
        characteristic (ROC) curve" (1982).
    """
    _check(scores, same)
    _, inverse, count = np.unique(scores, return_inverse=True, return_counts=True)
    midrank = np.cumsum(count) - (count - 1) / 2  # ranks from 1, averaged over equal scores
    positives = int(same.sum())
    surplus = midrank[inverse][same].sum() - positives * (positives + 1) / 2
    return float(surplus / (positives * (len(same) - positives)))


@typed
def equal_error_rate(
    scores: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"]
) -> tuple[float, float]:
    """Where false accepts are as frequent as false rejects.

    The two rates move in steps; between the two operating points that enclose their crossing they
    are interpolated linearly.

    Args:
        scores: of each pair; large means alike.
        same: the truth.

    Returns:
        (rate, threshold): the common error rate in [0, 1], and the threshold of the nearer of the
        two operating points, midway between the neighbouring scores.

    Raises:
        ValueError: if there are no pairs of one kind, or a score is NaN.

    Example:
        >>> equal_error_rate(np.array([0.9, 0.6, 0.4, 0.1]), np.array([True, True, False, False]))
        (0.0, 0.5)
    """
    _check(scores, same)
    thresholds, hits, false_alarms = operating_points(scores, same)
    accepts = false_alarms / false_alarms[-1]
    rejects = 1 - hits / hits[-1]
    gap = accepts - rejects  # rises from -1 to 1, so its first value >= 0 has a left neighbour
    after = int(np.argmax(gap >= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    rate = accepts[after - 1] + share * (accepts[after] - accepts[after - 1])
    return float(rate), float(thresholds[after - 1 if share < 0.5 else after])


@typed
def best_accuracy(
    scores: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"]
) -> tuple[float, float]:
    """The highest accuracy any threshold gives, and that threshold.

    The threshold was chosen on these very pairs, so on others it will do slightly worse: choose
    it on validation pairs and apply it with `accuracy_at` to the test.

    Args:
        scores: of each pair; large means alike.
        same: the truth.

    Returns:
        (accuracy in [0, 1], threshold). The threshold lies midway between the neighbouring
        scores; of several equally good ones, the one with the widest gap around it.

    Raises:
        ValueError: if there are no pairs of one kind, or a score is NaN.

    Example:
        >>> best_accuracy(np.array([0.75, 0.5, 0.25]), np.array([True, True, False]))
        (1.0, 0.375)
    """
    _check(scores, same)
    thresholds, hits, false_alarms = operating_points(scores, same)
    right = hits + (false_alarms[-1] - false_alarms)
    values = np.unique(scores)[::-1].astype(np.float64)
    gap = np.concatenate([[0.0], values[:-1] - values[1:], [0.0]])
    best = np.lexsort((gap, right))[-1]
    return float(right[best] / len(same)), float(thresholds[best])


@typed
def threshold_at_false_accepts(
    scores: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"], rate: float
) -> float:
    """The lowest threshold at which no more than `rate` of the different pairs are accepted.

    Args:
        scores: of each pair; large means alike.
        same: the truth.
        rate: false accepts allowed, in [0, 1].

    Raises:
        ValueError: if there are no pairs of one kind, or a score is NaN.

    Example:
        >>> scores = np.array([0.9, 0.4, 0.6, 0.2])
        >>> threshold_at_false_accepts(scores, np.array([True, True, False, False]), 0.5)
        0.30000000000000004
    """
    _check(scores, same)
    thresholds, _, false_alarms = operating_points(scores, same)
    allowed = np.flatnonzero(false_alarms <= rate * false_alarms[-1])
    return float(thresholds[allowed[-1]])


@typed
def accuracy_at(
    scores: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"], threshold: float | int
) -> float:
    """The share of pairs where `score >= threshold` agrees with the truth.

    Args:
        scores: of each pair; large means alike.
        same: the truth; may be of one kind only.
        threshold: from which score on a pair counts as same.

    Returns:
        A share in [0, 1].

    Raises:
        ValueError: if there are no pairs, or a score is NaN.

    Example:
        >>> accuracy_at(np.array([0.9, 0.5, 0.6]), np.array([True, True, False]), 0.5)
        0.6666666666666666
    """
    _check(scores, same, both=False)
    return float(((scores >= threshold) == same).mean())


def operating_points(
    scores: np.ndarray, same: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every distinct way to cut the scores, from "nothing is same" to "all is".

    Returns:
        thresholds, and how many same and how many different pairs each accepts: `[m + 1]` for m
        distinct scores. Thresholds keep the dtype of the scores, so that comparing scores of that
        dtype with them never rounds to the other side.
    """
    values, inverse = np.unique(scores, return_inverse=True)
    hits = np.bincount(inverse, weights=same, minlength=len(values))[::-1]
    false_alarms = np.bincount(inverse, weights=~same, minlength=len(values))[::-1]
    values = values[::-1]
    upper, lower = values[:-1], values[1:]
    with np.errstate(invalid="ignore"):
        middle = upper / 2 + lower / 2
        middle = np.where((lower < middle) & (middle <= upper), middle, upper)
    above = np.nextafter(values[:1], np.array(np.inf, values.dtype))
    thresholds = np.concatenate([above, middle, values[-1:]])
    return (
        thresholds,
        np.concatenate([[0.0], np.cumsum(hits)]),
        np.concatenate([[0.0], np.cumsum(false_alarms)]),
    )


def _check(scores: np.ndarray, same: np.ndarray, both: bool = True) -> None:
    if len(scores) != len(same):
        raise ValueError(f"{len(scores)} scores but {len(same)} pairs: give one score a pair")
    if not len(scores):
        raise ValueError("no pairs: this figure needs at least one score")
    if np.isnan(scores).any():
        raise ValueError(
            f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN: the weights or the"
            " embeddings are no longer finite"
        )
    if both and (same.all() or not same.any()):
        kind = "same" if same.all() else "different"
        raise ValueError(
            f"all {len(same)} pairs are {kind}: this figure needs same and different pairs"
        )


@typed
def platt(
    scores: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"], rounds: int = 50
) -> tuple[float, float]:
    """The slope a and offset b for which `sigmoid(a * score + b)` best predicts `same`.

    A logistic regression by Newton's method. Both kinds of pairs weigh the same in total, so 1/2
    is the point where errors of either kind cost as much; targets are drawn in a little, so
    separable scores give a finite slope.

    Args:
        scores: `[b]`, large = alike.
        same: `[b]`.
        rounds: of Newton's method, at most.

    Returns:
        `(a, b)`; a is at least 0: calibration never turns the order of two pairs round.

    Raises:
        ValueError: if the pairs are all same or all different.

    References:
        Platt 1999, "Probabilistic Outputs for Support Vector Machines", section 2.2.

    Example:
        >>> a, b = platt(np.array([0.0, 1.0, 2.0, 3.0]), np.array([False, False, True, True]))
        >>> round(-b / a, 3)
        1.5
    """
    _check(scores, same)
    counts = np.array([(~same).sum(), same.sum()], np.float64)
    weight = np.where(same, 1 / counts[1], 1 / counts[0])
    target = np.where(same, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))
    centre, spread = scores.mean(dtype=np.float64), scores.std(dtype=np.float64) or 1.0
    x = np.stack([(scores - centre) / spread, np.ones(len(scores))], 1)

    theta = np.zeros(2)
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-x @ theta))
        gradient = x.T @ (weight * (p - target))
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        theta = theta - step
        if np.abs(step).max() < 1e-9:
            break
    if theta[0] <= 0:  # the best of what is allowed is a constant
        mean = np.average(target, weights=weight)
        return 0.0, float(np.log(mean / (1 - mean)))
    slope = float(theta[0]) / float(spread)
    return slope, float(theta[1]) - slope * float(centre)
