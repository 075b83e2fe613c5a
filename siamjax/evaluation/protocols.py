"""The evaluations by their exact names: which trials or pairs each draws, and how it is scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from siamjax.data.episodes import koch_within, random_class, within_alphabet
from siamjax.evaluation import lake_runs, one_shot
from siamjax.evaluation.baselines import Baseline
from siamjax.evaluation.encoder import Encoder, scores
from siamjax.evaluation.lake_runs import LakeRuns
from siamjax.evaluation.one_shot import OneShotResult
from siamjax.evaluation.subject import Subject
from siamjax.metrics import wilson_interval
from siamjax.types import Episodes, LabelledImages, PairTable

DRAWN = ("within-alphabet", "random-class", "koch-within")
ONE_SHOT = (lake_runs.PROTOCOL, *DRAWN)
PROTOCOLS = (*ONE_SHOT, "verification", "retrieval", "open-set")
PAIR_CHUNK = 4096

Scorer = Encoder | Baseline


def check_names(names: list[str]) -> None:
    """Raises ValueError for a protocol that there is not."""
    for name in names:
        if name not in PROTOCOLS:
            near = get_close_matches(name, PROTOCOLS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"no protocol {name!r}; there are {', '.join(PROTOCOLS)}{hint}")


# --------------------------------------------------------------------------------- one-shot


def draw_episodes(
    images: LabelledImages, protocol: str, *, way: int, shot: int, trials: int, seed: int
) -> Episodes:
    """The trials of one of `DRAWN`.

    `koch-within` is 20-way 1-shot with 400 trials, whatever is asked for.

    Raises:
        ValueError: if the images do not give such trials.
    """
    if protocol == "koch-within":
        return koch_within(images, seed=seed)
    draw = {"within-alphabet": within_alphabet, "random-class": random_class}[protocol]
    drawn = draw(images, way=way, shot=shot, trials=trials, seed=seed)
    if drawn.protocol != protocol:
        raise ValueError(
            f"{protocol} needs classes in groups (alphabets), and the data have one level of"
            f" classes only: use {drawn.protocol}"
        )
    return drawn


@dataclass(frozen=True)
class LakeResult:
    """The official runs together, and the error of each.

    Attributes:
        total: over all 400 trials.
        errors: `[20]`, the share of each run's trials that was wrong.
    """

    total: OneShotResult
    errors: np.ndarray

    def __str__(self) -> str:
        mean, low, high = (100 * f(self.errors) for f in (np.mean, np.min, np.max))
        return (
            f"{self.total}\n  error per run: mean {mean:.2f} %, min {low:.1f} %, max {high:.1f} %"
            f" ({len(self.errors)} runs)"
        )


def score_lake(scorer: Scorer, runs: LakeRuns) -> LakeResult:
    """Lake's runs, each image embedded once."""
    z = scorer.embed(runs.images)
    count = len(runs.run_names)
    chunk = runs.of_run(0).support.size
    each = [one_shot.evaluate(z, scorer.score, runs.of_run(r), chunk=chunk) for r in range(count)]
    trials = sum(r.trials for r in each)
    right = sum(r.accuracy * r.trials for r in each)
    total = OneShotResult(
        protocol=lake_runs.PROTOCOL,
        way=each[0].way,
        shot=each[0].shot,
        trials=trials,
        accuracy=right / trials,
        interval=wilson_interval(min(right, trials), trials),
        tie_rate=sum(r.tie_rate * r.trials for r in each) / trials,
    )
    return LakeResult(total, np.array([1 - r.accuracy for r in each]))


# --------------------------------------------------------------------------------- pairs


