"""The decision card: what a run needs, beside its weights, to say "same" or "different".

Everything on it is fitted to validation pairs, never to test pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from siamjax import metrics
from siamjax.types import typed

DEFAULT = "calibrated"
FALSE_ACCEPT_RATES = {"far_1": 0.01, "far_0.1": 0.001}
MEANING = {
    "calibrated": "false accepts and false rejects weigh the same",
    "accuracy": "most validation pairs right",
    "eer": "as many false accepts as false rejects",
    "far_1": "at most 1 % of different pairs accepted",
    "far_0.1": "at most 0.1 % of different pairs accepted",
}


@dataclass(frozen=True)
class DecisionCard:
    """Calibration and thresholds of a run.

    Attributes:
        calibration: slope and offset: `similarity = sigmoid(slope * score + offset)`, the score
            being a logit or a negated distance; None for the head's own similarity.
        thresholds: by name (`MEANING` explains them), on the similarity: from there on a pair
            counts as same. A false accept rate that the pairs are too few to show is not there.
        false_accepts: share of different validation pairs accepted at each threshold.
        false_rejects: share of same validation pairs rejected at each threshold.
        source: where all this was fitted, in one line.
    """

    calibration: tuple[float, float] | None = None
    thresholds: Mapping[str, float] = field(default_factory=lambda: {DEFAULT: 0.5})
    false_accepts: Mapping[str, float] = field(default_factory=dict)
    false_rejects: Mapping[str, float] = field(default_factory=dict)
    source: str = "not fitted: the run was not validated yet"

    def similarity(self, scores: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Calibrated scores, in 0..1. There must be a calibration."""
        if self.calibration is None:
            raise ValueError("this card has no calibration: the run was not validated yet")
        return calibrated(scores, self.calibration)

    def threshold(self, name: str | float) -> float:
        """The similarity from which a pair counts as same: by name, or a number in 0..1.

        Raises:
            ValueError: for a name that is not on this card, or a number outside 0..1.
        """
        if name in self.thresholds:
            return self.thresholds[str(name)]
        try:
            value = float(name)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            known = ", ".join(self.thresholds)
            few = " (too few validation pairs to fit it)" if name in MEANING else ""
            raise ValueError(f"no threshold {name!r}{few}; choose {known} or a number in 0..1")
        return value

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> DecisionCard:
        """The card of `to_dict`; an empty one for None."""
        if values is None:
            return cls()
        slope_offset = values["calibration"]
        pair = None if slope_offset is None else (float(slope_offset[0]), float(slope_offset[1]))
        return cls(**{**values, "calibration": pair})


def calibrated(
    scores: Float[np.ndarray, "..."], calibration: tuple[float, float]
) -> Float[np.ndarray, "..."]:
    """`sigmoid(slope * score + offset)`, without overflow.

    Example:
        >>> calibrated(np.array([-1e9, 0.0, 1e9]), (1.0, 0.0)).tolist()
        [0.0, 0.5, 1.0]
    """
    slope, offset = calibration
    z = np.asarray(scores) * np.asarray(slope, np.asarray(scores).dtype) + offset
    return (0.5 * (1 + np.tanh(0.5 * z))).astype(np.asarray(scores).dtype)


def probability(similarity: Float[np.ndarray, "..."], prior: float) -> Float[np.ndarray, "..."]:
    """How likely a pair is same, where `prior` of all pairs are.

    The similarity is calibrated on as many same pairs as different ones; Bayes' rule moves its
    odds by those of the prior.

    Args:
        similarity: in 0..1.
        prior: share of same pairs where the answer will be used, in (0, 1).

    Raises:
        ValueError: if the prior does not lie between 0 and 1.

    Example:
        >>> probability(np.array([0.5, 0.99]), prior=0.01).round(4).tolist()
        [0.01, 0.5]
    """
    if not 0 < prior < 1:
        raise ValueError(f"the prior is the share of same pairs, between 0 and 1; got {prior}")
    if prior == 0.5:
        return similarity
    same, different = similarity * prior, (1 - similarity) * (1 - prior)
    return same / (same + different)


@typed
def fit(scores: Float[np.ndarray, "b"], same: Bool[np.ndarray, "b"], source: str) -> DecisionCard:
    """The card of validation pairs.

    Args:
        scores: of each pair, large = alike: a logit or a negated distance.
        same: the truth.
        source: what the pairs are.

    Raises:
        ValueError: if the pairs are all same or all different, or a score is NaN.

    Example:
        >>> scores = np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.1])
        >>> card = fit(scores, np.array([True] * 3 + [False] * 3), "six pairs")
        >>> sorted(card.thresholds), round(card.false_rejects["accuracy"], 2)
        (['accuracy', 'calibrated', 'eer'], 0.33)
    """
    calibration = metrics.platt(scores, same)
    cuts = {
        "accuracy": metrics.best_accuracy(scores, same)[1],
        "eer": metrics.equal_error_rate(scores, same)[1],
    }
    different = int((~same).sum())
    for name, rate in FALSE_ACCEPT_RATES.items():
        if different * rate >= 1:
            cuts[name] = metrics.threshold_at_false_accepts(scores, same, rate)
    at = np.array(list(cuts.values()), scores.dtype)
    thresholds = {DEFAULT: 0.5}
    thresholds |= dict(zip(cuts, calibrated(at, calibration).tolist(), strict=True))
    accepted = {name: calibrated(scores, calibration) >= t for name, t in thresholds.items()}
    return DecisionCard(
        calibration=calibration,
        thresholds=thresholds,
        false_accepts={name: float(a[~same].mean()) for name, a in accepted.items()},
        false_rejects={name: float((~a[same]).mean()) for name, a in accepted.items()},
        source=f"fitted on {source}: {int(same.sum()):,} same and {different:,} different",
    )
