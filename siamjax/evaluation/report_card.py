"""Runs evaluations by name and sets down what they found: as lines of text, and as plain JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from siamjax.data.splits import printable
from siamjax.evaluation import one_shot, protocols, retrieval
from siamjax.evaluation.decision import FALSE_ACCEPT_RATES, DecisionCard
from siamjax.evaluation.lake_runs import PROTOCOL as LAKE
from siamjax.evaluation.lake_runs import LakeRuns
from siamjax.evaluation.one_shot import OneShotResult
from siamjax.evaluation.protocols import LakeResult, Scorer
from siamjax.evaluation.retrieval import OpenSet, Retrieval
from siamjax.evaluation.subject import Subject
from siamjax.evaluation.verification import Verification, verify

Result = OneShotResult | LakeResult | Verification | Retrieval | OpenSet


@dataclass(frozen=True)
class Settings:
    """How much is drawn.

    Attributes:
        way, shot, trials: of one-shot trials and of open sets, where the protocol leaves it open.
        pairs: drawn for verification; 0: all.
        balanced: half of the pairs same, rather than as they occur.
        queries: looked up in retrieval; 0: all.
        seed: of everything that is drawn.
    """

    way: int = 20
    shot: int = 1
    trials: int = 400
    pairs: int = 20_000
    balanced: bool = True
    queries: int = 1000
    seed: int = 0


@dataclass
class Evaluation:
    """One network, or baseline, on one set of data: each image is embedded once.

    Attributes:
        scorer: embeds and compares.
        subject: the data, as a function, called only if a protocol needs them.
        runs: Lake's runs, where they are to be evaluated.
        card: the decision card; None for a baseline.
        settings: how much is drawn.
    """

    scorer: Scorer
    subject_of: Callable[[], Subject]
    runs: LakeRuns | None = None
    card: DecisionCard | None = None
    settings: Settings = field(default_factory=Settings)

    @cached_property
    def subject(self) -> Subject:
        """The data."""
        return self.subject_of()

    @cached_property
    def embeddings(self) -> np.ndarray:
        """Of all images of the data, each embedded once."""
        return self.scorer.embed(np.asarray(self.subject.images.images))

    def run(self, protocol: str) -> Result:
        """One evaluation.

        Raises:
            ValueError: if the data do not fit the protocol.
        """
        if protocol == LAKE:
            if self.runs is None:
                raise ValueError(
                    f"{LAKE} needs the runs: give all_runs.zip, or its folder (--data)"
                )
            return protocols.score_lake(self.scorer, self.runs)
        if self.subject.pairs is not None and protocol != "verification":
            raise ValueError(
                f"{protocol} needs images with classes; {self.subject.name} states pairs only: use"
                " --protocol=verification"
            )
        if protocol == "verification":
            return self._verification()
        if protocol == "retrieval":
            return self._retrieval()
        if protocol == "open-set":
            return self._open_set()
        s = self.settings
        episodes = protocols.draw_episodes(
            self.subject.images, protocol, way=s.way, shot=s.shot, trials=s.trials, seed=s.seed
        )
        return one_shot.evaluate(self.embeddings, self.scorer.score, episodes)

    def _verification(self) -> Verification:
        s, images = self.settings, self.subject.images
        table, said = protocols.evaluation_pairs(
            self.subject, pairs=s.pairs, balanced=s.balanced, seed=s.seed
        )
        scores, similarity = protocols.compare_pairs(
            self.scorer, self.embeddings, table.left, table.right
        )
        names = images.paths or [
            f"image {i} ({images.class_names[label]})" for i, label in enumerate(images.labels)
        ]
        classes = None
        if self.subject.pairs is None:
            classes = images.labels[table.left], images.labels[table.right], images.class_names
        return verify(
            scores,
            np.asarray(table.same),
            similarity,
            self.card,
            pairs=said,
            names=[(names[a], names[b]) for a, b in zip(table.left, table.right, strict=True)],
            classes=classes,
        )

    def _retrieval(self) -> Retrieval:
        s = self.settings
        return retrieval.retrieve(
            self.embeddings, self.subject.images, self.scorer.score, queries=s.queries, seed=s.seed
        )

    def _open_set(self) -> OpenSet:
        if self.card is None:
            raise ValueError("open-set needs a threshold, and a baseline has none: use --workdir")
        s = self.settings
        rounds = retrieval.draw_rounds(
            self.subject.images, way=s.way, shot=s.shot, trials=s.trials, seed=s.seed
        )

        def compare(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            scores, alike = protocols.compare_pairs(self.scorer, self.embeddings, left, right)
            assert alike is not None
            return scores, alike

        return retrieval.open_set(compare, rounds, self.card.thresholds, self.card.source)


def lines(result: Result) -> list[str]:
    """A result as text."""
    return summary(result) if isinstance(result, Verification) else str(result).split("\n")


def values(result: Result) -> dict[str, Any]:
    """A result as plain values, ready for JSON."""
    if isinstance(result, Verification):
        return verification_values(result)
    if isinstance(result, LakeResult):
        return one_shot_values(result.total) | {"error_per_run": result.errors.tolist()}
    if isinstance(result, OneShotResult):
        return one_shot_values(result)
    return result.to_json()


def one_shot_values(result: OneShotResult) -> dict[str, Any]:
    """Plain values of a one-shot accuracy."""
    return {
        "protocol": result.protocol,
        "way": result.way,
        "shot": result.shot,
        "trials": result.trials,
        "accuracy": result.accuracy,
        "interval": list(result.interval),
        "tie_rate": result.tie_rate,
    }


def summary(result: Verification) -> list[str]:
    """The figures as lines of text."""
    lines = [
        f"verification, {result.pairs}: {result.same:,} same and {result.different:,} different",
        f"  AUC {result.auc:.4f}, EER {100 * result.eer:.2f} %, average precision"
        f" {result.average_precision:.4f}",
    ]
    for name, rate in FALSE_ACCEPT_RATES.items():
        share = result.true_accepts[name]
        found = (
            f"not resolved: {result.different:,} different pairs, at least {1 / rate:,.0f} needed"
            if share is None
            else f"{100 * share:.2f} %"
        )
        lines.append(f"  true accepts at false accepts {100 * rate:g} %: {found}")
    if not result.at:
        return [*lines, "  no threshold and no similarity: nothing was trained"]
    lines.append(f"  thresholds {result.card_source}:")
    lines += [
        f"    {name:<10} {d.threshold:.4g}: accuracy {100 * d.accuracy:.2f} %, false non-matches"
        f" {100 * d.false_non_matches:.2f} %, false matches {100 * d.false_matches:.2f} %"
        for name, d in result.at.items()
    ]
    assert result.reliability is not None
    lines.append(
        f"  calibration error (ECE, {len(result.reliability.pairs)} bins, both kinds weighing the"
        f" same) {result.reliability.error:.4f}"
    )
    for a, b, taken, n in result.confused[:5]:
        lines.append(f"  confused: {printable(a)} with {printable(b)}, {taken} of {n} pairs")
    return lines


def verification_values(result: Verification, points: int = 500) -> dict[str, Any]:
    """Plain values; curves thinned to about `points`, their ends kept."""
    table, histogram = result.reliability, result.histogram
    return {
        "pairs": result.pairs,
        "same": result.same,
        "different": result.different,
        "auc": result.auc,
        "eer": result.eer,
        "average_precision": result.average_precision,
        "true_accepts": result.true_accepts,
        "thresholds": {name: d._asdict() for name, d in result.at.items()},
        "threshold_source": result.card_source,
        "calibration_error": None if table is None else table.error,
        "reliability": None if table is None else [_plain(c) for c in table[:3]],
        "histogram": None if histogram is None else histogram.tolist(),
        "roc": _thinned(result.roc, points),
        "det": _thinned(result.det, points),
        "precision_recall": _thinned(result.precision_recall, points),
        "confused": [list(row) for row in result.confused],
        "false_accepts": [e._asdict() for e in result.false_accepts],
        "false_rejects": [e._asdict() for e in result.false_rejects],
    }


def _plain(column: np.ndarray) -> list[float | None]:
    """JSON has no NaN."""
    return [None if np.isnan(x) else x for x in column.tolist()]


def _thinned(curve: np.ndarray, points: int) -> list[list[float]]:
    kept = np.unique(np.linspace(0, curve.shape[1] - 1, points).astype(int))
    return curve[:, kept].tolist()
