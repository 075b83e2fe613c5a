"""A run's answers for a table of pairs, row by row, in bounded memory."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from siamjax.inference import Comparator

COLUMNS = ("x1", "x2", "label", "predict", "similarity", "same", "threshold")
_SIDES = (("left", "right"), ("x1", "x2"), ("a", "b"))
_TRUTHS = ("same", "label")
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


class Pair(NamedTuple):
    """Two paths, and the truth as the table states it ("" where it doesn't)."""

    left: Path
    right: Path
    label: str = ""


class Written(NamedTuple):
    """How many rows were answered, and a sentence for each that could not be."""

    answered: int
    faults: list[str]


def read_pairs(place: str | os.PathLike[str]) -> Iterator[Pair]:
    """The pairs of a CSV, or of a folder of folders with two images each, in natural order.

    Args:
        place: a CSV with columns `left,right`, `x1,x2` or `a,b`, and perhaps `same` or `label`,
            its paths relative to itself; or a folder `<n>/{a,b}.<any image>`.

    Raises:
        ValueError: if it is neither.
    """
    place = Path(place)
    if place.is_dir():
        yield from _from_folders(place)
    elif place.is_file():
        yield from _from_csv(place)
    else:
        raise ValueError(f"{place} is neither a CSV of pairs nor a folder of them")


def _from_csv(path: Path) -> Iterator[Pair]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names = [name.strip().lower() for name in reader.fieldnames or []]
        reader.fieldnames = names
        sides = next((s for s in _SIDES if set(s) <= set(names)), None)
        if sides is None:
            raise ValueError(
                f"{path} must have the columns left,right (or x1,x2; label is optional); it has"
                f" {', '.join(names) or 'none'}"
            )
        truth = next((t for t in _TRUTHS if t in names), "")
        for row in reader:
            left, right = (path.parent / (row[side] or "") for side in sides)
            yield Pair(left, right, row[truth] or "" if truth else "")


def _from_folders(root: Path) -> Iterator[Pair]:
    folders = [f for f in root.iterdir() if f.is_dir()]
    found = 0
    for folder in sorted(folders, key=lambda f: _natural(f.name)):
        images = sorted(f for f in folder.iterdir() if f.suffix.lower() in _IMAGES)
        if len(images) == 2:
            found += 1
            yield Pair(images[0], images[1])
    if not found:
        raise ValueError(
            f"{root} holds no folder of two images; wanted: {root.name}/1/a.jpg, 1/b.jpg, 2/..."
        )


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(p)) if p.isdigit() else (1, p) for p in re.split(r"(\d+)", name) if p]


def write_predictions(
    comparator: Comparator, pairs: Iterable[Pair], out: str | os.PathLike[str], chunk: int = 256
) -> Written:
    """Compares pairs and writes a CSV with the columns `COLUMNS`.

    `predict` is the model's own output: the distance of a head that gives one (small = same),
    else the similarity. A row that cannot be answered is left empty there and reported; the rest
    go on.

    Args:
        comparator: of a run.
        pairs: read as they are needed.
        out: the file to write.
        chunk: pairs in memory at a time.
    """
    answered, faults = 0, []
    rows = iter(pairs)
    with open(out, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        while part := list(islice(rows, chunk)):
            for pair, answer in zip(part, _answers(comparator, part, faults), strict=True):
                writer.writerow([pair.left, pair.right, pair.label, *answer])
                answered += bool(answer[0])
    return Written(answered, faults)


def _answers(comparator: Comparator, pairs: list[Pair], faults: list[str]) -> list[tuple]:
    """predict, similarity, same and threshold of each pair, as text; empty where it failed."""
    try:
        compared = comparator.compare([p.left for p in pairs], [p.right for p in pairs])
    except ValueError as error:
        if len(pairs) > 1:  # find the rows at fault by halving
            half = len(pairs) // 2
            first = _answers(comparator, pairs[:half], faults)
            return first + _answers(comparator, pairs[half:], faults)
        faults.append(str(error))
        return [("", "", "", "")]
    own = compared.similarity if compared.distance is None else compared.distance
    return [
        (f"{o:.6f}", f"{s:.6f}", int(same), compared.threshold)
        for o, s, same in zip(own, compared.similarity, compared.same, strict=True)
    ]
