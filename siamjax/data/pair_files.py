"""Files that state pairs: a CSV of `left,right,same`, or folders of two images and a label list."""

from __future__ import annotations

import codecs
import csv
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from siamjax.data.cache import SPLITS
from siamjax.data.files import SUFFIXES, DirectoryFiles, natural
from siamjax.data.folder import SPLIT_FOLDERS
from siamjax.data.splits import DataNotFound, name_some

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
MAX_ROW = 1_000_000  # characters
LAYOUTS = f"""\
  a CSV:                             folders of two images each:
    left,right,same                    DIR/.../train/1/a.jpg, b.jpg
    cats/1.jpg,cats/2.jpg,1            DIR/.../train/2/a.jpg, b.jpg
    cats/1.jpg,dogs/7.jpg,0            DIR/.../test/1/a.jpg, b.jpg
    (paths relative to the CSV; "same" DIR/.../{LABELS}
    may be called "label"; a column    ({LABELS} has a column "label", one row for each folder:
    "split" may hold train,            those of train/ first, in natural order (2 before 10), or
    validation or test)                in any order with a column "folder", such as train/1)"""


@dataclass
class Faults:
    """What is wrong with a table, counted by kind, the first five of each kind kept."""

    count: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, where: str, count: int = 1) -> None:
        """One more fault at `where`, or `count` of them that `where` tells about."""
        self.count[kind] += count
        if len(self.first[kind]) < 5:
            self.first[kind].append(where)

    def stop(self, place: Path) -> None:
        """Raises ValueError if there is any."""
        lines = []
        for kind, count in self.count.items():
            shown = self.first[kind]
            more = f", ... {count - 5:,} more" if len(shown) == 5 < count else ""
            lines.append(f"  - {kind}: {count:,} ({', '.join(shown)}{more})")
        if lines:
            total = sum(self.count.values())
            raise ValueError(
                f"{place} has {total:,} fault(s); nothing is trained until they are mended:\n"
                + "\n".join(lines)
            )


@dataclass(frozen=True)
class Rows:
    """Pairs as their file states them.

    Attributes:
        base: what `names` are relative to.
        names: the path of each image, once.
        left, right: `int64 [p]`, indices into `names`.
        same: `bool [p]`.
        split: `int64 [p]`, indices into `SPLITS`, or -1 where nothing is said.
        line: `int64 [p]`, where the file says so.
        notes: sentences for the user.
    """

    base: Path
    names: tuple[str, ...]
    left: np.ndarray
    right: np.ndarray
    same: np.ndarray
    split: np.ndarray
    line: np.ndarray
    notes: tuple[str, ...] = ()


def _rows(
    base: Path, names: Sequence[str], found: Sequence[tuple], notes: Sequence[str] = ()
) -> Rows:
    """From tuples (left, right, same, split, line)."""
    left, right, same, split, line = np.array(found, np.int64).reshape(-1, 5).T.copy()
    return Rows(base, tuple(names), left, right, same == 1, split, line, tuple(notes))


def find_table(root: Path) -> Path:
    """The CSV of pairs at or in `root`, else the directory with folders of two images.

    Raises:
        DataNotFound: if there is nothing at `root`.
        ValueError: if there are several CSVs of pairs.
    """
    if not root.exists():
        raise DataNotFound(
            f"there is no {root.absolute()}. Set config.data.dir to one of:\n{LAYOUTS}"
        )
    if root.suffix.lower() == ".zip":
        raise ValueError(f"{root} is a zip: unpack it, and point config.data.dir at the folder")
    if root.is_file():
        return root
    tables = [
        path
        for path in sorted(root.glob("*.csv"))
        if path.is_file() and {"left", "right"} <= set(_columns(path))
    ]
    if len(tables) > 1:
        raise ValueError(
            f"{root} holds several tables of pairs ({name_some([t.name for t in tables])}): point"
            " config.data.dir at one of them"
        )
    # A data directory may hold other sets too: then only what the layout names is meant.
    inside = root / "init_data"
    return tables[0] if tables else inside if inside.is_dir() else root


def read_csv(path: Path, faults: Faults) -> Rows:
    """The rows of a CSV with the columns left, right, same (or label) and perhaps split.

    Raises:
        ValueError: if it is not such a CSV; faults of single rows go to `faults`.
    """
    names: dict[str, int] = {}
    spelt: dict[str, int] = {}

    def image(cell: str) -> int:
        if cell not in spelt:  # an image may be spelt in several ways
            name = posixpath.normpath(cell.replace("\\", "/"))
            spelt[cell] = names.setdefault(name, len(names))
        return spelt[cell]

    rows = []
    for line, cells, same in _cells(path, ("left", "right", "same"), faults):
        split = cells.get("split", "").lower()
        if same is None:
            continue
        if not (cells["left"] and cells["right"]):
            faults.add("rows without a path", f"line {line}")
        elif split and split not in SPLIT_FOLDERS:
            faults.add("splits that are none of train, validation, test", f"line {line}: {split!r}")
        else:
            number = SPLITS.index(SPLIT_FOLDERS[split]) if split else -1
            rows.append((image(cells["left"]), image(cells["right"]), same, number, line))
    return _rows(path.parent, list(names), rows)


