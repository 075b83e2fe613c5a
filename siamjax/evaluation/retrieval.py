"""Which of many: leave-one-out retrieval, and identification that must also refuse strangers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from siamjax.data.splits import printable
from siamjax.metrics import one_shot_scores
from siamjax.types import LabelledImages

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]

AT = (1, 5, 10)
CHUNK = 4096  # comparisons at a time


@dataclass(frozen=True)
class Retrieval:
    """How well an image finds the others of its class among all images.

    Every figure is pessimistic where scores tie: of equal ones the wrong come first, so a network
    that answers the same to everything finds nothing.

    Attributes:
        queries: how many images were looked up, each among all others.
        images: how many there are.
        alone: images that have no other of their class, and were not looked up.
        recall: by k, the share of queries with one of their class among the first k.
        precision: by k, the share of their class among the first k.
        r_precision: the same with k = R, the number of others of the class.
        map_at_r: the mean average precision at R.
        tie_rate: share of queries whose best match ties with one of another class.
        confused: (class, another class, how many of its queries have that one's image first).
    """

    queries: int
    images: int
    alone: int
    recall: dict[int, float]
    precision: dict[int, float]
    r_precision: float
    map_at_r: float
    tie_rate: float
    confused: list[tuple[str, str, int]]

    def __str__(self) -> str:
        recall = ", ".join(f"recall@{k} {100 * x:.2f} %" for k, x in self.recall.items())
        precision = ", ".join(f"precision@{k} {100 * x:.2f} %" for k, x in self.precision.items())
        alone = f"; {self.alone:,} alone in their class not looked up" if self.alone else ""
        confused = "".join(
            f"\n  mistaken: {printable(a)}, nearest {printable(b)} in {n} queries"
            for a, b, n in self.confused[:5]
        )
        return (
            f"retrieval, leave-one-out, {self.queries:,} queries among {self.images:,} images"
            f"{alone} (ties count as wrong, in {100 * self.tie_rate:.1f} % of queries)\n"
            f"  MAP@R {100 * self.map_at_r:.2f} %, R-precision {100 * self.r_precision:.2f} %\n"
            f"  {recall}\n  {precision}{confused}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        by_k = {
            name: {str(k): x for k, x in getattr(self, name).items()}
            for name in ("recall", "precision")
        }
        return asdict(self) | by_k | {"confused": [list(row) for row in self.confused]}


def pessimistic_ranks(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """The places of the relevant items, from 1, behind every other item of an equal score.

    Args:
        scores: `[m]`, large = alike.
        relevant: `bool [m]`.

    Returns:
        `int [R]`, rising.

    Example:
        >>> pessimistic_ranks(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1, 1, 0, 1]) > 0).tolist()
        [1, 3, 4]
    """
    mine, others = -np.sort(-scores[relevant]), np.sort(scores[~relevant])
    before = len(others) - np.searchsorted(others, mine, side="left")
    return before + np.arange(1, len(mine) + 1)


def map_at_r(ranks: np.ndarray) -> float:
    """`1/R sum over the first R places of precision(i) * relevant(i)`.

    Args:
        ranks: of the R relevant items, from 1, rising.

    Example:
        >>> map_at_r(np.array([1, 3, 4]))  # of R = 3 places 1 and 3 count: (1/1 + 2/3) / 3
        0.5555555555555555

    References:
        Musgrave, Belongie, Lim, "A metric learning reality check" (2020), eq. 5 and 6.
    """
    inside = ranks[ranks <= len(ranks)]
    return float((np.arange(1, len(inside) + 1) / inside).sum() / len(ranks))


def retrieve(
    z: np.ndarray, images: LabelledImages, score: Score, *, queries: int = 0, seed: int = 0
) -> Retrieval:
    """Looks images up among all the others.

    Args:
        z: their embeddings `[n, d]`.
        images: gives classes and names.
        score: row by row, `[m, d]` and `[m, d]` to `[m]`, large = alike.
        queries: how many are looked up, drawn by `seed`; 0: all.
        seed: of the queries.

    Raises:
        ValueError: if no class has two images, or a score is NaN.
    """
    labels = images.labels
    size = np.bincount(labels, minlength=len(images.class_names))
    able = np.flatnonzero(size[labels] > 1)
    if not len(able):
        raise ValueError("retrieval needs a class with two images; each class has one")
    if 0 < queries < len(able):
        able = np.sort(np.random.default_rng(seed).choice(able, queries, replace=False))
    gains, ties, first = [], 0, []
    for query in able.tolist():
        found = one_to_many(z, query, score)
        others = np.arange(len(z)) != query
        relevant = labels[others] == labels[query]
        ranks = pessimistic_ranks(found[others], relevant)
        inside = [(ranks <= k).sum() for k in AT]
        r_precision = (ranks <= len(ranks)).mean()
        gains.append(
            [*(np.minimum(inside, 1)), *np.divide(inside, AT), r_precision, map_at_r(ranks)]
        )
        best, wrong = found[others][relevant].max(), found[others][~relevant].max(initial=-np.inf)
        ties += best == wrong
        if wrong >= best:
            nearest = np.flatnonzero(others & (labels != labels[query]) & (found == wrong))[0]
            first.append((int(labels[query]), int(labels[nearest])))
    mean = np.mean(gains, axis=0).tolist()
    n = len(AT)
    return Retrieval(
        queries=len(able),
        images=len(z),
        alone=int((size[labels] == 1).sum()),
        recall=dict(zip(AT, mean[:n], strict=True)),
        precision=dict(zip(AT, mean[n : 2 * n], strict=True)),
        r_precision=mean[2 * n],
        map_at_r=mean[2 * n + 1],
        tie_rate=float(ties / len(able)),
        confused=_most_frequent(first, images.class_names),
    )


def one_to_many(z: np.ndarray, query: int, score: Score) -> np.ndarray:
    """The scores of one image with all, in chunks: `[n]`."""
    parts = []
    for start in range(0, len(z), CHUNK):
        part = z[start : start + CHUNK]
        parts.append(np.asarray(score(np.broadcast_to(z[query], part.shape), part)))
    found = np.concatenate(parts)
    if np.isnan(found).any():
        raise ValueError("scores are NaN: the weights or the embeddings are no longer finite")
    return found


def _most_frequent(
    rows: list[tuple[int, int]], names: tuple[str, ...], most: int = 20
) -> list[tuple[str, str, int]]:
    if not rows:
        return []
    both, count = np.unique(rows, axis=0, return_counts=True)
    order = np.argsort(-count, kind="stable")[:most]
    return [(names[both[i, 0]], names[both[i, 1]], int(count[i])) for i in order]


# --------------------------------------------------------------------------------- open set


class Rates(NamedTuple):
    """Shares of queries at one threshold, in 0..1.

    Attributes:
        identified: known queries given to the right class, and accepted.
        mistaken: known queries given to a wrong class, and accepted.
        refused: known queries not accepted.
        intruders: unknown queries accepted (the false positive identification rate).
    """

    threshold: float
    identified: float
    mistaken: float
    refused: float
    intruders: float


@dataclass(frozen=True)
class OpenSet:
    """Identification among known classes, asked about unknown ones too.

    Attributes:
        way, shot: known classes in a gallery, and images of each.
        known, unknown: how many queries of each kind.
        at: by name of the threshold.
        source: where the thresholds come from.
    """

    way: int
    shot: int
    known: int
    unknown: int
    at: dict[str, Rates]
    source: str

    def __str__(self) -> str:
        head = (
            f"open-set, galleries of {self.way} classes by {self.shot} image(s), {self.known:,}"
            f" known and {self.unknown:,} unknown queries; thresholds {self.source}"
        )
        return "\n".join([head, *(_rate_line(name, r) for name, r in self.at.items())])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"at": {name: r._asdict() for name, r in self.at.items()}}


def _rate_line(name: str, r: Rates) -> str:
    return (
        f"    {name:<10} {r.threshold:.4g}: known identified {100 * r.identified:.1f} %, mistaken"
        f" {100 * r.mistaken:.1f} %, refused {100 * r.refused:.1f} %; unknown accepted"
        f" {100 * r.intruders:.1f} %"
    )


class Rounds(NamedTuple):
    """Galleries and their queries, as image indices.

    Attributes:
        gallery: `[rounds, way, shot]`.
        known: `[rounds, way]`, query i of class i of its gallery.
        unknown: `[rounds, way]`, queries of classes that are not in the gallery.
    """

    gallery: np.ndarray
    known: np.ndarray
    unknown: np.ndarray


def draw_rounds(images: LabelledImages, *, way: int, shot: int, trials: int, seed: int) -> Rounds:
    """Galleries of `way` classes, one query of each, and as many of other classes.

    Args:
        images: classes with `shot + 1` images can be known, any other class of the round unknown.
        way: known classes in a gallery.
        shot: images of each.
        trials: known queries at least; full galleries are drawn.
        seed: of the draw.

    Raises:
        ValueError: if there are too few classes.
    """
    members = [np.flatnonzero(images.labels == c) for c in range(len(images.class_names))]
    able = [c for c, m in enumerate(members) if len(m) > shot]
    if len(able) < way or len(members) <= way:
        raise ValueError(
            f"open-set needs {way} classes with {shot + 1} images or more, and one more class that"
            f" is unknown; there are {len(able)} of {len(members)}: lower --way or --shot"
        )
    rng = np.random.default_rng(seed)
    gallery, known, unknown = [], [], []
    for _ in range(-(-trials // way)):
        chosen = rng.choice(able, way, replace=False)
        picked = np.stack([rng.choice(members[c], shot + 1, replace=False) for c in chosen])
        strangers = rng.choice(np.setdiff1d(np.arange(len(members)), chosen), way)
        gallery.append(picked[:, :shot])
        known.append(picked[:, shot])
        unknown.append([rng.choice(members[c]) for c in strangers])
    return Rounds(np.array(gallery), np.array(known), np.array(unknown))


def open_set(
    compare: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    rounds: Rounds,
    thresholds: Mapping[str, float],
    source: str,
) -> OpenSet:
    """Gives each query to the most alike class of its gallery, if that is alike enough.

    A class's score and similarity are the means over its images; where m classes tie for the
    highest score, a query is given to the right one with 1/m.

    Args:
        compare: image indices `[m]` and `[m]` to scores (large = alike) and similarities `[m]`.
        rounds: what is asked.
        thresholds: on the similarity, by name.
        source: where they come from.
    """
    count, way, shot = rounds.gallery.shape
    queries = np.concatenate([rounds.known, rounds.unknown], 1)
    shape = (count, 2 * way, way, shot)
    left = np.broadcast_to(queries[:, :, None, None], shape)
    right = np.broadcast_to(rounds.gallery[:, None], shape)
    both = compare(left.ravel(), right.ravel())
    score, similarity = (np.asarray(a, np.float64).reshape(shape).mean(3) for a in both)
    top = score == score.max(2, keepdims=True)
    # Of classes that tie the similarity is the same, but for rounding.
    sure = np.where(top, similarity, -np.inf).max(2)
    answer = np.tile(np.arange(way), count)
    credit, _ = one_shot_scores(score[:, :way].reshape(-1, way), answer)
    at = {}
    for name, cut in thresholds.items():
        accepted = sure[:, :way].ravel() >= cut
        right_, all_ = float((credit * accepted).mean()), float(accepted.mean())
        at[name] = Rates(cut, right_, all_ - right_, 1 - all_, float((sure[:, way:] >= cut).mean()))
    return OpenSet(way, shot, count * way, count * way, at, source)
