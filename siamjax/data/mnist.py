"""Handwritten digits: MNIST from its four IDX files, and scikit-learn's small bundled set."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from siamjax.config import ConfigDict
from siamjax.data.cache import Collected, Entry, Write, cache_directory, cache_key, cached
from siamjax.data.download import MNIST, fetch
from siamjax.data.splits import DataNotFound, data_root, divide, refuse_drawer_split, summarise
from siamjax.preprocess import Preprocess, preprocess_of
from siamjax.types import DataSplits, LabelledImages

FILES = tuple(MNIST.files)
CONTENT = "b0a92ac949b524dc495d183d4db7d10d40dd1c34e6b3b81d73d9019348f1eb32"  # `_digest` of MNIST
FOLDERS = ("", "mnist", "MNIST/raw")  # the last: as torchvision lays it out
MAX_BYTES = 1 << 30  # of one file, unpacked
DIGITS_TEST = 360  # the last images of scikit-learn's digits: it has no split of its own


def mnist(config: ConfigDict) -> DataSplits:
    """MNIST: 60,000 training and 10,000 test images of the digits 0 to 9, 28×28, ink white.

    Looks for the four IDX files, as `.gz` or unpacked, in the data directory, its `mnist/` and
    its `MNIST/raw/`; downloads those that are missing (11 MiB). The test images are the test, and
    validation is held out of the training images; with `config.data.holdout = 0`, as most
    tutorials have it, all 60,000 are for training and the test images validate.

    Other data under the same file names (Fashion-MNIST, say) are read as well, and not called
    MNIST. Nothing is cached, except where the images have to be resized.

    Args:
        config: reads `data.dir`, `data.holdout`, `data.cache_dir`, the preprocessing and the seed
            of the split.

    Returns:
        The splits. Classes are seen: every digit occurs in all of them.

    Raises:
        DataNotFound: if files are not here and could not be downloaded.
        ValueError: if a file is damaged, or is not what its name says.

    References:
        LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
        Proceedings of the IEEE (1998).
    """
    refuse_drawer_split(config)
    root, spare = data_root(config), cache_directory(config)
    places, fetched = fetch(MNIST, root, spare, {**find(spare), **find(root)})
    arrays = {name: read_idx(places[name]) for name in FILES}
    pixels, labels, split = _joined(arrays, places)
    digest = _digest(arrays)
    preprocess = preprocess_of(config)
    key = cache_key("mnist", digest, preprocess)
    entries = [
        Entry(f"{s}/{i}", str(label), split=s)
        for s in ("train", "test")
        for i, label in enumerate(labels[split == s])
    ]
    images = _labelled(_preprocessed(pixels, preprocess, config, key, entries), labels, entries)
    name, notes = "mnist", []
    if digest != CONTENT:
        folder = places["train-images-idx3-ubyte"].resolve().parent
        name = f"idx:{folder.name}"
        notes.append(f"NOT MNIST: the files in {folder} have its names, but other content")
    train, validation, test, told = divide(images, split, config)
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        name=name,
        summary=summarise([images], f"{pixels.shape[1]}×{pixels.shape[2]}, grey", groups=False),
        notes=(*fetched, *notes, *told),
        fingerprint=key,
    )


def digits(config: ConfigDict) -> DataSplits:
    """scikit-learn's bundled digits: 1,797 images, 8×8 in 17 greys, ink white. They are not MNIST.

    They need no download, so they can stand in for MNIST (`config.data.fallback = "digits"`). The
    set has no split of its own: its last 360 images are the test, and what is said of validation
    for `mnist` holds here too.

    Args:
        config: reads `data.holdout`, the preprocessing and the seed of the split.

    Returns:
        The splits, all images enlarged (or reduced) to `config.data.size`.

    Raises:
        DataNotFound: if scikit-learn is not installed.
    """
    refuse_drawer_split(config)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataNotFound(
            'the source "digits" is part of scikit-learn, which is not installed:'
            " pip install scikit-learn"
        ) from error
    bunch: Any = load_digits()
    preprocess = preprocess_of(config)
    small = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    key = cache_key("digits", hashlib.sha256(small.tobytes()).hexdigest(), preprocess)
    split = np.full(len(small), "train", "<U10")
    split[-DIGITS_TEST:] = "test"
    entries = [Entry(str(i), str(label)) for i, label in enumerate(bunch.target)]
    pixels = np.stack([preprocess(image) for image in small])
    images = _labelled(pixels, bunch.target, entries)
    train, validation, test, notes = divide(images, split, config)
    size = "×".join(map(str, preprocess.size))
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        name="digits",
        summary=summarise([images], "8×8, grey (scikit-learn's digits, not MNIST)", groups=False),
        notes=(f"scikit-learn's digits, 8×8, brought to {size}: not MNIST", *notes),
        fingerprint=key,
    )


def find(root: Path) -> dict[str, Path]:
    """The IDX files under `root` by name: "train-images-idx3-ubyte", ..."""
    found = {}
    for name in FILES:
        for folder in FOLDERS:
            # "train-images.idx3-ubyte" is how some archives spell it.
            for spelling in (name, name.replace("-idx", ".idx")):
                for place in (root / folder / f"{spelling}.gz", root / folder / spelling):
                    if name not in found and place.is_file():
                        found[name] = place
    return found


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Reads an IDX file of bytes, gzipped or not; memory is bounded by what its header promises.

    The format: two zero bytes, the type (8: unsigned bytes), the number of dimensions, each
    dimension as 4 bytes, most significant first; then the values.

    Raises:
        ValueError: if the header is not IDX's, or more or fewer bytes follow than it promises.
    """
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"  # whatever the name says: some browsers unpack
    try:
        with gzip.open(path) if zipped else path.open("rb") as stream:
            magic = stream.read(4)
            if len(magic) < 4 or magic[:3] != b"\0\0\x08" or magic[3] not in (1, 3):
                raise ValueError(
                    f"{path} is not an IDX file of bytes: it begins with {magic.hex(' ')}, not with"
                    " 00 00 08 01 (labels) or 00 00 08 03 (images)"
                )
            header = stream.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise ValueError(f"{path} ends within its header: fetch it again")
            shape = struct.unpack(f">{magic[3]}I", header)
            size = math.prod(shape)
            if size > MAX_BYTES:
                raise ValueError(f"{path} says it holds {size:,} bytes; at most {MAX_BYTES:,} pass")
            values = stream.read(size)
            if len(values) < size or stream.read(1):
                found = f"{len(values):,}" if len(values) < size else "more"
                raise ValueError(
                    f"{path} should hold {size:,} bytes ({'×'.join(map(str, shape))}) after its"
                    f" header, but holds {found}: fetch it again"
                )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path} is not a whole gzip file ({error}); it may be an interrupted download: delete"
            " it, and it is fetched again"
        ) from error
    return np.frombuffer(values, np.uint8).reshape(shape)


