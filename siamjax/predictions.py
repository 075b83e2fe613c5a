"""A run's answers for a table of pairs, row by row, in bounded memory."""

from __future__ import annotations

import csv
import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from siamjax.data.files import SUFFIXES, natural
from siamjax.data.folder import SPLIT_FOLDERS
from siamjax.data.pair_files import LABELS, Faults, read_folders, records
from siamjax.embeddings import embed_stream
from siamjax.evaluation.decision import DEFAULT
from siamjax.inference import Comparator

COLUMNS: tuple[str, ...] = (
    "x1", "x2", "label", "predict", "similarity", "same", "threshold", "probability", "distance",
)  # fmt: skip
KEPT_FAULTS = 100
CACHE_BYTES = 256 * 2**20  # of embeddings kept, so that an image named in many rows runs once
_SIDES = (("left", "right"), ("x1", "x2"), ("a", "b"))
_TRUTHS = ("same", "label")


class Pair(NamedTuple):
    """Two paths, and the truth as the table states it ("" where it doesn't)."""

    left: Path
    right: Path
    label: str = ""


class Written(NamedTuple):
    """How many rows were answered, how many not, and a sentence for each of the first of those."""

    answered: int
    failed: int
    faults: list[str]


def read_pairs(place: str | os.PathLike[str]) -> Iterator[Pair]:
    """The pairs of a CSV, or of a folder of folders with two images each, in natural order.

    Args:
        place: a CSV with columns `left,right`, `x1,x2` or `a,b`, and perhaps `same` or `label`,
            its paths relative to itself; or a folder `<n>/{a,b}.<any image>`, labels taken from
            `annos.csv` where there is one in or beside it.

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
    rows = records(path)
    _, header = next(rows, (0, []))
    names = [name.strip().lower() for name in header]
    sides = next((s for s in _SIDES if set(s) <= set(names)), None)
    if sides is None:
        shown = ", ".join(name[:40] for name in names[:20]) or "none"
        raise ValueError(
            f"{path} must have the columns left,right (or x1,x2; label is optional); it has {shown}"
        )
    truth = next((t for t in _TRUTHS if t in names), None)
    for _, row in rows:
        cells = dict(zip(names, row, strict=False))
        left, right = (path.parent / cells.get(side, "").strip() for side in sides)
        yield Pair(left, right, cells.get(truth, "") if truth else "")


def _from_folders(root: Path) -> Iterator[Pair]:
    base = _labelled(root)
    if base is not None:
        faults = Faults()
        rows = read_folders(base, faults)
        faults.stop(base)
        for left, right, same in zip(rows.left, rows.right, rows.same, strict=True):
            pair = Pair(base / rows.names[left], base / rows.names[right], str(int(same)))
            if root in pair.left.parents:
                yield pair
        return
    folders = [f for f in root.iterdir() if f.is_dir()]
    found = 0
    for folder in sorted(folders, key=lambda f: natural(f.name)):
        images = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
        if len(images) == 2:
            found += 1
            yield Pair(images[0], images[1])
    if not found:
        raise ValueError(
            f"{root} holds no folder of two images; wanted: {root.name}/1/a.jpg, 1/b.jpg, 2/..."
        )


def _labelled(root: Path) -> Path | None:
    """The folder that holds both `root` and the list of its labels, or None without a list."""
    if root.name.lower() in SPLIT_FOLDERS:
        beside = [p for p in (root.parent, root.parent.parent) if (p / LABELS).is_file()]
        return beside[0] if beside else None
    return root if next(root.rglob(LABELS), None) else None


def write_predictions(
    comparator: Comparator,
    pairs: Iterable[Pair],
    out: str | os.PathLike[str],
    *,
    threshold: str | float = DEFAULT,
    prior: float = 0.5,
    chunk: int = 1024,
) -> Written:
    """Compares pairs and writes a row for each: a CSV with `COLUMNS`, or JSON lines of them.

    `predict` is the model's own output: the distance of a head that gives one (small = same),
    else the similarity. A row that cannot be answered is left empty there and reported; the rest
    go on. Memory does not grow with the number of rows.

    Args:
        comparator: of a run.
        pairs: read as they are needed.
        out: the file to write; JSON lines where it ends in `.jsonl`.
        threshold: a name on the decision card, or a similarity.
        prior: share of same pairs where the answer will be used.
        chunk: pairs in memory at a time.

    Raises:
        ValueError: for a threshold that the run does not have.
    """
    cut = comparator.card.threshold(threshold)
    embeddings = _Embeddings(comparator)
    answered, total, faults = 0, 0, []
    rows = iter(pairs)
    as_json = str(out).endswith(".jsonl")
    with open(out, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if not as_json:
            writer.writeheader()
        while part := list(islice(rows, chunk)):
            total += len(part)
            for row in _answers(comparator, embeddings, part, faults, cut, prior):
                answered += "similarity" in row
                if as_json:
                    file.write(json.dumps(row) + "\n")
                else:
                    writer.writerow(row)
    return Written(answered, total - answered, faults)


def _answers(
    comparator: Comparator,
    embeddings: _Embeddings,
    pairs: list[Pair],
    faults: list[str],
    threshold: float,
    prior: float,
) -> list[dict[str, Any]]:
    """A row of `COLUMNS` for each pair; without an answer where an image cannot be read."""
    z, unreadable = embeddings.of([p.left for p in pairs] + [p.right for p in pairs])
    rows: list[dict[str, Any]] = [
        {"x1": str(p.left), "x2": str(p.right), "label": p.label} for p in pairs
    ]
    good = []
    for i, pair in enumerate(pairs):
        reasons = [unreadable[p] for p in pair[:2] if p in unreadable]
        if not reasons:
            good.append(i)
        elif len(faults) < KEPT_FAULTS:
            faults.append(reasons[0])
    if not good:
        return rows
    at = np.array(good)
    compared = comparator.compare_embeddings(
        z[at], z[at + len(pairs)], threshold=threshold, prior=prior
    )
    for place, i in enumerate(good):
        similarity = round(float(compared.similarity[place]), 6)
        row = {
            "similarity": similarity,
            "same": int(compared.same[place]),
            "threshold": round(threshold, 6),
            "probability": round(float(compared.probability[place]), 6),
        }
        if compared.distance is not None:
            row["distance"] = round(float(compared.distance[place]), 6)
        rows[i] |= {"predict": row.get("distance", similarity)} | row
    return rows


class _Embeddings:
    """Embeddings of image files; the most recent ones are kept."""

    def __init__(self, comparator: Comparator, limit: int = CACHE_BYTES):
        self._comparator, self._limit = comparator, limit
        self._kept: OrderedDict[Path, np.ndarray] = OrderedDict()

    def of(self, paths: Sequence[Path]) -> tuple[np.ndarray, dict[Path, str]]:
        """`float32 [n, d]`, zeros where an image cannot be read, and why it cannot."""
        wanted = dict.fromkeys(paths)
        found = {path: self._kept[path] for path in wanted if path in self._kept}
        missing, faults = [path for path in wanted if path not in found], []
        for path in found:
            self._kept.move_to_end(path)
        for places, z in embed_stream(self._comparator, missing, faults):
            # A row by itself: a view would keep the whole batch.
            fresh = {missing[i]: row.copy() for i, row in zip(places, z, strict=True)}
            found |= fresh
            self._kept |= fresh
        unread = (path for path in missing if path not in found)
        unreadable = dict(zip(unread, faults, strict=True))
        width = next((v.size for v in found.values()), 1)
        while len(self._kept) * width * 4 > self._limit:
            self._kept.popitem(last=False)
        empty = np.zeros(width, np.float32)
        return np.stack([found.get(path, empty) for path in paths]), unreadable
