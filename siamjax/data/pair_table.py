"""Your own pairs: a source that states which images are the same, rather than their classes.

What such data do not state is unknown: two images that no row compares may or may not show the
same thing, and are never taken for different.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from siamjax.config import ConfigDict
from siamjax.config_faults import lookup
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
from siamjax.data.files import read_picture
from siamjax.data.pair_files import LABELS, Faults, Rows, find_table, read_csv, read_folders
from siamjax.data.pair_schemes import check_table, connected, distinct
from siamjax.data.splits import (
    data_root,
    name_some,
    part,
    printable,
    refuse_drawer_split,
    split_seed,
)
from siamjax.preprocess import preprocess_of
from siamjax.types import DataSplits, LabelledImages, PairTable


def pair_table(config: ConfigDict) -> DataSplits:
    """Reads pairs from `config.data.dir`: a CSV, the folder of one, or folders of two images.

    A CSV has the columns `left,right,same` (or `label`; 0/1, true/false, same/different) and
    perhaps `split`, separated by comma, semicolon or tab. Folders of two images, `train/1/a.jpg`
    and `b.jpg`, lie anywhere under `config.data.dir`, with `annos.csv`. The whole table is checked
    before anything is trained, and its faults are reported together.

    Where the table has no validation pairs, some of the training pairs are held out by
    `config.data.split_seed`: such as share no image with the others, if there are enough, else any,
    and a note says so. `config.data.holdout = 0` makes the test pairs the validation pairs.

    Args:
        config: reads `data.dir`, `data.holdout`, `data.cache_dir`, the preprocessing and the seed
            of the split.

    Returns:
        The splits, `pairs` with one table for each. The label of an image is the set of images
        that "same" pairs join it with. Different labels do NOT mean that images differ: only what
        the tables state is known, so train with `config.pairs.scheme = "explicit"`.

    Raises:
        DataNotFound: if there is nothing at `config.data.dir`.
        ValueError: if the layout is none of those, or the table has faults: each kind with its
            count and where the first are.
    """
    refuse_drawer_split(config)
    faults = Faults()
    place = find_table(data_root(config))
    rows = read_csv(place, faults) if place.is_file() else read_folders(place, faults)
    decoded = _decoded(config, rows, faults)
    _, contradicted = _repeats(rows.left, rows.right, rows.same)
    for line in rows.line[contradicted]:
        faults.add("pairs said to be both same and different", f"line {line}")
    faults.stop(place)
    if decoded is None:
        raise ValueError(f"{place} holds no pair")
    picture = _pictures(decoded.images.images)
    said = remarks(rows, picture)
    split, told = divided(place, rows, picture, config)
    parts = _parts(rows, decoded.images, split)
    for name in ("train", "validation"):
        try:
            check_table(parts[name][1], len(parts[name][0]))
        except ValueError as error:
            raise ValueError(f"{place}, {name} pairs: {error}") from error
    agree = int(rows.same.sum())
    columns = b"".join(c.tobytes() for c in (rows.left, rows.right, rows.same, rows.split))
    return DataSplits(
        train=parts["train"][0],
        validation=parts["validation"][0],
        test=parts["test"][0] if "test" in parts else None,
        name=f"pairs:{printable(data_root(config).resolve().stem)}",
        summary=f"{len(rows.same):,} pairs ({agree:,} same, {len(rows.same) - agree:,} different),"
        f" {len(rows.names):,} images, {decoded.pixels}",
        notes=(*rows.notes, *decoded.notes, *said, *told),
        fingerprint=hashlib.sha256(decoded.key.encode() + columns).hexdigest(),
        pairs={name: table for name, (_, table) in parts.items()},
    )


def _decoded(config: ConfigDict, rows: Rows, faults: Faults) -> Decoded | None:
    """All images, in the order of `rows.names` unless there are faults; None if there is none."""
    preprocess = preprocess_of(config)
    digest = hashlib.sha256()
    entries: list[Entry] = []
    lines = np.full(len(rows.names), np.iinfo(np.int64).max)
    for side in (rows.left, rows.right):
        np.minimum.at(lines, side, rows.line)
    for line, name in zip(lines, rows.names, strict=True):
        try:
            status = os.stat(os.path.join(rows.base, name))
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = getattr(error, "strerror", None) or error
            faults.add("images that are not there", f"line {line}: {name[:80]!r}, {reason}")
            continue
        entries.append(Entry(name, "image"))
        stated = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"
        digest.update(stated.encode("utf-8", "surrogateescape"))
    if not entries:
        return None

    def read(name: str) -> bytes:
        return read_picture(rows.base / name)

    def collect(write: Write) -> Collected:
        return decode_files(read, entries, preprocess, write)

    key = cache_key("pair_table", digest.hexdigest(), preprocess)
    try:
        found = cached(cache_directory(config), "pairs", key, preprocess, collect)
    except ValueError as error:  # not one could be read
        faults.add("images that cannot be read", str(error), len(entries))
        return None
    if lost := len(entries) - len(found.images):
        reasons = next(note for note in found.notes if "could not be read" in note)
        faults.add("images that cannot be read", reasons.split(": ", 1)[1], lost)
    return found


def _repeats(
    left: np.ndarray, right: np.ndarray, same: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows state a pair that an earlier one states, and which contradict another, or itself.

    The order within a pair does not matter.
    """
    low, high = np.minimum(left, right), np.maximum(left, right)
    key = low * (high.max(initial=0) + 1) + high
    _, first, pair = np.unique(key, return_index=True, return_inverse=True)
    agree, stated = np.bincount(pair, same), np.bincount(pair)
    torn = (agree > 0) & (agree < stated)
    return first[pair] != np.arange(len(pair)), torn[pair] | ((left == right) & ~same)


