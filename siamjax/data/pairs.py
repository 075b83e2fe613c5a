"""Which images belong to which class and group, as flat arrays that a compiled step can index."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from siamjax.types import LabelledImages

I32: TypeAlias = Any  # an int32 array: of NumPy here, of JAX inside the step


class ClassTable(NamedTuple):
    """Members of each class, and classes of each group, one after the other.

    Flat, so that one class of 10,000 images beside 9,999 classes of one costs nothing.

    Attributes:
        images: `int32 [n]`, image indices sorted by class.
        start, count: `int32 [classes]`: class c holds `images[start[c] : start[c] + count[c]]`.
        group: `int32 [classes]`, each class's group.
        classes: `int32 [classes]`, class indices sorted by group.
        group_start, group_count: `int32 [groups]`, as above.
        rank: `int32 [classes]`, each class's place within its group.
        plural: `int32 [...]`, the classes that can give positives: those with at least two images,
            or all, where an image may meet another warp of itself.
        contested: `int32 [...]`, the classes whose group has at least two.
    """

    images: I32
    start: I32
    count: I32
    group: I32
    classes: I32
    group_start: I32
    group_count: I32
    rank: I32
    plural: I32
    contested: I32


def class_table(data: LabelledImages, *, singletons: bool = False) -> ClassTable:
    """The table of a labelled set.

    Args:
        data: the images; their pixels are not looked at.
        singletons: classes of one image give positives too, that image with itself. Only where
            the two are warped, each in its own way, is that of any use.

    Raises:
        ValueError: if there are fewer than two classes, or no class has two images: then no
            negative, or no positive, pair exists.
    """
    count = np.bincount(data.labels, minlength=len(data.class_names))
    if len(count) < 2:
        raise ValueError(
            f"pairs of different classes need at least two classes; the data has {len(count)}"
        )
    if count.max() < 2 and not singletons:
        raise ValueError(
            f"pairs of one class need a class with at least two images; each of the {len(count)}"
            " classes has one: add images, give pairs as a table, or warp each image twice"
            " (config.pairs.augment_singletons and config.augment.name)"
        )
    start = np.cumsum(count) - count
    images = np.argsort(data.labels, kind="stable")
    group = data.groups[images[np.minimum(start, len(images) - 1)]]
    classes = np.argsort(group, kind="stable")
    group_count = np.bincount(group, minlength=len(data.group_names))
    group_start = np.cumsum(group_count) - group_count
    rank = np.empty(len(count), np.int64)
    rank[classes] = np.arange(len(count)) - group_start[group[classes]]
    arrays = (
        images, start, count, group, classes, group_start, group_count, rank,
        np.flatnonzero(count >= (1 if singletons else 2)), np.flatnonzero(group_count[group] >= 2),
    )  # fmt: skip
    return ClassTable(*(a.astype(np.int32) for a in arrays))