def read_folders(root: Path, faults: Faults) -> Rows:
    """Folders `train/N` and `test/N` of two images each, anywhere under `root`, and `annos.csv`.

    Rows are matched to folders by the column "folder", else in natural order, train first, and
    then only if there are as many rows as folders.

    Raises:
        ValueError: if the layout is another; faults of single folders go to `faults`.
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
    lists = sorted(path for path in root.rglob(LABELS) if path.is_file())
    if len(tops) != 1 or len(lists) != 1:
        where = f" (in {name_some(sorted(tops))})" if len(tops) > 1 else ""
        raise ValueError(
            f"{root} holds no table of pairs: found {len(folders):,} folders of images in train/ or"
            f" test/{where}, and {len(lists)} {LABELS}. Expected one of:\n{LAYOUTS}"
        )
    order = sorted(folders, key=lambda folder: (_split(folder), natural(folder)))
    names, rows = [], []
    for folder, line, same in _matched(order, lists[0], faults):
        images = folders[folder]
        if len(images) == 2:
            rows.append((len(names), len(names) + 1, same, _split(folder), line))
            names += images
        else:
            faults.add("folders without exactly two images", f"{folder} ({len(images)})")
    # Its list of other files would hold annos.csv, which is used.
    notes = [note for note in listing.notes if "of other types" not in note]
    others = [p.name for p in root.rglob("*.*") if p.is_file() and p.suffix.lower() not in SUFFIXES]
    if others := sorted(name for name in others if name != LABELS and not name.startswith(".")):
        notes.append(f"{len(others):,} files of other types not used: {name_some(others)}")
    if outside:
        notes.append(f"{len(outside):,} images outside train/N and test/N: {name_some(outside)}")
    return _rows(root, names, rows, notes)


def _split(folder: str) -> int:
    return SPLITS.index(SPLIT_FOLDERS[folder.split("/")[0].lower()])


def _matched(order: list[str], path: Path, faults: Faults) -> Iterator[tuple[str, int, bool]]:
    """Each folder with its row."""
    rows = list(_cells(path, ("same",), faults))
    if "folder" not in _columns(path):
        if len(rows) != len(order):
            count = Counter(folder.split("/")[0] for folder in order)
            there = ", ".join(f"{n:,} in {top}/" for top, n in count.items())
            raise ValueError(
                f"{path} has {len(rows):,} rows for {len(order):,} folders ({there}), so it is not"
                ' known which row is whose: add the missing, or a column "folder" such as train/1'
            )
        yield from ((f, line, same) for f, (line, _, same) in zip(order, rows, strict=True)
                    if same is not None)  # fmt: skip
        return
    missing = dict.fromkeys(order)
    for line, cells, same in rows:
        folder = cells.get("folder", "").replace("\\", "/").strip("/")
        if folder in missing:
            del missing[folder]
            if same is not None:
                yield folder, line, same
        elif cells:
            word = (
                "rows for a folder that has one already"
                if folder in order
                else "rows for no folder"
            )
            faults.add(word, f"line {line}: {folder[:40]!r}")
    for folder in missing:
        faults.add(f"folders without a row in {path.name}", folder)


def _cells(
    path: Path, needed: Sequence[str], faults: Faults
) -> Iterator[tuple[int, Mapping[str, str], bool | None]]:
    """Line, known columns and answer of each row; the answer is None where the row is at fault."""
    columns = _columns(path)
    if missing := [name for name in needed if name not in columns]:
        words = " or ".join(f'"{word}"' for word in COLUMNS[missing[0]])
        raise ValueError(
            f"the first line of {path} must name its columns, but it names none {words}. Expected"
            f" one of:\n{LAYOUTS}"
        )
    longest = max(columns.values())
    found = records(path)
    next(found)
    for line, row in found:
        if len(row) <= longest:
            faults.add("rows with too few columns", f"line {line}")
            yield line, {}, None
            continue
        cells = {name: row[place].strip() for name, place in columns.items()}
        same = WORDS.get(cells["same"].lower())
        if same is None:
            kind = "labels that are none of 0, 1, true, false, same, different"
            faults.add(kind, f"line {line}: {cells['same'][:40]!r}")
        yield line, cells, same


def _columns(path: Path) -> dict[str, int]:
    """Where a CSV has the columns of `COLUMNS`."""
    _, header = next(records(path), (0, []))
    names = [name.strip().lower() for name in header]
    found = {key: [names.index(n) for n in known if n in names] for key, known in COLUMNS.items()}
    return {key: places[0] for key, places in found.items() if places}


class _TooLongError(Exception):
    """A row has too many characters."""


class _Lines:
    """The lines of a stream, none of them read as a whole before its length is known."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.row = 0  # characters since the last row ended: a quoted cell may hold many lines

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_ROW - self.row + 1)
        self.row += len(line)
        if self.row > MAX_ROW:
            raise _TooLongError
        if not line:
            raise StopIteration
        return line


def records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV that are not empty, each with its line, the header first.

    Raises:
        ValueError: if it is no CSV, or a row has a million characters.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    with path.open("rb") as raw:
        start = raw.read(1 << 16)
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    head = start.partition(b"\n")[0]
    delimiter = max(b",", b";", b"\t", key=head.count).decode()
    line = 0
    try:
        with path.open(newline="", encoding="utf-16" if wide else "utf-8-sig") as stream:
            lines = _Lines(stream)
            for row in (reader := csv.reader(lines, delimiter=delimiter, strict=True)):
                line = reader.line_num
                lines.row = 0
                if any(row):
                    yield line, row
    except csv.Error as error:
        raise ValueError(f"{path}, after line {line}: {error}; is a quote not closed?") from error
    except _TooLongError as error:
        raise ValueError(
            f"{path}, after line {line}: a row of more than {MAX_ROW:,} characters, which no table"
            " of pairs has; is a quote not closed?"
        ) from error
    except UnicodeError as error:
        raise ValueError(f'{path} is not UTF-8 ({error}): save it as "CSV UTF-8"') from error