def _pictures(images: np.ndarray) -> np.ndarray:
    """A number for each image, equal for images of equal pixels, whatever files they came from."""
    numbers: dict[bytes, int] = {}
    digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images)
    return np.array([numbers.setdefault(d, len(numbers)) for d in digests])


def remarks(rows: Rows, picture: np.ndarray) -> list[str]:
    """What does not forbid training, but should be known.

    Args:
        rows: of the table.
        picture: `[n]`, a number for each image, equal for images of equal pixels.
    """
    left, right, notes = picture[rows.left], picture[rows.right], []
    again, torn = _repeats(left, right, rows.same)
    if again.any():
        lines = [f"line {line}" for line in rows.line[again]]
        notes.append(
            f"{len(lines):,} rows repeat an earlier pair, and count again: {name_some(lines)}"
        )
    if torn.any():
        lines = [f"line {line}" for line in rows.line[torn]]
        notes.append(
            f"{len(lines):,} rows contradict others, or themselves, by pictures that are identical"
            f" at this size: {name_some(lines)}"
        )
    root = connected(len(rows.names), rows.left[rows.same], rows.right[rows.same])
    chained = (root[rows.left] == root[rows.right]) & ~rows.same
    if chained.any():
        lines = [f"line {line}" for line in rows.line[chained]]
        notes.append(
            f"{len(lines):,} rows call images different that other rows join by a chain of same"
            f" pairs: {name_some(lines)}"
        )
    for number, name in enumerate(SPLITS[1:], 1):
        ours, theirs = rows.split == number, rows.split < 1
        own = np.union1d(left[ours], right[ours])
        shared = np.intersect1d(own, np.union1d(left[theirs], right[theirs]))
        if len(shared):
            _, first = np.unique(picture, return_index=True)
            names = [rows.names[i] for i in first[shared]]
            notes.append(
                f"LEAK: {len(shared):,} of {len(own):,} pictures of the {name} pairs are in"
                f" training pairs too, so figures on them are too high: {name_some(names)}"
            )
    return notes


def divided(
    place: Path, rows: Rows, picture: np.ndarray, config: ConfigDict
) -> tuple[np.ndarray, list[str]]:
    """The split of each row, as an index into `SPLITS`, and notes."""
    share, seed = lookup(config, "data.holdout"), split_seed(config)
    split, notes = np.maximum(rows.split, 0), []
    unsaid = int((rows.split < 0).sum())
    if 0 < unsaid < len(split):
        notes.append(f"{unsaid:,} rows say no split: they are for training")
    if (split == 1).any():
        return split, notes
    if share == 0:
        if not (split == 2).any():
            raise ValueError(
                f"{place} has no validation and no test pairs, so config.data.holdout must be"
                " above 0: the share of its pairs that is held out for validation"
            )
        note = (
            "config.data.holdout = 0: the test pairs are the validation pairs, so the figures on"
            " them also choose the checkpoint and the threshold"
        )
        return np.where(split == 2, 1, split), [*notes, note]
    train = np.flatnonzero(split == 0)
    sides = picture[rows.left[train]], picture[rows.right[train]]
    held, note = _hold_out(*sides, rows.same[train], share, seed)
    split[train[held]] = 1
    return split, [*notes, note]


