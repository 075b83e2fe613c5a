"""What every source needs once its images are decoded: holding out, and saying what there is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from siamjax.config import ConfigDict
from siamjax.config_faults import lookup
from siamjax.types import LabelledImages


class DataNotFound(ValueError):  # noqa: N818 - read as a sentence where it is caught
    """The data are not on this machine and could not be had; `config.data.fallback` may help."""


def data_root(config: ConfigDict) -> Path:
    """Where the files are: `config.data.dir`, else `$SIAMJAX_DATA`, else `./data`."""
    return Path(lookup(config, "data.dir") or os.environ.get("SIAMJAX_DATA") or "data").expanduser()


def refuse_drawer_split(config: ConfigDict) -> None:
    """For sources that do not know who drew an image.

    Raises:
        ValueError: if `config.data.split` is "drawer".
    """
    if lookup(config, "data.split") == "drawer":
        raise ValueError(
            'config.data.split = "drawer" needs to know who drew each image, which the source'
            f' "{lookup(config, "data.source")}" does not say; use split = "class"'
        )


def part(images: LabelledImages, keep: np.ndarray) -> LabelledImages:
    """`images.select(keep)`, but a contiguous stretch stays a view of the memory map."""
    keep = np.asarray(keep)
    keep = np.flatnonzero(keep) if keep.dtype == bool else keep
    if len(keep) == 0 or not np.array_equal(keep, np.arange(keep[0], keep[0] + len(keep))):
        return images.select(keep)
    # `select` renumbers the labels; on a stand-in of no size it copies no pixels.
    stand_in = replace(images, images=np.empty((len(images), 0, 0, 1), np.uint8))
    view = images.images[keep[0] : keep[0] + len(keep)]
    return replace(stand_in.select(keep), images=view)


def joined(first: LabelledImages, second: LabelledImages) -> LabelledImages:
    """All images of two sets, which share no class; copied into memory.

    Classes, groups and paths of the second follow those of the first.
    """
    paths = (*first.paths, *second.paths)
    return LabelledImages(
        images=np.concatenate([first.images, second.images]),
        labels=np.concatenate([first.labels, second.labels + np.int32(len(first.class_names))]),
        groups=np.concatenate([first.groups, second.groups + np.int32(len(first.group_names))]),
        drawers=np.concatenate([first.drawers, second.drawers]),
        class_names=(*first.class_names, *second.class_names),
        group_names=(*first.group_names, *second.group_names),
        paths=paths if len(paths) == len(first) + len(second) else (),
    )


def hold_out(
    images: LabelledImages, share: float, seed: int, *, by_image: bool = False
) -> tuple[LabelledImages, LabelledImages, str]:
    """Divides images into training and validation, by the coarsest unit there is enough of.

    Whole groups where there are at least three of them, else whole classes where two can be left
    on each side, else images. Classes of one image stay in training: in validation they could
    never be recognised.

    Args:
        images: all of them.
        share: of the groups, classes or images of each class to hold out, 0..1; at least one
            unit is held out.
        seed: chooses the units.
        by_image: hold out images of every class even where classes could be.

    Returns:
        Training images, validation images, and a sentence that names what was held out.

    Raises:
        ValueError: if fewer than two classes, or nothing, could be held out.
    """
    _check_classes(images)
    rng = np.random.default_rng([seed, 0x5917])
    chosen = None if by_image else _choose_groups(images, share, rng)
    unit, names, labels = "groups", images.group_names, images.groups
    if chosen is None and not by_image:
        chosen = _choose_classes(images, share, rng)
        unit, names, labels = "classes", images.class_names, images.labels
    if chosen is None:
        return _hold_out_images(images, share, rng)
    held = np.isin(labels, chosen)
    note = (
        f"held out for validation by seed {seed}: {len(chosen)} of {len(names)} {unit}"
        f" ({name_some([names[i] for i in np.sort(chosen)], 12)})"
    )
    return part(images, ~held), part(images, held), note


def _check_classes(images: LabelledImages) -> None:
    if len(images.class_names) < 2:
        raise ValueError(
            f"{len(images.class_names)} class(es) found ({name_some(images.class_names)}), but a"
            " Siamese network learns from at least two: pairs that differ need another class"
        )


def _choose_groups(
    images: LabelledImages, share: float, rng: np.random.Generator
) -> np.ndarray | None:
    count = len(images.group_names)
    if count < 3:
        return None
    order = rng.permutation(count)
    for k in range(int(np.clip(round(share * count), 1, count - 1)), count):
        held = np.isin(images.groups, order[:k])
        inside, outside = np.unique(images.labels[held]), np.unique(images.labels[~held])
        if len(outside) < 2:
            return None
        if len(inside) >= 2:
            return order[:k]
    return None


def _choose_classes(
    images: LabelledImages, share: float, rng: np.random.Generator
) -> np.ndarray | None:
    count = len(images.class_names)
    if count < 4:
        return None
    order = rng.permutation(count)
    several = np.bincount(images.labels, minlength=count)[order] > 1
    order = order[np.argsort(~several, kind="stable")]
    wanted = int(np.clip(round(share * count), 2, count - 2))
    return order[: min(wanted, max(2, int(several.sum())))]


def _hold_out_images(
    images: LabelledImages, share: float, rng: np.random.Generator
) -> tuple[LabelledImages, LabelledImages, str]:
    held = np.zeros(len(images), bool)
    for label in range(len(images.class_names)):
        members = rng.permutation(np.flatnonzero(images.labels == label))
        n = len(members)
        # Two on each side where possible: a pair of the same class needs two images.
        least = 2 if n >= 4 else 1
        k = int(np.clip(round(share * n), least, n - least)) if n > 1 else 0
        held[members[:k]] = True
    if not held.any():
        raise ValueError(
            f"nothing can be held out: {len(images.class_names)} classes of one image each;"
            " add images, or put validation images into folders train/ and validation/"
        )
    note = (
        f"held out for validation: {held.sum():,} of {len(held):,} images, so classes: seen (the"
        " validation classes are training classes too; figures for new classes will be lower)"
    )
    return part(images, ~held), part(images, held), note


def split_seed(config: ConfigDict) -> int:
    """The seed that chooses what is held out: `data.split_seed`, or the run's own."""
    seed = lookup(config, "data.split_seed")
    return lookup(config, "seed") if seed is None else seed