def _joined(
    arrays: Mapping[str, np.ndarray], places: Mapping[str, Path]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All images, their labels and their splits."""
    names = list(FILES)
    for images, labels in (names[:2], names[2:]):
        a, b = arrays[images], arrays[labels]
        if a.ndim != 3 or b.ndim != 1 or len(a) != len(b) or a.size == 0:
            raise ValueError(
                f"{places[images]} ({'×'.join(map(str, a.shape))}) and {places[labels]}"
                f" ({'×'.join(map(str, b.shape))}) do not belong together: expected n×28×28 images"
                " and n labels"
            )
    train, test = arrays[names[0]], arrays[names[2]]
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"training images are {train.shape[1:]}, test images {test.shape[1:]}: the files in"
            f" {places[names[0]].parent} are of different data sets"
        )
    split = np.repeat(np.array(["train", "test"], "<U10"), [len(train), len(test)])
    labels = np.concatenate([arrays[names[1]], arrays[names[3]]])
    return np.concatenate([train, test])[..., None], labels, split


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(f"{name} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()


def _preprocessed(
    pixels: np.ndarray, preprocess: Preprocess, config: ConfigDict, key: str, entries: list[Entry]
) -> np.ndarray:
    if pixels.shape[1:3] == preprocess.size:  # what `preprocess` would do to each, all at once
        pixels = 255 - pixels if preprocess.invert else pixels
        return np.repeat(pixels, preprocess.channels, -1) if preprocess.channels > 1 else pixels

    def collect(write: Write) -> Collected:
        for image in pixels:
            write(preprocess(image))
        return Collected(entries, [], "")

    return cached(cache_directory(config), "mnist", key, preprocess, collect).images.images


def _labelled(pixels: np.ndarray, labels: np.ndarray, entries: list[Entry]) -> LabelledImages:
    n = len(pixels)
    return LabelledImages(
        images=pixels,
        labels=labels.astype(np.int32),
        groups=np.zeros(n, np.int32),
        drawers=np.full(n, -1, np.int32),
        class_names=tuple(str(i) for i in range(int(labels.max()) + 1)),
        paths=tuple(entry.path for entry in entries),
    )
