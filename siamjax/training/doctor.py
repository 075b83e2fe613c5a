"""Looks at a run while it trains, and says in plain words what ails it.

At each validation one batch is drawn and one device's share of it examined there: about one step's
work, some per cent of what a validation costs. `examination` measures, `Doctor` judges. A finding
has to hold twice in a row, and not before step 100: many healthy nets start almost constant, and
leave that plateau within some dozen steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from siamjax.training.examination import Measures
from siamjax.training.state import TrainState
from siamjax.training.step import Data

# Thresholds, set where thin copies of the recipes raise no alarm and planted diseases do.
EARLIEST, PATIENCE = 100, 2  # the first step of a finding; examinations it has to hold
FLAT_EMBEDDINGS = 0.004  # difference of two images' embeddings, as a share of their size
FLAT_SIMILARITIES = 1e-4  # standard deviation over pairs
NOT_LEARNED = 0.98  # loss, as a share of what the best constant answer costs
WORSE_THAN_CONSTANT = 2.0  # the same share; untrained nets come to 1.4
DEAD, SATURATED = 0.9, 0.9  # shares of units
INVERTED_AUC = 0.45  # of some thousand validation pairs, whose chance is 0.5 +- 0.015
INVERTED = -4.0  # separation in standard errors; fresh nets of the recipes have -1 and more


@dataclass
class Doctor:
    """Judges what `examine` measures over a run.

    Attributes:
        examine: of `examiner`.
        learning_rate: of the config, for the remedy.
        start_remedy: what helps a net that starts almost constant.
        counts: how often in a row each finding held.
        said: findings that were told.
        first: relative and absolute spread of the embeddings, and their separation, at the first
            examination.
        marks: of the last examination, and the step it was at.
        last_ratio: the loss over a constant answer's, at the last examination.
    """

    examine: Callable[[TrainState, Data], Measures]
    learning_rate: float
    start_remedy: str
    counts: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    first: tuple[float, float, float] | None = None
    marks: dict[str, list[float]] = field(default_factory=dict)
    marked_at: int = 0
    last_ratio: float | None = None

    def state(self) -> dict[str, Any]:
        """What a resumed run has to know, as JSON values."""
        return {
            "counts": dict(self.counts),
            "said": list(self.said),
            "first": None if self.first is None else list(self.first),
            "marks": dict(self.marks),
            "marked_at": self.marked_at,
            "last_ratio": self.last_ratio,
        }

    def restore(self, saved: dict[str, Any] | None) -> None:
        """Goes on from `state()`; None, of a run without a doctor, changes nothing."""
        if saved is None:
            return
        for name, value in saved.items():
            setattr(self, name, value)
        self.first = saved["first"] and tuple(saved["first"])

    def look(
        self, step: int, state: TrainState, data: Data, auc: float | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        """Examines a state.

        Args:
            step: steps taken.
            state: one copy, on one device.
            data: of one device.
            auc: of the validation pairs.

        Returns:
            Figures for the metrics, and the sentences that were not told before.
        """
        found = jax.device_get(self.examine(state, data))
        findings = self.judge(step, found, auc)
        new = [text for name, text in findings.items() if name not in self.said]
        self.said += [name for name in findings if name not in self.said]
        figures = {
            name: value for name, value in found._asdict().items() if not isinstance(value, dict)
        }
        figures["modules"] = list(found.gradient_norm)
        figures["gradient_norms"] = [float(f"{g:.4g}") for g in found.gradient_norm.values()]
        figures["dead_units"] = max((float(v) for v in found.dead.values()), default=0.0)
        figures["findings"] = list(findings.values())
        return figures, new

    def judge(self, step: int, found: Measures, auc: float | None = None) -> dict[str, str]:
        """The findings that have held long enough: name to sentence."""
        ratio = float(found.loss_over_constant)
        if self.first is None:
            first = found.relative_spread, found.embedding_spread, found.separation
            self.first = (float(first[0]), float(first[1]), float(first[2]))
        held = {
            **self._spread(found, ratio),
            **self._loss(found, ratio),
            **self._labels(found, ratio, auc),
            **self._moved(step, found),
        }
        self.last_ratio = ratio if np.isfinite(ratio) else None
        self.counts = {name: self.counts.get(name, 0) + 1 for name in held if step >= EARLIEST}
        return {name: text for name, text in held.items() if self.counts.get(name, 0) >= PATIENCE}

    def _spread(self, found: Measures, ratio: float) -> dict[str, str]:
        """Constant answers: from the start, or by a collapse."""
        findings = {}
        flat = found.relative_spread < FLAT_EMBEDDINGS
        if ratio > NOT_LEARNED and (flat or found.similarity_spread < FLAT_SIMILARITIES):
            now, slower = found.embedding_spread, f"{self.learning_rate / 10:g}"
            start, then, _ = self.first or (0.0, 0.0, 0.0)
            if then > 10 * now:
                findings["collapse"] = (
                    f"embeddings of different images differ by {now:.2g}, and by {then:.2g} at the"
                    " start: the net has collapsed to a constant answer; use"
                    f" --config.optimizer.learning_rate={slower}"
                )
            elif flat or start < FLAT_EMBEDDINGS:
                findings["blind"] = (
                    f"embeddings of different images differ by {now:.2g}: the net can't tell images"
                    f" apart yet; {self.start_remedy}"
                )
            else:
                findings["constant"] = (
                    f"the similarities of all pairs lie within {found.similarity_spread:.2g} of"
                    " each other, though embeddings differ: the head gives a constant answer; use"
                    f" --config.optimizer.learning_rate={slower}, or another config.model.head"
                )
        if found.saturated > SATURATED and ratio > NOT_LEARNED:
            findings["saturated"] = (
                f"{found.saturated:.0%} of the embeddings' entries lie at the ends of their"
                f" sigmoid, where no gradient passes; {self.start_remedy}"
            )
        return findings

    def _loss(self, found: Measures, ratio: float) -> dict[str, str]:
        """A learning rate too high, and units that it killed."""
        findings, slower = {}, f"{self.learning_rate / 10:g}"
        falling = self.last_ratio is not None and ratio < 0.9 * self.last_ratio
        if ratio > WORSE_THAN_CONSTANT and not falling:
            findings["rate"] = (
                f"the loss, {found.loss:.3g}, is {ratio:.1f} times that of a constant answer and"
                f" does not fall: the learning rate ({self.learning_rate:g}) is too high; use"
                f" --config.optimizer.learning_rate={slower}"
            )
        dead = {name: share for name, share in found.dead.items() if share > DEAD}
        if dead and ratio > NOT_LEARNED:
            name, share = max(dead.items(), key=lambda item: item[1])
            findings["dead"] = (
                f"{share:.0%} of the units of {name} get no gradient: they are dead; use"
                f" --config.optimizer.learning_rate={slower}, or another config.model.init"
            )
        return findings

    def _labels(self, found: Measures, ratio: float, auc: float | None) -> dict[str, str]:
        """Same and different the wrong way round."""
        low = auc is not None and auc < INVERTED_AUC
        backwards = found.separation < INVERTED
        # Told apart the wrong way round, a net whose head can only fall with the distance makes
        # all images alike: only its start still shows why.
        if ratio > NOT_LEARNED and self.first is not None:
            backwards |= self.first[2] < INVERTED
        if not (low or backwards):
            return {}
        if low:
            seen = (
                f"validation pairs of one class look less alike than pairs of two (AUC {auc:.2f})"
            )
        else:
            seen = "training pairs that are called same lie farther apart than those called"
            seen += " different"
        return {
            "inverted": f"{seen}: the labels are probably inverted; 1 has to mean same, in a table"
            " of pairs as everywhere"
        }

    def _moved(self, step: int, found: Measures) -> dict[str, str]:
        """Parameters that should train and do not."""
        marks = {path: [float(x) for x in value] for path, value in found.marks.items()}
        modules: dict[str, list[bool]] = {}
        for path, value in marks.items():
            still = self.marks.get(path) == value and step > self.marked_at
            modules.setdefault(path.rpartition("/")[0], []).append(still)
        since = self.marked_at
        self.marks, self.marked_at = marks, step
        stuck = [name for name, still in modules.items() if all(still)]
        if not stuck:
            return {}
        shown = ", ".join(stuck[:5]) + (f" and {len(stuck) - 5} more" if len(stuck) > 5 else "")
        reached = [name for name in stuck if found.gradient_norm[name] > 0]
        why = (
            "gradients reach them, but the optimiser leaves them: look for a learning rate of 0 in"
            " config.optimizer.groups, and at the schedule"
            if reached
            else "no gradient reaches them: they are cut off from the loss, or their units are dead"
        )
        return {
            "frozen": f"the parameters of {shown} have not changed since step {since}, though"
            f" config.optimizer.frozen does not name them; {why}"
        }