def divide(
    images: LabelledImages, split: np.ndarray, config: ConfigDict
) -> tuple[LabelledImages, LabelledImages, LabelledImages | None, list[str]]:
    """Training, validation and test images of a source that divides them itself, or only partly.

    Where it has no validation images they are held out of the training images: by image if it
    has a test split of the training classes (validation is then what the test is), else as
    `hold_out` does. With a share of 0 the test images become the validation images.

    Args:
        images: all of them.
        split: `[n]`, "train", "validation" or "test", or "" where nothing is said.
        config: reads `data.holdout` (the share) and `split_seed`, as `hold_out` takes them.

    Returns:
        Training, validation and test images (None if there are none), and notes.

    Raises:
        ValueError: if nothing is or can be held out.
    """
    share, seed = lookup(config, "data.holdout"), split_seed(config)
    given = {name: part(images, split == name) for name in np.unique(split)}
    train = given.get("train", given.get(""))
    validation, test = given.get("validation"), given.get("test")
    if train is None:
        raise ValueError(f"no training images: the splits are {', '.join(given)}")
    _check_classes(train)
    notes: list[str | None] = []
    if validation is None and test is not None and share == 0:
        validation, test = test, None
        notes.append(
            "config.data.holdout = 0: the test images are the validation images, so the figures"
            " on them also choose the checkpoint and the threshold"
        )
        notes.append(seen_note(train, validation, "validation"))
    elif validation is None:
        if share == 0:
            raise ValueError("config.data.holdout = 0, but the data have no split of their own")
        alike = test is not None and set(test.class_names) <= set(train.class_names)
        train, validation, note = hold_out(train, share, seed, by_image=alike)
        notes.append(note)
    else:
        notes.append(seen_note(train, validation, "validation"))
    if test is not None:
        notes.append(seen_note(train, test, "test"))
    return train, validation, test, [note for note in notes if note]


def seen_note(train: LabelledImages, other: LabelledImages, name: str) -> str | None:
    """A sentence if classes of `other` (the `name` images) are training classes too."""
    seen = set(train.class_names) & set(other.class_names)
    if not seen:
        return None
    if len(seen) == len(other.class_names):
        return f"classes: seen (every {name} class is a training class too)"
    return (
        f"classes: {len(seen)} of {len(other.class_names)} {name} classes seen"
        f" ({name_some(sorted(seen))} are training classes too)"
    )


def singles_note(images: LabelledImages) -> str | None:
    """A sentence that names the classes of one image."""
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    singles = [images.class_names[i] for i in np.flatnonzero(counts == 1)]
    if not singles:
        return None
    return (
        f"{len(singles):,} of {len(counts):,} classes have one image ({name_some(singles)}): they"
        " give pairs that differ, but none that agree"
    )


def summarise(
    parts: Sequence[LabelledImages], pixels: str, group: str = "groups", *, groups: bool = True
) -> str:
    """One line of what was found, such as "30 alphabets, 964 classes, 19,280 images, 105×105"."""
    classes = {name for images in parts for name in images.class_names}
    group_names = {name for images in parts for name in images.group_names}
    counts = [f"{len(group_names):,} {group}"] if groups else []
    counts += [f"{len(classes):,} classes", f"{sum(map(len, parts)):,} images"]
    return ", ".join([*counts, pixels] if pixels else counts)


def name_some(names: Sequence[str], most: int = 5) -> str:
    """The first few of many names, printable whatever bytes a file name holds.

    Example:
        >>> name_some(["a", "b", "c"], most=2)
        'a, b, ... 1 more'
    """
    shown = ", ".join(map(printable, names[:most]))
    return shown if len(names) <= most else f"{shown}, ... {len(names) - most:,} more"


def printable(text: str) -> str:
    r"""A file name as a terminal may show it: what is no character to be seen is spelt out.

    Newlines and control codes would write lines of their own, and some bytes are no character.

    Example:
        >>> print(printable("a\nb é"))
        a\nb é
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
