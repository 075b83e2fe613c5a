"""Decoded images, kept: the first start decodes, every later one maps the pixels into memory.

Beside each other in the cache directory lie `NAME-KEY.npy`, the pixels `uint8 [n, h, w, c]`, and
`NAME-KEY.json`, all else. The key is a digest of the source files, the preprocessing and the
format of the cache, so nothing has to be cleared by hand when any of them changes; deleting the
directory is always safe.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from siamjax.config import ConfigDict
from siamjax.config_faults import lookup
from siamjax.preprocess import Preprocess
from siamjax.types import LabelledImages

FORMAT = 1  # raised when the files' meaning, or how pixels are made, changes
CHUNK = 1 << 26  # bytes under one checksum
STALE = 24 * 3600  # seconds after which a half-built file is a dead process's
SPLITS = ("train", "validation", "test")


class Entry(NamedTuple):
    """One image as its source describes it."""

    path: str
    class_name: str
    group_name: str = "all"
    drawer: int = -1
    split: str = ""  # one of SPLITS, or "" where the source does not divide its images


@dataclass(frozen=True)
class Decoded:
    """All images of one source.

    Attributes:
        images: in the order in which the source gave them.
        split: `[n]`, the split of each image as the source has it, or "".
        notes: sentences for the user.
        pixels: what the files held ("105×105, 1-bit").
        key: the digest under which they are cached.
    """

    images: LabelledImages
    split: np.ndarray
    notes: tuple[str, ...]
    pixels: str
    key: str


class Collected(NamedTuple):
    """What `collect` returns once it has written every image."""

    entries: Sequence[Entry]  # one for each image written, in the same order
    notes: Sequence[str]
    pixels: str


Write = Callable[[np.ndarray], None]
Collect = Callable[[Write], Collected]


def cache_directory(config: ConfigDict) -> Path:
    """`config.data.cache_dir`, else the user's: `$XDG_CACHE_HOME/siamjax` or `~/.cache/siamjax`."""
    if chosen := lookup(config, "data.cache_dir"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "siamjax"


def cache_key(source: str, fingerprint: str, preprocess: Preprocess) -> str:
    """The digest of a source's files and of how they are read and preprocessed."""
    parts = [FORMAT, source, fingerprint, preprocess.to_dict()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cached(
    directory: Path, name: str, key: str, preprocess: Preprocess, collect: Collect
) -> Decoded:
    """The images under `key`: from the cache, or from `collect` and then into the cache.

    Every file appears whole or not at all (written aside, then renamed), so two processes may
    build at once. What is read is checked against checksums; a damaged file is built again. Where
    the directory cannot be written the images stay in memory and a note says so.

    Args:
        directory: made if it is not there.
        name: a word for people who look into the directory.
        key: as of `cache_key`.
        preprocess: gives the shape of an image.
        collect: is given a function that appends one image `uint8 [h, w, c]`, calls it for each,
            and returns one entry for each call. May be called a second time.

    Returns:
        The images as a read-only memory map, and what goes with them.
    """
    place = directory / f"{name}-{key[:16]}.npy"
    found, damage = _read(place, key)
    if found is not None:
        return found
    shape = (*preprocess.size, preprocess.channels)
    try:
        _build(place, key, shape, collect)
        found, _ = _read(place, key)
    except OSError as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        reason = "the files just written do not read back"
    if found is None:
        note = (
            f"decoded images are kept in memory only, not cached: {directory} could not be written"
            f" ({reason}); set config.data.cache_dir to a folder that can"
        )
        found = _in_memory(key, shape, collect)
        return replace(found, notes=(*found.notes, note))
    if damage:
        note = f"the cached images {place} were damaged ({damage}) and have been decoded again"
        return replace(found, notes=(*found.notes, note))
    return found


def _build(place: Path, key: str, shape: tuple[int, ...], collect: Collect) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    _sweep(place.parent)
    aside = place.parent / f".building-{uuid.uuid4().hex}"
    pixels, sidecar = aside.with_suffix(".npy"), aside.with_suffix(".json")
    try:
        with pixels.open("xb") as stream:
            collected = _write_images(stream, shape, collect)
        content = {
            "key": key,
            "shape": [len(collected.entries), *shape],
            "checksums": _checksums(np.load(pixels, mmap_mode="r")),
            **asdict(_Table.of(collected)),
        }
        sidecar.write_text(json.dumps({"check": _check(content), "content": content}))
        # The sidecar comes last: who finds one finds the pixels it speaks of.
        os.replace(pixels, place)
        os.replace(sidecar, place.with_suffix(".json"))
    finally:
        for left in (pixels, sidecar):
            left.unlink(missing_ok=True)


def _sweep(directory: Path) -> None:
    """Removes what killed processes left half-built."""
    for left in directory.glob(".building-*"):
        with contextlib.suppress(OSError):  # another process may be sweeping too
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink()


def _in_memory(key: str, shape: tuple[int, ...], collect: Collect) -> Decoded:
    stream = io.BytesIO()
    collected = _write_images(stream, shape, collect)
    flat = np.frombuffer(stream.getbuffer(), np.uint8, offset=len(_header(0, shape)))
    images = flat.reshape(len(collected.entries), *shape)
    images.setflags(write=False)
    return _Table.of(collected).decoded(images, key)


def _write_images(stream: IO[bytes], shape: tuple[int, ...], collect: Collect) -> Collected:
    stream.write(_header(0, shape))
    count = 0

    def write(image: np.ndarray) -> None:
        nonlocal count
        assert image.shape == shape
        assert image.dtype == np.uint8
        stream.write(np.ascontiguousarray(image).data)
        count += 1

    collected = collect(write)
    assert count == len(collected.entries)
    stream.seek(0)
    stream.write(_header(count, shape))
    return collected


def _header(count: int, shape: tuple[int, ...]) -> bytes:
    """An .npy header; NumPy pads it so that its length does not depend on `count`."""
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _read(place: Path, key: str) -> tuple[Decoded | None, str]:
    """What is cached, or None and what is wrong with it ("" where there is simply nothing)."""
    sidecar = place.with_suffix(".json")
    if not (place.is_file() and sidecar.is_file()):
        return None, ""
    try:
        saved = json.loads(sidecar.read_text())
        content = saved["content"]
        if saved["check"] != _check(content) or content["key"] != key:
            return None, f"{sidecar.name} was altered"
        images = np.load(place, mmap_mode="r", allow_pickle=False)
        if images.dtype != np.uint8 or list(images.shape) != content["shape"]:
            return None, f"holds {images.dtype} {list(images.shape)}, not {content['shape']}"
        if _checksums(images) != content["checksums"]:
            return None, "its checksum is not the one written"
        fields = {name: content[name] for name in _Table.__dataclass_fields__}
        return _Table(**fields).decoded(np.asarray(images), key), ""
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        return None, f"{type(error).__name__}: {error}"


def _checksums(images: np.ndarray) -> list[int]:
    flat = images.reshape(-1)
    chunks = [flat[i : i + CHUNK] for i in range(0, len(flat), CHUNK)]
    with ThreadPoolExecutor() as pool:  # crc32 lets other threads run
        return list(pool.map(zlib.crc32, chunks))


def _check(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Table:
    """All that is known of the images beside their pixels, as JSON can hold it."""

    labels: list[int]
    groups: list[int]
    drawers: list[int]
    class_names: list[str]
    group_names: list[str]
    paths: list[str]
    split: list[str]
    notes: list[str]
    pixels: str

    @classmethod
    def of(cls, collected: Collected) -> _Table:
        # Numbered in the order of first appearance, which is the source's own order.
        entries = collected.entries
        classes = {name: i for i, name in enumerate(dict.fromkeys(e.class_name for e in entries))}
        groups = {name: i for i, name in enumerate(dict.fromkeys(e.group_name for e in entries))}
        return cls(
            labels=[classes[e.class_name] for e in entries],
            groups=[groups[e.group_name] for e in entries],
            drawers=[e.drawer for e in entries],
            class_names=list(classes),
            group_names=list(groups),
            paths=[e.path for e in entries],
            split=[e.split for e in entries],
            notes=list(collected.notes),
            pixels=collected.pixels,
        )

    def decoded(self, images: np.ndarray, key: str) -> Decoded:
        labelled = LabelledImages(
            images=images,
            labels=np.array(self.labels, np.int32),
            groups=np.array(self.groups, np.int32),
            drawers=np.array(self.drawers, np.int32),
            class_names=tuple(self.class_names),
            group_names=tuple(self.group_names),
            paths=tuple(self.paths),
        )
        return Decoded(labelled, np.array(self.split, "<U10"), tuple(self.notes), self.pixels, key)
