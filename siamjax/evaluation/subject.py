"""What is evaluated: the images of a split of a run's own data, or other data of the same kind."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from siamjax.config import ConfigDict
from siamjax.config_faults import lookup
from siamjax.data import load
from siamjax.data.cache import Collected, Decoded, Write, cache_directory, cache_key, cached
from siamjax.data.decode import decode_files
from siamjax.data.files import FileSet, open_files
from siamjax.data.folder import read_layout
from siamjax.data.omniglot import find, read_paths
from siamjax.data.splits import part
from siamjax.preprocess import preprocess_of
from siamjax.types import DataSplits, LabelledImages, PairTable

ALL = "all"
SPLITS = ("train", "validation", "test", ALL)
WITHOUT_CLASSES = ("pair_table",)


@dataclass(frozen=True)
class Subject:
    """Images to be evaluated, and what must be said beside every figure on them.

    Attributes:
        images: with their classes.
        pairs: stated pairs, of data that have no classes; else None.
        name: of the data really used.
        split: which of them.
        seen: whether their classes were seen in training.
        notes: sentences the user must see.
    """

    images: LabelledImages
    pairs: PairTable | None
    name: str
    split: str
    seen: str
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """One line."""
        if self.pairs is not None:
            what = f"{len(self.pairs.same):,} pairs of {len(self.images):,} images"
        else:
            what = f"{len(self.images.class_names):,} classes, {len(self.images):,} images"
        return f"{self.name}, {self.split}: {what}; {self.seen}"


def own_subject(splits: DataSplits, split: str | None = None, *, trained: bool = True) -> Subject:
    """A split of a run's own data.

    Args:
        splits: what `siamjax.data.load` gives for the config of the run, or of a baseline.
        split: one of `SPLITS`; None: the test images where there are any, else the validation
            images; of Omniglot the validation alphabets, so that the test ones stay untouched
            until they are asked for.
        trained: whether anything was trained (not for a baseline).

    Raises:
        ValueError: if the data have no such split.
    """
    if split is None:
        split = "validation" if splits.test is None or splits.name == "omniglot" else "test"
    images, pairs = _chosen(splits, split)
    if not trained:
        seen = "nothing was trained"
    elif split in ("train", ALL):
        seen = "classes: seen (training images are among them)"
    elif pairs is not None:
        seen = "pairs, not classes"
    else:
        seen = seen_in_training(images.class_names, splits.train.class_names)
    if trained and split == "validation":
        seen += "; they also chose the checkpoint and the thresholds"
    return Subject(images, pairs, splits.name, f"split {split}", seen, splits.notes)


def other_subject(
    config: ConfigDict,
    place: Path,
    split: str | None = None,
    *,
    training_classes: Collection[str] | None = None,
    trained: bool = True,
) -> Subject:
    """Data that a run was not made with, through the run's preprocessing.

    Class folders (a directory or a zip) and Omniglot's layout are told apart by their names; for
    a run on pairs, or where `place` is a CSV, it is a table of pairs; a data directory as the
    run's own source reads it is read by that. All images are used, or those of the test split
    where the data have one.

    Args:
        config: of the run.
        place: where the data are.
        split: one of `SPLITS`, of data that divide their images.
        training_classes: names of the classes of the run; None: not known.
        trained: whether anything was trained.

    Raises:
        ValueError: if nothing there can be read, or it has no such split.
    """
    config, source = config.copy_and_resolve_references(), lookup(config, "data.source")
    with config.unlocked():
        config.data.dir, config.data.fallback = str(place), None
        if place.suffix.lower() == ".csv":
            source = config.data.source = "pair_table"
    if not place.exists():
        raise ValueError(f"there is no {place.absolute()} (--data)")
    found = None if source in WITHOUT_CLASSES else _labelled(config, place)
    if found is None:
        splits = load(config)
        merged = source in WITHOUT_CLASSES and "test" not in splits.pairs
        split = split or (ALL if merged else None)
        default = "validation" if splits.test is None or splits.name == "omniglot" else "test"
        (images, pairs), name = _chosen(splits, split or default), splits.name
        split, notes = split or default, splits.notes
    else:
        images, split = _part(place, found, split)
        pairs, name, notes = None, place.name, found.notes
    if not trained:
        seen = "nothing was trained"
    elif training_classes is None or pairs is not None:
        seen = "not the run's own data: not known whether training saw these classes"
    else:
        seen = seen_in_training(images.class_names, training_classes)
    return Subject(images, pairs, name, f"split {split}", seen, notes)


def seen_in_training(names: Collection[str], training: Collection[str]) -> str:
    """Were classes of these names seen in training?

    Example:
        >>> seen_in_training(["cat", "dog"], ["dog", "bird"])
        'classes: 1 of 2 seen in training'
        >>> seen_in_training(["cat"], ["dog"])
        'classes: not seen in training'
    """
    seen = len(set(names) & set(training))
    if not seen:
        return "classes: not seen in training"
    return f"classes: {'all' if seen == len(names) else seen} of {len(names):,} seen in training"


def _chosen(splits: DataSplits, split: str) -> tuple[LabelledImages, PairTable | None]:
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    there = {name: images for name, images in parts.items() if images is not None}
    if split == ALL:
        return _merged(list(there.values()), [splits.pairs.get(name) for name in there])
    if split not in there:
        raise ValueError(
            f"{splits.name} has no {split} images; it has {', '.join(there)} (--split)"
        )
    return there[split], splits.pairs.get(split)


def _merged(
    parts: list[LabelledImages], pairs: list[PairTable | None]
) -> tuple[LabelledImages, PairTable | None]:
    """Several splits as one; an image that pairs of two of them show is there once."""
    classes = {
        name: i for i, name in enumerate(dict.fromkeys(n for p in parts for n in p.class_names))
    }
    groups = {
        name: i for i, name in enumerate(dict.fromkeys(n for p in parts for n in p.group_names))
    }
    place: dict[object, int] = {}
    rows: list[tuple[int, int]] = []
    moved: list[np.ndarray] = []
    for number, images in enumerate(parts):
        # Only a table of pairs has one file in several splits.
        by_path = images.paths if pairs[number] is not None else ()
        keys = by_path or [(number, i) for i in range(len(images))]
        here = np.empty(len(images), np.int32)
        for i, key in enumerate(keys):
            if key not in place:
                place[key] = len(rows)
                rows.append((number, i))
            here[i] = place[key]
        moved.append(here)

    def column(name: str) -> np.ndarray:
        return np.stack([getattr(parts[number], name)[i] for number, i in rows])

    def renumbered(numbers: str, names: str, order: dict[str, int]) -> np.ndarray:
        own = (getattr(parts[n], names)[getattr(parts[n], numbers)[i]] for n, i in rows)
        return np.array([order[name] for name in own], np.int32)

    images = LabelledImages(
        images=column("images"),
        labels=renumbered("labels", "class_names", classes),
        groups=renumbered("groups", "group_names", groups),
        drawers=column("drawers"),
        class_names=tuple(classes),
        group_names=tuple(groups),
        paths=tuple(parts[n].paths[i] for n, i in rows) if all(p.paths for p in parts) else (),
    )
    tables = [
        PairTable(here[table.left], here[table.right], table.same)
        for here, table in zip(moved, pairs, strict=True)
        if table is not None
    ]
    if not tables:
        return images, None
    return images, PairTable(*(np.concatenate(column) for column in zip(*tables, strict=True)))


def _labelled(config: ConfigDict, place: Path) -> Decoded | None:
    """All images under `place`, Omniglot's or class folders; None if the source must read it."""
    sets = find(place) if place.is_dir() else {}
    if "images_background" in sets and lookup(config, "data.source") == "omniglot":
        return None
    if sets and "images_background" not in sets:
        place = next(iter(sets.values()))
    files = open_files(place)
    if not files.listing().images:
        return None  # MNIST's four files, say
    preprocess = preprocess_of(config)
    drawn = bool(read_paths(files.listing().images)[0])
    kind = "omniglot" if drawn else "folder"
    key = cache_key(kind, files.fingerprint(), preprocess)

    def collect(write: Write) -> Collected:
        return _collect(place, files, config, drawn, write)

    return cached(cache_directory(config), place.stem if drawn else kind, key, preprocess, collect)


def _collect(
    place: Path, files: FileSet, config: ConfigDict, drawn: bool, write: Write
) -> Collected:
    listing = files.listing()
    if drawn:
        entries, strange = read_paths(listing.images)
        notes = [f"{len(strange):,} images not named as Omniglot's, not used"] if strange else []
    else:
        entries, notes = read_layout(place, listing.images)
    with files.reading() as read:
        collected = decode_files(read, entries, preprocess_of(config), write)
    return collected._replace(notes=[*listing.notes, *notes, *collected.notes])


def _part(place: Path, found: Decoded, split: str | None) -> tuple[LabelledImages, str]:
    """The split of class folders that divide their images, or all."""
    there = [name for name in SPLITS if (found.split == name).any()]
    split = split or ("test" if "test" in there else ALL)
    if split == ALL:
        return found.images, ALL
    if split not in there:
        raise ValueError(
            f"{place} has no {split} images; it has {', '.join(there) or 'no splits: use all'}"
            " (--split)"
        )
    return part(found.images, found.split == split), split
