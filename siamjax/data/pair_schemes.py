"""Pair tables drawn once, before training: which images are compared, as indices into a split.

The schemes that draw anew at each step are in `siamjax.training.schemes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from siamjax.data.splits import name_some
from siamjax.types import PairTable, typed


class _Classes(NamedTuple):
    """Members of the classes that occur, one after the other.

    Attributes:
        order: `[n]`, image indices sorted by class.
        start, count: `[classes]`: class c holds `order[start[c] : start[c] + count[c]]`.
        of: `[n]`, the class of each image.
        place: `[n]`, the place of each image within its class.
        names: `[classes]`, the label of each class.
    """

    order: np.ndarray
    start: np.ndarray
    count: np.ndarray
    of: np.ndarray
    place: np.ndarray
    names: np.ndarray


def _classes(labels: np.ndarray) -> _Classes:
    names, of = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"pairs of different classes need at least two classes; the labels hold {len(names)}"
        )
    count = np.bincount(of)
    if count.max() < 2:
        raise ValueError(
            "pairs of one class need a class with at least two images; each of the"
            f" {len(names):,} classes has one"
        )
    order = np.argsort(of, kind="stable")
    start = np.cumsum(count) - count
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - start[of[order]]
    return _Classes(order, start, count, of, place, names)


def _alternating(left: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> PairTable:
    """(left, positive) same, (left, negative) different, in turns."""
    return PairTable(
        left=np.repeat(left, 2).astype(np.int32),
        right=np.stack([positive, negative], 1).reshape(-1).astype(np.int32),
        same=np.arange(2 * len(left)) % 2 == 0,
    )


@typed
def all_once(labels: Int[np.ndarray, "n"], seed: int, *, allow_self: bool = False) -> PairTable:
    """For every image one random image of its class and one of any other class.

    The other image is any of those of other classes with equal chance, so a large class occurs
    more often. An image that is alone in its class gives its pair of different classes only
    (with `allow_self` also the one with itself).

    Args:
        labels: the class of each image.
        seed: of the draw.
        allow_self: let an image be its own positive, as the reference does.

    Returns:
        2n pairs, same and different in turns (one pair for an image alone in its class): for
        MNIST 120,000 of the training and 20,000 of the test images.

    Raises:
        ValueError: if there are fewer than two classes, or no class has two images.

    Example:
        >>> table = all_once(np.array([0, 0, 1, 1]), seed=0)
        >>> table.right[table.same].tolist()
        [1, 0, 3, 2]

    References:
        Rosebrock, "Building image pairs for siamese networks with Python" (PyImageSearch, 2020),
        `make_pairs`, which allows an image with itself.
    """
    c = _classes(labels)
    images = np.arange(len(labels))
    rng = np.random.default_rng([seed, 0xA110])
    positive, negative = _partners(c, images, rng, 0 if allow_self else 1)
    table = _alternating(images, positive, negative)
    impossible = (table.left == table.right) & table.same & (not allow_self)
    return PairTable(*(column[~impossible] for column in table))


def _partners(
    c: _Classes, images: np.ndarray, rng: np.random.Generator, skip: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each image one of its class (`skip` = 1: another, if there is), and one of others."""
    start, count = c.start[c.of[images]], c.count[c.of[images]]
    # Counted from the image's own place, the others of its class are 1 .. count - 1 steps on;
    # counted from the end of its class, all others are 0 .. n - count - 1 steps on.
    inside = skip + rng.integers(0, np.maximum(count - skip, 1))
    outside = rng.integers(0, len(c.of) - count)
    positive = c.order[start + (c.place[images] + inside) % count]
    return positive, c.order[(start + count + outside) % len(c.of)]


@typed
def consecutive(labels: Int[np.ndarray, "n"], seed: int, *, use_all: bool = True) -> PairTable:
    """Each image with the next of its class, and with one at its place in a random other class.

    Class by class, for i = 0 .. m - 2: (d_i, d_{i+1}) same, (d_i, e_i) different, where e is one
    of the other classes with equal chance.

    Args:
        labels: the class of each image.
        seed: of the choice of e.
        use_all: m is the size of class d itself, and where e is shorter, i starts again from its
            beginning. False, as the reference has it: m is the size of the smallest class, and
            what the larger ones have beyond it is not used (MNIST: 108,400 pairs of the training
            and 17,820 of the test images).

    Returns:
        The sum of 2 (m - 1) over the classes, same and different in turns.

    Raises:
        ValueError: if there are fewer than two classes, no class has two images, or, without
            `use_all`, any class has only one.

    Example:
        >>> table = consecutive(np.array([7, 7, 7, 9, 9]), seed=0, use_all=False)
        >>> table.left.tolist(), table.right.tolist()
        ([0, 0, 3, 3], [1, 3, 4, 0])

    References:
        Keras' example mnist_siamese.py, `create_pairs`.
    """
    c = _classes(labels)
    classes = len(c.count)
    if not use_all and c.count.min() < 2:
        single = [str(name) for name in c.names[c.count < 2]]
        raise ValueError(
            f"{len(single):,} classes have one image (labels {name_some(single)}), so each class"
            " would give 0 pairs: set config.pairs.use_all to True, or leave those classes out"
        )
    each = c.count - 1 if use_all else np.full(classes, c.count.min() - 1)
    d = np.repeat(np.arange(classes), each)
    i = np.arange(len(d)) - np.repeat(np.cumsum(each) - each, each)
    e = (d + np.random.default_rng([seed, 0xC045]).integers(1, classes, len(d))) % classes
    left, following = c.order[c.start[d] + i], c.order[c.start[d] + i + 1]
    return _alternating(left, following, c.order[c.start[e] + i % c.count[e]])