def _hold_out(
    left: np.ndarray, right: np.ndarray, same: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, str]:
    """Which pairs to hold out: sets of pairs that share no image with the rest, where it can be."""
    rng = np.random.default_rng([seed, 0x5917])
    n = int(max(left.max(initial=0), right.max(initial=0))) + 1
    wanted = max(share * len(left), 2)  # one pair of each kind
    islands = connected(n, left, right)[left]
    _, island, size = np.unique(islands, return_inverse=True, return_counts=True)
    order = rng.permutation(np.flatnonzero(size <= wanted))
    held = np.isin(island, order[np.cumsum(size[order]) <= wanted])
    count = f"held out for validation by seed {seed}: {{:,}} of {len(left):,} pairs"
    if held.sum() >= wanted / 2 and all(len(np.unique(same[side])) == 2 for side in (held, ~held)):
        return held, f"{count.format(held.sum())}, no image of which is in a training pair"
    held[:] = False
    for value in (True, False):
        rows = rng.permutation(np.flatnonzero(same == value))
        held[rows[: np.clip(round(share * len(rows)), 1, max(len(rows) - 1, 0))]] = True
    return held, (
        f"{count.format(held.sum())}, by pair, so images: seen (too few pairs share no image with"
        " the others; figures for new images will be lower)"
    )


def _parts(
    rows: Rows, images: LabelledImages, split: np.ndarray
) -> dict[str, tuple[LabelledImages, PairTable]]:
    """The images and pairs of each split that has any (training and validation in any case)."""
    root = connected(len(images), rows.left[rows.same], rows.right[rows.same])
    first, labels = np.unique(root, return_inverse=True)
    images = LabelledImages(
        images=images.images,
        labels=labels.astype(np.int32),
        groups=images.groups,
        drawers=images.drawers,
        class_names=tuple(rows.names[i] for i in first),
        paths=rows.names,
    )
    parts = {}
    for number, name in enumerate(SPLITS):
        chosen = split == number
        if name == "test" and not chosen.any():
            continue
        left, right = rows.left[chosen], rows.right[chosen]
        used = np.union1d(left, right)
        sides = (np.searchsorted(used, side).astype(np.int32) for side in (left, right))
        parts[name] = part(images, used), PairTable(*sides, same=rows.same[chosen])
    return parts


def write_pair_folder(
    out: Path, train: tuple[LabelledImages, int], test: tuple[LabelledImages, int], seed: int
) -> None:
    """Writes folders of two images with `annos.csv`, half of the pairs same, half different.

    `OUT/init_data/data/train/1/a.jpg`, `b.jpg`, ...; `.../test/481/a.jpg`, ...; and
    `OUT/init_data/data/annos.csv` with the columns `label,folder`. No pair occurs twice.

    Args:
        out: must not exist, or be empty.
        train: the images of the training pairs, and how many pairs.
        test: the images of the test pairs, and how many pairs.
        seed: of the pairs.

    Raises:
        ValueError: if `out` holds anything, or the images do not give so many pairs.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out} is there already and is not overwritten: give another folder")
    tables = [distinct(images.labels, seed, pairs) for images, pairs in (train, test)]
    out.parent.mkdir(parents=True, exist_ok=True)
    # All of it appears at once: half a folder would look like a whole one.
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        data = aside / "init_data" / "data"
        lines = ["label,folder"]
        for name, (images, _), table in zip(("train", "test"), (train, test), tables, strict=True):
            lines += _write_pairs(data, name, images, table, first=len(lines))
        (data / LABELS).write_text("\n".join(lines) + "\n")
        if out.exists():
            out.rmdir()
        os.chmod(aside, 0o755)
        os.rename(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_pairs(
    data: Path, name: str, images: LabelledImages, table: PairTable, first: int
) -> list[str]:
    from PIL import Image

    for number, sides in enumerate(zip(table.left, table.right, strict=True), first):
        folder = data / name / str(number)
        folder.mkdir(parents=True)
        for side, index in zip("ab", sides, strict=True):
            pixels = images.images[index]
            picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            picture.save(folder / f"{side}.jpg", quality=95, subsampling=0)
    return [f"{int(same)},{name}/{number}" for number, same in enumerate(table.same, first)]
