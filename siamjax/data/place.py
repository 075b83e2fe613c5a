"""What lies at a place: which of the layouts known here, and the images in it, not decoded yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from siamjax.data import omniglot
from siamjax.data.cache import Entry
from siamjax.data.files import FileSet, Read, open_files, read_picture
from siamjax.data.folder import LAYOUTS, read_layout
from siamjax.data.pair_files import LABELS, Faults, Rows, find_table, read_csv, read_folders
from siamjax.data.splits import DataNotFound, name_some


@dataclass(frozen=True)
class Place:
    """A place with its layout.

    Attributes:
        root: the place.
        layout: in words.
        source: the `config.data.source` that reads it.
        entries: the images with their classes; of a table of pairs all of one class.
        notes: sentences about all else that lies there.
        rows: the pairs of a table, else None.
        faults: of the table.
        sets: where the entries are read from: a prefix of their paths, and the files behind it.
    """

    root: Path
    layout: str
    source: str
    entries: Sequence[Entry]
    notes: tuple[str, ...] = ()
    rows: Rows | None = None
    faults: str = ""
    sets: tuple[tuple[str, FileSet], ...] = ()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Read]:
        """Gives a function from an entry's path to the file's bytes."""
        with contextlib.ExitStack() as stack:
            opened = [(prefix, stack.enter_context(files.reading())) for prefix, files in self.sets]

            def read(path: str) -> bytes:
                if self.rows is not None:
                    return read_picture(self.rows.base / path)
                for prefix, inside in opened:
                    if path.startswith(prefix):
                        return inside(path.removeprefix(prefix))
                raise ValueError("in none of the sets")

            yield read


def find_place(root: Path) -> Place:
    """Finds out what lies at a directory, a zip or a CSV of pairs.

    Raises:
        DataNotFound: if there is nothing.
        ValueError: if it is none of the layouts, with what was found and the layouts drawn.
    """
    try:
        return _find(root)
    except OSError as error:
        raise ValueError(f"{root} cannot be read: {error.strerror or error}") from error


def _find(root: Path) -> Place:
    if not root.exists():
        raise DataNotFound(
            f"there is no {root.absolute()}. Give the directory or zip that holds one folder of"
            f" images for each class, or a table of pairs:\n{LAYOUTS}"
        )
    if root.is_dir():
        sets = omniglot.find(root)
        if "images_background" in sets:
            return _omniglot(root, sets)
        if _has_table(root):
            return _pairs(root)
    elif root.suffix.lower() in (".csv", ".tsv"):
        return _pairs(root)
    files = open_files(root)
    listing = files.listing()
    if not listing.images and root.is_dir():
        _only_archives(root)
    entries, notes = read_layout(root, listing.images)
    levels = "group/class/image" if entries[0].group_name != "all" else "class/image"
    splits = dict.fromkeys(entry.split for entry in entries if entry.split)
    layout = f"{'split/' if splits else ''}{levels}"
    layout += f" with {', '.join(splits)}" if splits else ""
    return Place(root, layout, "folder", entries, (*listing.notes, *notes), sets=(("", files),))


def _only_archives(root: Path) -> None:
    zips = sorted(path.name for path in root.glob("*.zip"))
    if zips:
        raise ValueError(
            f"{root} holds no image, but {len(zips)} zip(s): give one of them ({name_some(zips)})"
        )


def _has_table(root: Path) -> bool:
    if next((path for path in root.rglob(LABELS) if path.is_file()), None):
        return True
    return find_table(root).is_file()


def _pairs(root: Path) -> Place:
    faults = Faults()
    table = find_table(root)
    rows = read_csv(table, faults) if table.is_file() else read_folders(table, faults)
    kind = "a CSV of pairs" if table.is_file() else f"folders of two images and {LABELS}"
    entries = [Entry(name, "image") for name in rows.names]
    told = ""
    try:
        faults.stop(table)
    except ValueError as error:
        told = str(error)
    return Place(root, f"pairs: {kind}", "pair_table", entries, rows.notes, rows, told)


def _omniglot(root: Path, found: dict[str, Path]) -> Place:
    """Its sets, each image with the split that the source `omniglot` would give it."""
    entries: list[Entry] = []
    notes: list[str] = []
    sets = []
    for name, place in found.items():
        if name == "images_validation" and any(e.split == "validation" for e in entries):
            continue  # it is half of the evaluation set
        files = open_files(place)
        listing = files.listing()
        images, strange = omniglot.read_paths(listing.images)
        notes += [f"{place.name}: {note}" for note in listing.notes]
        if strange:
            notes.append(
                f"{place.name}: {len(strange):,} images not named as Omniglot's, not used:"
                f" {name_some(strange)}"
            )
        sets.append((f"{place.name}: ", files))
        entries += [
            entry._replace(
                path=f"{place.name}: {entry.path}", split=_omniglot_split(name, entry.group_name)
            )
            for entry in images
        ]
    if not entries:
        raise ValueError(f"{root} is laid out as Omniglot, but holds no image named as Omniglot's")
    splits = {entry.split for entry in entries}
    layout = (
        f"Omniglot, alphabet/character/image: {', '.join(path.name for path in found.values())}"
    )
    if splits == {"train"}:
        entries = [entry._replace(split="") for entry in entries]
    return Place(root, layout, "omniglot", entries, tuple(notes), sets=tuple(sets))


def _omniglot_split(name: str, alphabet: str) -> str:
    if name == "images_background":
        return "train"
    held = name == "images_validation" or alphabet in omniglot.VALIDATION_ALPHABETS
    return "validation" if held else "test"
