"""Your own images: a directory, or a zip, of class folders. Two levels or three, no flag needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from siamjax.config import ConfigDict
from siamjax.data.cache import (
    SPLITS,
    Collected,
    Decoded,
    Entry,
    Write,
    cache_directory,
    cache_key,
    cached,
)
from siamjax.data.decode import decode_files
from siamjax.data.files import SUFFIXES, FileSet, natural, open_files
from siamjax.data.splits import (
    DataNotFound,
    data_root,
    divide,
    name_some,
    printable,
    refuse_drawer_split,
    singles_note,
    summarise,
)
from siamjax.preprocess import Preprocess, preprocess_of
from siamjax.types import DataSplits

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
LAYOUTS = """\
  two levels:            three levels:              with splits of your own:
    DIR/                   DIR/                       DIR/
      cat/                   Greek/                     train/
        1.png                  alpha/                     (two or three levels)
        2.png                    1.png                  validation/
      dog/                       2.png                    (two or three levels)
        1.png                  beta/                    test/      (if you have one)
        ...                      ..."""


def folder(config: ConfigDict) -> DataSplits:
    """Reads class folders from `config.data.dir`, a directory or a zip.

    The layout is detected: `class/image` or `group/class/image`, within one wrapping folder or
    more, with or without `train`, `validation` (or `val`) and `test` on top. Without them
    `config.data.holdout` of the groups (where there are three or more), else of the classes, else
    of the images, is held out by `config.data.split_seed`. With `train` and `test` only,
    validation is held out of `train`; `config.data.holdout = 0` makes the test images the
    validation images.

    Args:
        config: reads `data.dir`, `data.holdout`, `data.cache_dir`, the preprocessing and the seed
            of the split.

    Returns:
        The splits, with notes that name every file left out and why.

    Raises:
        DataNotFound: if there is nothing at `config.data.dir` (None: `$SIAMJAX_DATA`, `./data`).
        ValueError: if the layout is none of those accepted (the text draws them and says what
            was found), or no image can be read.
    """
    refuse_drawer_split(config)
    place = _place(config)
    files = open_files(place)
    preprocess = preprocess_of(config)
    key = cache_key("folder", files.fingerprint(), preprocess)

    def collect(write: Write) -> Collected:
        return _collect(place, files, preprocess, write)

    found = cached(cache_directory(config), "folder", key, preprocess, collect)
    return _splits(config, place, found)


def _place(config: ConfigDict) -> Path:
    place = data_root(config)
    if not place.exists():
        raise DataNotFound(
            f"there is no {place.absolute()}. Set config.data.dir to the directory or zip that"
            f" holds one folder of images for each class:\n{LAYOUTS}"
        )
    return place


def _collect(place: Path, files: FileSet, preprocess: Preprocess, write: Write) -> Collected:
    listing = files.listing()
    entries, notes = read_layout(place, listing.images)
    with files.reading() as read:
        collected = decode_files(read, entries, preprocess, write)
    return collected._replace(notes=[*listing.notes, *notes, *collected.notes])


def read_layout(place: Path, paths: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """Classes, groups and splits from the paths of the images.

    Args:
        place: named in errors.
        paths: of all images, relative, with "/".

    Returns:
        An entry for each image used, ordered by split, then naturally by path; and notes.

    Raises:
        ValueError: if the images do not all lie two or all lie three levels deep.
    """
    if not paths:
        endings = " ".join(sorted(SUFFIXES))
        raise ValueError(f"no image in {place}; looked for files ending in {endings}\n{LAYOUTS}")
    parts = _unwrapped([path.split("/") for path in paths])
    tops = {part[0] for part in parts if len(part) > 1}
    if not all(top.lower() in SPLIT_FOLDERS for top in tops):
        # "train" may also be a class, beside "car" and "bus": then images lie right in it.
        tops = {part[0] for part in parts if len(part) > 2}
    named = {top: SPLIT_FOLDERS[top.lower()] for top in tops if top.lower() in SPLIT_FOLDERS}
    notes = []
    if not ("train" in named.values() and len(set(named.values())) > 1):
        located = [("", part, path) for part, path in zip(parts, paths, strict=True)]
    else:
        located = [
            (named[part[0]], part[1:], path)
            for part, path in zip(parts, paths, strict=True)
            if part[0] in named
        ]
        outside = [path for part, path in zip(parts, paths, strict=True) if part[0] not in named]
        if outside:
            notes.append(
                f"{len(outside):,} images outside {', '.join(sorted(named, key=natural))} not used:"
                f" {name_some(outside)}"
            )
    depths = Counter(len(part) for _, part, _ in located)
    if set(depths) not in ({2}, {3}):
        raise ValueError(_wrong_layout(place, located, depths))
    entries = [
        Entry(path, "/".join(part[:-1]), part[0] if len(part) == 3 else "all", split=split)
        for split, part, path in located
    ]
    order = {"": 0, **{name: i for i, name in enumerate(SPLITS)}}
    return sorted(entries, key=lambda e: (order[e.split], natural(e.path))), notes


def _unwrapped(parts: list[list[str]]) -> list[list[str]]:
    """Without the folders that hold everything else, such as a zip's own."""
    while min(len(part) for part in parts) > 2 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    return parts


def _wrong_layout(
    place: Path, located: Sequence[tuple[str, list[str], str]], depths: Counter[int]
) -> str:
    lines = []
    for depth in sorted(depths):
        example = next(path for _, part, path in located if len(part) == depth)
        where = f"{depth} levels deep" if depth > 1 else "directly in the folder, with no class"
        lines.append(f"  {depths[depth]:,} image(s) {where}, such as {name_some([example])}")
    found = "\n".join(lines)
    return (
        f"the images in {place} do not lie as expected: all two levels deep (class/image) or all"
        f" three (group/class/image).\nAccepted:\n{LAYOUTS}\nFound:\n{found}\n"
        + _other_level(place, [part for _, part, _ in located])
    )


def _other_level(place: Path, parts: Sequence[Sequence[str]]) -> str:
    """What to do, where the right level can be told."""
    depths = {len(part) for part in parts}
    if depths == {1}:
        above = place.absolute().parent
        return (
            f"This looks like the folder of one class: give the folder above it, {above}, if its"
            " folders are the classes"
        )
    if min(depths) > 3:
        inside = "/".join(parts[0][: min(depths) - 3])
        return f"This is too high a level: give a folder below it, such as {printable(inside)}"
    return "Move the images, or give the folder one level up or down"


def _splits(config: ConfigDict, place: Path, found: Decoded) -> DataSplits:
    images = found.images
    train, validation, test, notes = divide(images, found.split, config)
    has_groups = images.group_names != ("all",)
    singles = singles_note(images)
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        name=f"folder:{printable(place.resolve().stem)}",
        summary=summarise([images], found.pixels, groups=has_groups),
        notes=(*found.notes, *([singles] if singles else []), *notes),
        fingerprint=found.key,
    )
