"""Your own pairs: a CSV of `left,right,same`, or numbered folders of two images with a label list.

Such data state pairs, not classes. What they do not state is unknown: two images that no row
compares may or may not show the same thing, and are never taken for different.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from siamjax.config import ConfigDict, lookup
from siamjax.data.cache import SPLITS, Collected, Decoded, Entry, Write, cache_directory, cache_key
from siamjax.data.cache import cached as cached_images
from siamjax.data.decode import decode_files
from siamjax.data.files import SUFFIXES, DirectoryFiles, natural
from siamjax.data.folder import SPLIT_FOLDERS
from siamjax.data.pair_schemes import check_table, connected
from siamjax.data.splits import DataNotFound, data_root, name_some, part, refuse_drawer_split
from siamjax.preprocess import preprocess_of
from siamjax.types import DataSplits, LabelledImages, PairTable

COLUMNS = {
    "left": ("left", "x1"),
    "right": ("right", "x2"),
    "same": ("same", "label"),
    "split": ("split",),
    "folder": ("folder",),
}
WORDS = {"1": True, "true": True, "same": True, "1.0": True}
WORDS |= {"0": False, "false": False, "different": False, "0.0": False}
LABELS = "annos.csv"
LAYOUTS = f"""\
  a CSV:                           numbered folders of two images each:
    left,right,same                  DIR/.../train/1/a.jpg, b.jpg
    cats/1.jpg,cats/2.jpg,1          DIR/.../train/2/a.jpg, b.jpg
    cats/1.jpg,dogs/7.jpg,0          DIR/.../test/1/a.jpg, b.jpg
  (paths relative to the CSV; a      DIR/.../{LABELS}, with a column "label": first the rows of
  column "split" may say train,      train/ in natural order (2 before 10), then those of test/;
  validation or test)                or with a column "folder" as well: train/1"""


@dataclass
class Faults:
    """What is wrong with a table, counted by kind, the first few of each kind kept."""

    count: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, *where: str, count: int | None = None) -> None:
        """`count` faults (None: one for each of `where`), some of them at `where`."""
        self.count[kind] += len(where) if count is None else count
        self.first[kind] += where[: max(0, 5 - len(self.first[kind]))]

    def stop(self, place: Path) -> None:
        """Raises ValueError if there is any."""
        if not self.count:
            return
        lines = []
        for kind, count in self.count.items():
            more = count - len(self.first[kind])
            shown = ", ".join(self.first[kind]) + (f", ... {more:,} more" if more else "")
            lines.append(f"  - {kind}: {count:,} ({shown})")
        total = sum(self.count.values())
        raise ValueError(f"{place} has {total:,} fault(s); mend them all:\n" + "\n".join(lines))


@dataclass
class Rows:
    """Pairs as their file states them.

    Attributes:
        base: what `names` are relative to.
        names: each image once.
        left, right: `[p]`, indices into `names`.
        same: `bool [p]`.
        split: `[p]`, indices into `SPLITS`, or -1 where nothing is said.
        where: `[p]`, the line of the file.
        notes: sentences for the user.
    """

    base: Path
    names: list[str]
    left: np.ndarray
    right: np.ndarray
    same: np.ndarray
    split: np.ndarray
    where: np.ndarray
    notes: list[str]

    @classmethod
    def of(cls, base: Path, names: list[str], rows: Sequence[tuple], notes: list[str]) -> Rows:
        """From tuples (left, right, same, split, where)."""
        table = np.array(rows, np.int64).reshape(-1, 5).T
        return cls(base, names, table[0], table[1], table[2] == 1, table[3], table[4], notes)


def pair_table(config: ConfigDict) -> DataSplits:
    """Reads pairs from `config.data.dir`: a CSV, the folder of one, or folders of two images.

    A CSV has the columns `left,right,same` (or `label`; 0/1, true/false, same/different) and
    perhaps `split`; comma, semicolon or tab. Folders of two images, `train/1/a.jpg` and `b.jpg`,
    lie anywhere under `config.data.dir`, with `annos.csv`. The whole table is checked before
    anything is trained, and its faults are reported together.

    Where the table has no validation split, pairs that share no image with any other are held
    out of the training pairs by `config.seed`; if there are not enough of them, pairs are held
    out whose images are seen in training, and a note says so. `config.data.holdout = 0` makes the
    test pairs the validation pairs.

    Args:
        config: reads `data.dir`, `data.holdout`, `data.cache_dir`, the preprocessing and `seed`.

    Returns:
        The splits, `pairs` with one table for each. An image's label is the number of its set of
        images joined by "same" pairs. Different labels do NOT mean that images differ; only the
        pairs of the tables are known, so train with `config.pairs.scheme = "explicit"`.

    Raises:
        DataNotFound: if there is nothing at `config.data.dir`.
        ValueError: if the layout is neither of those, or the table has faults: every kind with
            its count and the first lines.
    """
    refuse_drawer_split(config)
    faults = Faults()
    place = _place(data_root(config))
    rows = read_csv(place, faults) if place.is_file() else read_folders(place, faults)
    decoded = _decoded(config, rows, faults)
    _check_rows(rows, faults)
    faults.stop(place)
    if not len(rows.same):
        raise ValueError(f"{place} holds no pair")
    images = decoded.images
    picture = _pictures(images)
    split, notes = _divided(rows, picture, config)
    notes = [*rows.notes, *decoded.notes, *_remarks(rows, picture, split), *notes]
    parts, tables = {}, {}
    for number, name in enumerate(SPLITS):
        if (split == number).any():
            parts[name], tables[name] = _part(rows, images, split == number)
    for name in ("train", "validation"):
        try:
            check_table(tables[name], len(parts[name]))
        except ValueError as error:
            raise ValueError(f"{place}, {name} pairs: {error}") from error
    table = (rows.left, rows.right, rows.same, rows.split)
    content = b"".join(column.tobytes() for column in table)
    agree = int(rows.same.sum())
    return DataSplits(
        train=parts["train"],
        validation=parts["validation"],
        test=parts.get("test"),
        name=f"pairs:{place.resolve().stem}",
        summary=f"{len(rows.same):,} pairs ({agree:,} same, {len(rows.same) - agree:,} different),"
        f" {len(images):,} images, {decoded.pixels}",
        notes=tuple(notes),
        fingerprint=hashlib.sha256(decoded.key.encode() + content).hexdigest(),
        pairs=tables,
    )


def _place(root: Path) -> Path:
    """The CSV of pairs, or the directory that holds folders of two images."""
    if not root.exists():
        raise DataNotFound(
            f"there is no {root.absolute()}. Set config.data.dir to one of:\n{LAYOUTS}"
        )
    if root.is_file():
        return root
    csvs = sorted(path for path in root.glob("*.csv") if {"left", "right"} <= set(_columns(path)))
    if len(csvs) > 1:
        raise ValueError(f"{root} holds several tables of pairs: {name_some([p.name for p in csvs])};"
                         " point config.data.dir at one of them")  # fmt: skip
    # Beside other data sets, only the one folder that the layout names is meant.
    return csvs[0] if csvs else root / "init_data" if (root / "init_data").is_dir() else root


# ----------------------------------------------------------------------------------- reading tables


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV that are not empty, each with its line, the header first."""
    with path.open("rb") as raw:
        start = raw.read(1 << 16)
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    head = start.partition(b"\n")[0].replace(b"\0", b"")
    delimiter = max(b",", b";", b"\t", key=head.count).decode()
    try:
        with path.open(newline="", encoding="utf-16" if wide else "utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            for row in reader:
                if any(row):
                    yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; is a quote not closed?") from error
    except UnicodeError as error:
        raise ValueError(f'{path} is not UTF-8: save it as "CSV UTF-8" ({error})') from error


def _columns(path: Path) -> dict[str, int]:
    """Where a CSV has the columns that it names."""
    _, header = next(_records(path), (0, []))
    names = [name.strip().lower() for name in header]
    found = {key: [names.index(n) for n in known if n in names] for key, known in COLUMNS.items()}
    return {key: places[0] for key, places in found.items() if places}


def _cells(path: Path, needed: Sequence[str], faults: Faults) -> Iterator[tuple[int, dict[str, str]]]:
    """The known columns of each row; rows too short, or with no label, become faults."""
    columns = _columns(path)
    if missing := [name for name in needed if name not in columns]:
        raise ValueError(
            f"{path} must name its columns in its first line; there is none called"
            f" {' or '.join(COLUMNS[missing[0]])}. Expected one of:\n{LAYOUTS}"
        )
    longest = max(columns.values())
    records = _records(path)
    next(records)
    for line, row in records:
        if len(row) <= longest:
            faults.add("rows with too few columns", f"line {line}")
            continue
        cells = {name: row[place].strip() for name, place in columns.items()}
        if cells["same"].lower() in WORDS:
            yield line, cells
        else:
            faults.add(
                "labels that are none of 0, 1, true, false, same, different",
                f"line {line}: {cells['same'][:40]!r}",
            )


def read_csv(path: Path, faults: Faults) -> Rows:
    """The rows of a CSV with the columns left, right, same (or label) and perhaps split.

    Raises:
        ValueError: if it is not such a CSV; faults of single rows go to `faults`.
    """
    names: dict[str, int] = {}
    spelt: dict[str, int] = {"": -1}
    rows = []

    def image(cell: str) -> int:
        if cell not in spelt:  # one image may be spelt in several ways
            name = posixpath.normpath(cell.replace("\\", "/"))
            spelt[cell] = names.setdefault(name, len(names))
        return spelt[cell]

    for line, cells in _cells(path, ("left", "right", "same"), faults):
        left, right = image(cells["left"]), image(cells["right"])
        split = cells.get("split", "").lower()
        if left < 0 or right < 0:
            faults.add("rows without a path", f"line {line}")
        elif split and split not in SPLIT_FOLDERS:
            faults.add("splits that are none of train, validation, test", f"line {line}: {split!r}")
        else:
            number = SPLITS.index(SPLIT_FOLDERS[split]) if split else -1
            rows.append((left, right, WORDS[cells["same"].lower()], number, line))
    return Rows.of(path.parent, list(names), rows, [])


def read_folders(root: Path, faults: Faults) -> Rows:
    """Folders `train/N` and `test/N` of two images each, and the rows of `annos.csv`.

    The rows are matched to folders by the column "folder", else in natural order, train first,
    and only if there are as many rows as folders.

    Raises:
        ValueError: if the layout is another, or rows cannot be matched to folders.
    """
    listing = DirectoryFiles(root).listing()
    folders: dict[str, list[str]] = defaultdict(list)  # "train/1" -> its images
    outside, tops = [], set()
    for path in listing.images:
        parts = path.split("/")
        if len(parts) > 2 and parts[-3].lower() in SPLIT_FOLDERS:
            folders["/".join(parts[-3:-1])].append(path)
            tops.add("/".join(parts[:-3]))
        else:
            outside.append(path)
    labels = sorted(root.rglob(LABELS))
    if not folders or len(labels) != 1 or len(tops) > 1:
        found = f"{len(folders):,} folders under {name_some(sorted(tops)) or 'no'} train/ or test/"
        raise ValueError(
            f"{root} holds no table of pairs: found {found}, and {len(labels)} {LABELS}."
            f" Expected one of:\n{LAYOUTS}"
        )
    order = sorted(folders, key=lambda f: (_split_of(f), natural(f)))
    names, rows = list(listing.images), []
    index = {name: i for i, name in enumerate(names)}
    for folder, (line, cells) in _matched(order, labels[0], faults):
        images = folders[folder]
        if len(images) != 2:
            faults.add("folders without exactly two images", f"{folder}: {len(images)}")
            continue
        left, right = (index[name] for name in images)
        rows.append((left, right, WORDS[cells["same"].lower()], _split_of(folder), line))
    notes = [note for note in listing.notes if "of other types" not in note]
    if outside:
        notes.append(f"{len(outside):,} images outside train/N and test/N: {name_some(outside)}")
    return Rows.of(root, names, rows, notes)


def _split_of(folder: str) -> int:
    return SPLITS.index(SPLIT_FOLDERS[folder.split("/")[0].lower()])