@typed
def distinct(labels: Int[np.ndarray, "n"], seed: int, pairs: int) -> PairTable:
    """Random pairs, half of them of one class, none of them twice (in either order).

    Args:
        labels: the class of each image.
        seed: of the draw.
        pairs: how many; of an odd number the odd one is of one class.

    Returns:
        The pairs, in random order.

    Raises:
        ValueError: if the images do not give so many, or as `all_once` does.
    """
    c = _classes(labels)
    n, agree = len(labels), int((c.count * (c.count - 1) // 2).sum())
    wanted = {True: (pairs + 1) // 2, False: pairs // 2}
    possible = {True: agree, False: n * (n - 1) // 2 - agree}
    for same, word in ((True, "one class"), (False, "different classes")):
        if wanted[same] > possible[same]:
            raise ValueError(
                f"{n:,} images of {len(c.count):,} classes give {possible[same]:,} different pairs"
                f" of {word}; {wanted[same]:,} are wanted: ask for fewer pairs, or give more images"
            )
    rng = np.random.default_rng([seed, 0xD157])
    found = {same: np.zeros(0, np.int64) for same in (True, False)}  # smaller index * n + larger
    while any(len(found[same]) < wanted[same] for same in found):
        images = rng.integers(0, n, max(pairs, 64))
        for same, others in zip((True, False), _partners(c, images, rng, 1), strict=True):
            drawn = np.minimum(images, others) * n + np.maximum(images, others)
            keys = np.concatenate([found[same], drawn[images != others]])
            _, first = np.unique(keys, return_index=True)
            found[same] = keys[np.sort(first)][: wanted[same]]
    keys = np.concatenate([found[True], found[False]])
    left, right, same = keys // n, keys % n, np.arange(pairs) < wanted[True]
    order = rng.permutation(pairs)
    return PairTable(left[order].astype(np.int32), right[order].astype(np.int32), same[order])


def check_table(table: PairTable, images: int, labels: np.ndarray | None = None) -> None:
    """Checks that a table can be trained on.

    Args:
        table: any table of pairs.
        images: how many there are.
        labels: of the images, where they are known; `same` must agree with them.

    Raises:
        ValueError: all faults at once, each with its count and the first rows.
    """
    left, right, same = (np.asarray(column) for column in table)
    if not left.shape == right.shape == same.shape == (len(left),):
        raise ValueError(
            "left, right and same must be arrays of one length; got the shapes"
            f" {left.shape}, {right.shape}, {same.shape}"
        )
    inside = (left >= 0) & (left < images) & (right >= 0) & (right < images)
    faults = [_rows(f"point outside the {images:,} images", ~inside)]
    faults.append(_rows("say that an image differs from itself", (left == right) & ~same))
    if labels is not None and inside.all():
        faults.append(_rows("contradict the labels", (labels[left] == labels[right]) != same))
    for value, word in ((True, "of one class"), (False, "of different classes")):
        if not (same == value).any():
            faults.append(f"no pair is {word}: without one nothing can be learned")
    if faults := [fault for fault in faults if fault]:
        raise ValueError("the pair table cannot be used:\n" + "\n".join(f"  - {f}" for f in faults))


def _rows(what: str, wrong: np.ndarray) -> str:
    rows = np.flatnonzero(wrong)
    return (
        f"{len(rows):,} rows {what}: rows {name_some(rows[:6].astype(str).tolist())}"
        if len(rows)
        else ""
    )


@typed
def epoch_order(
    pairs: int, batch: int, seed: int, epoch: int, shuffle: bool = True
) -> Int32[np.ndarray, "m"]:
    """The order in which an epoch takes the rows of a table, hung on `(seed, epoch)` alone.

    Args:
        pairs: rows of the table.
        batch: pairs of a step.
        seed: of the run.
        epoch: counted from 0.
        shuffle: False: the table's own order, each epoch.

    Returns:
        Each of `0 .. pairs - 1` once, then the first ones again until the last batch is full: they
        count with weight 0, but a batch norm should see ordinary pairs there.

    Example:
        >>> epoch_order(5, batch=4, seed=0, epoch=0, shuffle=False).tolist()
        [0, 1, 2, 3, 4, 0, 1, 2]
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    order = rng.permutation(pairs) if shuffle else np.arange(pairs)
    return np.resize(order, -(-pairs // batch) * batch).astype(np.int32)


@typed
def connected(
    n: int, left: Int[np.ndarray, "p"], right: Int[np.ndarray, "p"]
) -> Int[np.ndarray, "n"]:
    """Numbers `0 .. n - 1` joined by pairs, directly or through others: the parts of that graph.

    Returns:
        For each number the smallest of its part.

    Example:
        >>> connected(5, np.array([4, 1]), np.array([1, 2])).tolist()
        [0, 1, 1, 3, 1]
    """
    root = np.arange(n)
    while True:
        a, b = root[left], root[right]
        if np.array_equal(a, b):
            return root
        # Of two roots the larger comes to hang on the smaller; then all paths are cut short.
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(root, root[root]):
            root = root[root]


PAIR_TABLES: dict[str, Callable[..., PairTable]] = {
    "all-once": all_once,
    "consecutive": consecutive,
}
