"""The doctor for data: everything that is worth knowing of a folder before a run believes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from siamjax.config import ConfigDict
from siamjax.data.cache import SPLITS
from siamjax.data.duplicates import exact_groups, near_groups
from siamjax.data.examine import Examined, Progress, examine
from siamjax.data.pair_files import Rows
from siamjax.data.pair_table import divided, remarks
from siamjax.data.pairs import class_table
from siamjax.data.place import Place, find_place
from siamjax.data.splits import divide, name_some
from siamjax.types import LabelledImages

BINS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)  # lower ends of the histogram
SMALLEST = 5  # classes named
Splits = dict[int, set[str]]  # of each image; only of a table of pairs it may be in several
REFUSED = "no run can start: "


@dataclass(frozen=True)
class SplitCounts:
    """The classes of one split.

    Attributes:
        images, groups, classes: how many.
        smallest, median, largest: images of a class.
        histogram: (from, to, classes with so many images) for each bin that is not empty.
        few: the smallest classes with their sizes.
        singletons: classes of one image.
    """

    images: int
    groups: int
    classes: int
    smallest: int
    median: float
    largest: int
    histogram: list[tuple[int, int, int]]
    few: list[tuple[str, int]]
    singletons: list[str]


@dataclass(frozen=True)
class Twins:
    """Images that show the same picture, or nearly.

    Attributes:
        paths: of the images.
        classes: the classes they are filed under, each once.
        splits: the splits they are in, each once.
    """

    paths: list[str]
    classes: list[str]
    splits: list[str]


@dataclass(frozen=True)
class Inspection:
    """What is to be said of a place.

    Attributes:
        place, layout, source: what it is; `source` as in `config.data.source`.
        images: those that can be read.
        splits: counts by split, or under "all" where the place has none of its own.
        pairs: of a table of pairs, rows of each split and kind.
        held_out: what a run with the default settings would hold out for validation, or why none
            would start.
        unreadable: (path, reason).
        sizes: (height, width, images), the most frequent first.
        kinds, formats: and how many images are so.
        misnamed, moving, turned: paths; see `Examined`.
        exact, near: groups of images of one picture.
        near_whole: whether `near` is all there is.
        leaks: sentences on images and classes that are in training and elsewhere.
        notes: sentences about all else in the place.
        problems: what keeps a run from starting, or makes its figures wrong.
    """

    place: str
    layout: str
    source: str
    images: int
    splits: dict[str, SplitCounts]
    pairs: dict[str, int]
    held_out: str
    unreadable: list[tuple[str, str]]
    sizes: list[tuple[int, int, int]]
    kinds: dict[str, int]
    formats: dict[str, int]
    misnamed: list[str]
    moving: list[str]
    turned: list[str]
    exact: list[Twins]
    near: list[Twins]
    near_whole: bool
    leaks: list[str]
    notes: list[str]
    problems: list[str] = field(default_factory=list)

    @property
    def cannot_start(self) -> bool:
        """Whether a run would refuse this place."""
        return any(problem.startswith(REFUSED) for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def inspect(root: Path, config: ConfigDict, progress: Progress | None = None) -> Inspection:
    """Looks at a directory, a zip or a table of pairs, and trains nothing.

    Every file is opened once. Kept of each is about 300 bytes beside its path, so a million images
    need some 500 MB.

    Args:
        root: of class folders in two or three levels, of Omniglot, or of pairs.
        config: `data.holdout` and `seed` say what would be held out.
        progress: told (files done, files) now and then.

    Raises:
        DataNotFound: if there is nothing.
        ValueError: if it is none of the layouts known, with those drawn.
    """
    place = find_place(root)
    with place.reading() as read:
        examined = examine(read, [entry.path for entry in place.entries], progress)
    kept = np.flatnonzero(examined.readable).tolist()
    if place.rows is not None:
        return _of_pairs(place, place.rows, examined, config)
    splits, held_out, problems = _divided(place, kept, config)
    exact, near, whole = _twins(place, examined, splits)
    own = {entry.split for entry in place.entries} != {""}
    return Inspection(
        **_common(place, examined),
        splits=_counts(place, kept, [place.entries[i].split or "all" for i in kept]),
        pairs={},
        held_out=held_out,
        exact=exact,
        near=near,
        near_whole=whole,
        leaks=[*_shared_classes(place, kept, splits), *_leaks(exact, near, own)],
        problems=[*_unreadable(examined), *problems],
    )


def _common(place: Place, examined: Examined) -> dict[str, Any]:
    def paths(places: Sequence[int]) -> list[str]:
        return [place.entries[i].path for i in places]

    return {
        "place": str(place.root),
        "layout": place.layout,
        "source": place.source,
        "images": int(examined.readable.sum()),
        "unreadable": [(place.entries[i].path, why) for i, why in examined.faults.items()],
        "sizes": [(h, w, n) for (h, w), n in examined.sizes.most_common()],
        "kinds": dict(examined.kinds.most_common()),
        "formats": dict(examined.formats.most_common()),
        "misnamed": paths(examined.misnamed),
        "moving": paths(examined.moving),
        "turned": paths(examined.turned),
        "notes": list(place.notes),
    }


def _unreadable(examined: Examined) -> list[str]:
    if not examined.faults:
        return []
    return [
        f"{len(examined.faults):,} of {len(examined.readable):,} files cannot be read; training"
        " leaves them out"
    ]


# ----------------------------------------------------------------------------------------- classes


def _counts(place: Place, kept: list[int], splits: Sequence[str]) -> dict[str, SplitCounts]:
    order = ("all", *SPLITS)
    sizes: dict[str, Counter[str]] = {name: Counter() for name in order if name in splits}
    groups: dict[str, set[str]] = {name: set() for name in sizes}
    for i, split in zip(kept, splits, strict=True):
        sizes[split][place.entries[i].class_name] += 1
        groups[split].add(place.entries[i].group_name)
    return {name: _counted(sizes[name], groups[name]) for name in sizes}


def _counted(sizes: Counter[str], groups: set[str]) -> SplitCounts:
    n = np.array(list(sizes.values()))
    place = np.searchsorted(BINS, n, side="right") - 1
    ends = [*(low - 1 for low in BINS[1:]), int(n.max())]
    return SplitCounts(
        images=int(n.sum()),
        groups=len(groups),
        classes=len(sizes),
        smallest=int(n.min()),
        median=float(np.median(n)),
        largest=int(n.max()),
        histogram=[(BINS[b], ends[b], int((place == b).sum())) for b in np.unique(place)],
        few=sorted(sizes.items(), key=lambda item: (item[1], item[0]))[:SMALLEST],
        singletons=sorted(name for name, count in sizes.items() if count == 1),
    )


def _divided(place: Place, kept: list[int], config: ConfigDict) -> tuple[Splits, str, list[str]]:
    """The split of each image as a run would have it, what it would say of that, and problems."""
    entries = [place.entries[i] for i in kept]
    stated = np.array([entry.split for entry in entries], "<U10")
    if not entries:
        return {}, "", [f"{REFUSED}not one image can be read"]
    images = _stand_in([(e.class_name, e.group_name) for e in entries], kept)
    try:
        train, validation, test, notes = divide(images, stated, config)
    except ValueError as error:
        own = {i: {str(name)} for i, name in zip(kept, stated, strict=True)}
        return own, "", [f"{REFUSED}{error}"]
    problems = []
    for name, part in (("training", train), ("validation", validation)):
        try:
            class_table(part)
        except ValueError as error:
            problems.append(f"{REFUSED}of the {name} images, {error}")
    counts = np.bincount(validation.labels)
    ways = int((counts > 1).sum())
    if 1 < ways < config.eval.way:
        problems.append(
            f"one-shot trials need {config.eval.way} validation classes of two images or more, and"
            f" {ways} are there: set --config.eval.way={ways}"
        )
    splits = {
        int(path): {name}
        for name, part in zip(SPLITS, (train, validation, test), strict=True)
        if part is not None
        for path in part.paths
    }
    return splits, "; ".join(notes), problems


def _stand_in(names: Sequence[tuple[str, str]], kept: list[int]) -> LabelledImages:
    """Images of no size, their places for paths: enough to divide them."""
    classes = {name: i for i, name in enumerate(dict.fromkeys(c for c, _ in names))}
    groups = {name: i for i, name in enumerate(dict.fromkeys(g for _, g in names))}
    return LabelledImages(
        images=np.empty((len(names), 0, 0, 1), np.uint8),
        labels=np.array([classes[c] for c, _ in names], np.int32),
        groups=np.array([groups[g] for _, g in names], np.int32),
        drawers=np.full(len(names), -1, np.int32),
        class_names=tuple(classes),
        group_names=tuple(groups),
        paths=tuple(map(str, kept)),
    )


# -------------------------------------------------------------------------------------- duplicates


def _twins(
    place: Place, examined: Examined, splits: Splits
) -> tuple[list[Twins], list[Twins], bool]:
    """Groups of equal images, groups of nearly equal ones, and whether the latter are all."""
    kept = np.flatnonzero(examined.readable)
    same = exact_groups(examined.digests[kept])
    repeated = np.zeros(len(kept), bool)  # near ones are looked for among one of each only
    for group in same:
        repeated[group[1:]] = True
    single = np.flatnonzero(~repeated)
    alike, whole = near_groups(examined.hashes[kept[single]], examined.thumbs[kept[single]])

    def twins(group: np.ndarray) -> Twins:
        found = [place.entries[i] for i in group]
        named = set[str]().union(*(splits.get(int(i), set()) for i in group))
        return Twins(
            paths=[entry.path for entry in found],
            classes=list(dict.fromkeys(entry.class_name for entry in found)),
            splits=[name for name in SPLITS if name in named],
        )

    return (
        [twins(kept[group]) for group in same],
        [twins(kept[single[group]]) for group in alike],
        whole,
    )


def _shared_classes(place: Place, kept: list[int], splits: Splits) -> list[str]:
    named: dict[str, set[str]] = {name: set() for name in SPLITS}
    for i in kept:
        for split in splits.get(i, set()) - {""}:
            named[split].add(place.entries[i].class_name)
    told = []
    for name in SPLITS[1:]:
        if shared := sorted(named["train"] & named[name]):
            told.append(
                f"{len(shared):,} of {len(named[name]):,} {name} classes are training classes too"
                f" ({name_some(shared)}): figures say nothing about new classes"
            )
    return told


def _leaks(exact: Sequence[Twins], near: Sequence[Twins], own: bool) -> list[str]:
    how = "" if own else ", as the default settings would divide them"
    told = []
    for word, groups in (("the same", exact), ("nearly the same", near)):
        for name in SPLITS[1:]:
            crossing = [t for t in groups if "train" in t.splits and name in t.splits]
            if crossing:
                told.append(
                    f"LEAK: {len(crossing):,} pictures are {word} in training and {name}{how}, so"
                    f" figures on them are too high: {name_some(crossing[0].paths)}"
                )
    return told


# ------------------------------------------------------------------------------------------- pairs


def _of_pairs(place: Place, rows: Rows, examined: Examined, config: ConfigDict) -> Inspection:
    problems = [f"{REFUSED}{place.faults}"] if place.faults else []
    if examined.faults:
        problems.append(
            f"{REFUSED}{len(examined.faults):,} of {len(examined.readable):,} files cannot be read"
        )
    told, held_out, pairs, splits = [], "", {}, {}
    if not len(rows.same):
        problems.append(f"{REFUSED}the table holds no pair")
    elif examined.readable.all():
        _, pictures = np.unique(examined.digests, return_inverse=True)
        told = remarks(rows, pictures)
        try:
            split, notes = divided(place.root, rows, pictures, config)
            held_out = "; ".join(notes)
        except ValueError as error:
            split = np.maximum(rows.split, 0)
            problems.append(f"{REFUSED}{error}")
        pairs, splits = _pair_counts(rows, split), _pair_splits(rows, split)
    exact, near, whole = _twins(place, examined, splits)
    return Inspection(
        **_common(place, examined),
        splits={},
        pairs=pairs,
        held_out=held_out,
        exact=exact,
        near=near,
        near_whole=whole,
        leaks=[*told, *_leaks([], near, bool((rows.split >= 0).any()))],
        problems=problems,
    )


def _pair_counts(rows: Rows, split: np.ndarray) -> dict[str, int]:
    kinds = {"same": rows.same, "different": ~rows.same}
    counts = {
        f"{name}, {word}": int((kind & (split == number)).sum())
        for number, name in enumerate(SPLITS)
        for word, kind in kinds.items()
    }
    return {name: count for name, count in counts.items() if count}


def _pair_splits(rows: Rows, split: np.ndarray) -> Splits:
    splits: Splits = {}
    for left, right, number in zip(rows.left, rows.right, split, strict=True):
        for side in (left, right):
            splits.setdefault(int(side), set()).add(SPLITS[number])
    return splits
