"""The classes that even a trained net can't tell apart: wrong labels, or one thing of two names."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from siamjax import metrics
from siamjax.data.cache import Entry
from siamjax.data.decode import open_image, quiet_threads
from siamjax.data.files import Read
from siamjax.data.place import find_place
from siamjax.evaluation.decision import DEFAULT
from siamjax.evaluation.encoder import scores
from siamjax.inference import Comparator

EACH = 10  # images of a class that are compared
MOST = 2000  # classes
NEAREST = 5  # classes that each is compared with
MOST_PAIRS = 4000  # of classes
BATCH = 256


class ClassPair(NamedTuple):
    """Two classes and how well a run tells them apart.

    Attributes:
        left, right: their names.
        auc: of pairs within either against pairs across: 0.5 is a guess, 1 never wrong.
        confused: share of the pairs across that the run takes for the same.
        across: how many pairs across there are.
    """

    left: str
    right: str
    auc: float
    confused: float
    across: int


class HardClasses(NamedTuple):
    """The pairs of classes that were compared, the hardest first, and a line on which those are."""

    pairs: list[ClassPair]
    compared: str


def find_hard_classes(comparator: Comparator, place: Path, seed: int = 0) -> HardClasses:
    """Compares each class of a place with those whose mean embeddings are nearest.

    Args:
        comparator: of a run.
        place: of class folders, a zip of them, or Omniglot.
        seed: chooses the images, ten of a class at most.

    Raises:
        ValueError: if the place has no two classes of two images, or states pairs only.
    """
    found = find_place(place)
    if found.rows is not None:
        raise ValueError(f"{place} states pairs, not classes: no two classes can be compared")
    rng = np.random.default_rng([seed, 0x4A2D])
    members: dict[str, list[Entry]] = defaultdict(list)
    for entry in found.entries:
        members[entry.class_name].append(entry)
    names = sorted(members)
    chosen = sorted(rng.permutation(len(names))[:MOST])
    few = {names[i]: rng.permutation(len(members[names[i]]))[:EACH] for i in chosen}
    picked = [members[name][i] for name, places in few.items() for i in sorted(places)]
    with found.reading() as read:
        z, kept = _embedded(comparator, read, picked)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, entry in enumerate(kept):
        rows[entry.class_name].append(row)
    classes = [name for name in few if len(rows[name]) > 1]
    if len(classes) < 2:
        raise ValueError(
            f"{place} has {len(classes)} class(es) with two readable images; two are needed to see"
            " how well they are told apart"
        )
    means = np.stack([z[rows[name]].mean(0) for name in classes])
    compared = [
        _compare(comparator, z, (classes[a], rows[classes[a]]), (classes[b], rows[classes[b]]))
        for a, b in _nearest(means)
    ]
    told = f"{len(compared):,} pairs of {len(classes):,} classes, up to {EACH} images of each"
    return HardClasses(sorted(compared, key=lambda pair: (pair.auc, -pair.confused)), told)


def _embedded(
    comparator: Comparator, read: Read, entries: list[Entry]
) -> tuple[np.ndarray, list[Entry]]:
    """Embeddings of those that can be read, and which those are."""

    def pixels(entry: Entry) -> np.ndarray | None:
        try:
            with open_image(read(entry.path)) as image:
                return comparator.preprocess(image)
        except Exception:  # the inspection has named it
            return None

    parts, kept = [], []
    with quiet_threads() as pool:
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            both = zip(batch, pool.map(pixels, batch), strict=True)
            good = [(entry, array) for entry, array in both if array is not None]
            if good:
                kept += [entry for entry, _ in good]
                parts.append(comparator.encoder.embed(np.stack([array for _, array in good])))
    return (np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)), kept


def _nearest(means: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows, each with those nearest to it, the nearest pairs first."""
    square = (means**2).sum(1)
    apart = square[:, None] + square - 2 * means @ means.T
    np.fill_diagonal(apart, np.inf)
    near = np.argsort(apart, axis=1)[:, : min(NEAREST, len(means) - 1)]
    pairs = {(min(a, b), max(a, b)) for a in range(len(means)) for b in near[a].tolist()}
    return sorted(pairs, key=lambda pair: apart[pair])[:MOST_PAIRS]


def _compare(
    comparator: Comparator,
    z: np.ndarray,
    left: tuple[str, list[int]],
    right: tuple[str, list[int]],
) -> ClassPair:
    within = [*combinations(left[1], 2), *combinations(right[1], 2)]
    across = list(product(left[1], right[1]))
    a, b = np.array(within + across).T
    output = comparator.encoder.compare(z[a], z[b])
    same = np.arange(len(a)) < len(within)
    taken = comparator.encoder.similarity(output)[~same] >= comparator.card.threshold(DEFAULT)
    auc = metrics.roc_auc(scores(output), same)  # a calibration may call all pairs alike
    return ClassPair(left[0], right[0], auc, float(taken.mean()), len(across))