def compare_pairs(
    scorer: Scorer, z: np.ndarray, left: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores and similarities of pairs of embeddings, in chunks; a baseline has no similarity."""
    found, alike = [], []
    for start in range(0, len(left), PAIR_CHUNK):
        rows = slice(start, start + PAIR_CHUNK)
        sides = z[left[rows]], z[right[rows]]
        if isinstance(scorer, Baseline):
            found.append(scorer.score(*sides))
        else:
            output = scorer.compare(*sides)
            found.append(scores(output))
            alike.append(scorer.similarity(output))
    return np.concatenate(found), np.concatenate(alike) if alike else None


def evaluation_pairs(
    subject: Subject, *, pairs: int, balanced: bool, seed: int
) -> tuple[PairTable, str]:
    """The pairs that a verification looks at, and what they are.

    Data that state pairs give those. Otherwise pairs of images are drawn, none twice: as many
    of one class as of two, or as chance has it.

    Args:
        subject: what is evaluated.
        pairs: how many are drawn; 0, or more than there are: all.
        balanced: half of each kind, rather than as they occur.
        seed: of the draw.

    Raises:
        ValueError: if there are no pairs of one kind.
    """
    if subject.pairs is not None:
        return subject.pairs, "the pairs that the data state"
    labels = subject.images.labels
    n = len(labels)
    total = n * (n - 1) // 2
    rng = np.random.default_rng(seed)
    if not balanced:
        if not 0 < pairs < total:
            left, right = np.triu_indices(n, 1)
            said = f"all {total:,} pairs"
        else:
            left, right = _unordered(rng, n, pairs, lambda a, b: a != b)
            said = f"{pairs:,} of {total:,} pairs by seed {seed}, as they occur"
        return _table(labels, left, right), said
    matches = _same_pairs(labels)
    different = total - len(matches)
    if not len(matches) or not different:
        kind = "of two classes" if len(matches) else "of one class"
        raise ValueError(f"verification needs pairs of both kinds; the data have none {kind}")
    # Never more than a quarter of the different pairs at random: drawing without repeats is quick.
    each = min(pairs // 2 if pairs else n * n, len(matches), different)
    if each < 1:
        raise ValueError(f"verification needs at least 2 pairs; got {pairs} (--num_pairs)")
    chosen = matches[np.sort(rng.choice(len(matches), each, replace=False))]
    left, right = _unordered(rng, n, each, lambda a, b: labels[a] != labels[b])
    left, right = np.concatenate([chosen[:, 0], left]), np.concatenate([chosen[:, 1], right])
    return _table(labels, left, right), f"{2 * each:,} pairs by seed {seed}, half of them same"


def _same_pairs(labels: np.ndarray) -> np.ndarray:
    """All unordered pairs of images of one class: `[p, 2]`."""
    found = [np.zeros((0, 2), int)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        i, j = np.triu_indices(len(members), 1)
        found.append(np.stack([members[i], members[j]], 1))
    return np.concatenate(found)


def _unordered(
    rng: np.random.Generator, n: int, count: int, accept: Callable[[Any, Any], Any]
) -> tuple[np.ndarray, np.ndarray]:
    """`count` distinct pairs i < j < n that `accept` takes; there must be so many."""
    if n * (n - 1) // 2 <= 4 * count:  # nearly all: draw from a list of them
        i, j = np.triu_indices(n, 1)
        able = np.flatnonzero(accept(i, j))
        rows = np.sort(rng.choice(able, count, replace=False))
        return i[rows], j[rows]
    kept = np.zeros(0, np.int64)
    while len(kept) < count:
        i, j = rng.integers(0, n, (2, 2 * count))
        code = np.minimum(i, j) * n + np.maximum(i, j)
        code = code[(i != j) & accept(i, j)]
        _, first = np.unique(np.concatenate([kept, code]), return_index=True)
        kept = np.concatenate([kept, code])[np.sort(first)]
    kept = kept[:count]
    return kept // n, kept % n


def _table(labels: np.ndarray, left: np.ndarray, right: np.ndarray) -> PairTable:
    return PairTable(left.astype(np.int32), right.astype(np.int32), labels[left] == labels[right])
