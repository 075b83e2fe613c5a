"""The file of a gallery: embeddings, names, labels and the run they belong to.

It is a safetensors file: eight bytes of length, a JSON header that names each array with its type,
shape and place, then the numbers. Nothing in it is ever executed, and no declared size is believed
before it agrees with the file's own.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamjax.models.safetensors_file import read_safetensors

FORMAT = "siamjax-gallery-1"
DIGEST = 32  # bytes of a SHA-256
MAX_ABOUT = 1 << 20  # bytes of JSON: a few lines
DTYPES = {"float32": "F32", "uint8": "U8"}


class GalleryError(ValueError):
    """A gallery's file is damaged or another run's, or a request does not fit the gallery."""


@dataclass(frozen=True)
class Stored:
    """What a gallery's file holds.

    Attributes:
        embeddings: `float32 [n, d]`.
        digests: a SHA-256 of each image.
        names: of the images, each once.
        labels: of the images, "" for none.
        about: `fingerprint` and `origin` of the run, and the `folder` that names are relative to.
    """

    embeddings: np.ndarray
    digests: list[bytes]
    names: list[str]
    labels: list[str]
    about: dict[str, str]


def write(path: str | os.PathLike[str], stored: Stored) -> None:
    """Writes beside the file, then takes its place: it is there whole, or as it was.

    Raises:
        GalleryError: if it cannot be written there.
    """
    path = Path(path)
    arrays = {
        "embeddings": np.ascontiguousarray(stored.embeddings, "<f4"),
        "digests": np.frombuffer(b"".join(stored.digests), np.uint8).reshape(-1, DIGEST),
        "names": _joined(stored.names),
        "labels": _joined(stored.labels),
        "about": np.frombuffer(json.dumps(stored.about).encode(), np.uint8),
    }
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT}}
    at = 0
    for name, array in arrays.items():
        shape, end = list(array.shape), at + array.nbytes
        header[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": shape,
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of eight
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for array in arrays.values():
                file.write(array.data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise GalleryError(f"the gallery cannot be written to {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # gone, if all went well
            temporary.unlink()


def read(path: str | os.PathLike[str]) -> Stored:
    """The inverse of `write`.

    Raises:
        GalleryError: if there is no such file, or it is damaged or something else.
    """
    try:
        return _read(Path(path))
    except FileNotFoundError as error:
        raise GalleryError(f"there is no gallery {path}; make one with build") from error
    except OSError as error:
        raise GalleryError(f"the gallery {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise GalleryError(f"{path} is not a whole gallery: {error}; build it again") from error


def _read(path: Path) -> Stored:
    if not path.stat().st_size:
        raise ValueError("it is empty")
    found = read_safetensors(path)
    wanted = {"embeddings": ("float32", 2), "digests": ("uint8", 2)}
    wanted |= dict.fromkeys(("names", "labels", "about"), ("uint8", 1))
    for name, (dtype, axes) in wanted.items():
        array = found.get(name)
        if array is None or array.dtype.name != dtype or array.ndim != axes:
            got = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"{name} should be {dtype} with {axes} axes; it has {got}")
    embeddings = np.array(found["embeddings"])  # a copy: the file may be replaced while in use
    n = len(embeddings)
    if found["digests"].shape != (n, DIGEST):
        raise ValueError(f"it has {n:,} embeddings but digests {list(found['digests'].shape)}")
    if not all(np.isfinite(row).all() for row in embeddings):
        raise ValueError("its embeddings are not finite")
    names, labels = (_split(name, found[name], n) for name in ("names", "labels"))
    if len(set(names)) < n or not all(names):
        raise ValueError("its names are not all different")
    digests = [row.tobytes() for row in found["digests"]]
    return Stored(embeddings, digests, names, labels, _about(found["about"]))


def _about(array: np.ndarray) -> dict[str, str]:
    if len(array) > MAX_ABOUT:
        raise ValueError(f"it says {len(array):,} bytes about itself, where a few lines belong")
    try:
        about = json.loads(array.tobytes())
        about = {key: about[key] for key in ("fingerprint", "origin", "folder")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("it does not say which run it belongs to") from error
    if not all(isinstance(value, str) for value in about.values()):
        raise ValueError("it does not say which run it belongs to")
    return about


def _joined(texts: list[str]) -> np.ndarray:
    """Texts in one array, each ended by a zero byte, which no file name has."""
    joined = "".join(f"{text}\0" for text in texts)
    return np.frombuffer(joined.encode("utf-8", "surrogateescape"), np.uint8)


def _split(name: str, array: np.ndarray, n: int) -> list[str]:
    # Counted before it is split: a million empty texts would take fifty times their file.
    if int((array == 0).sum()) != n or (n and array[-1]):
        raise ValueError(f"it has {n:,} embeddings but another number of {name}")
    return array.tobytes().decode("utf-8", "surrogateescape").split("\0")[:n]
