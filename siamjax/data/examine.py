"""Every image of a place opened once: what it is, and enough of it to find its like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from siamjax.data.decode import kind_of, open_image, quiet_threads, reason_of
from siamjax.data.duplicates import DIGEST, THUMB, Look, look
from siamjax.data.files import Read
from siamjax.preprocess import plain, turned_by_exif

BATCH = 256  # files whose bytes may be in memory at a time
# What Pillow calls a format, and the endings of its files.
ENDINGS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".pgm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}

Progress = Callable[[int, int], None]


class Facts(NamedTuple):
    """What a file says of its image, and a look at the pixels."""

    size: tuple[int, int]  # height, width
    kind: str
    format: str
    moves: bool  # has more frames than one
    turned: bool  # by its EXIF orientation
    look: Look


@dataclass
class Examined:
    """What was found in n files.

    Attributes:
        readable: `bool [n]`.
        faults: why the others are not, by place.
        digests: `[n]`, of the pixels.
        hashes: `uint64 [n]`.
        thumbs: `uint8 [n, 256]`.
        sizes: (height, width) and how many have it.
        kinds: "grey", "RGB", ... and how many are so.
        formats: of the files.
        misnamed: places of files whose ending is another format's.
        moving: places of animations and of files with several pages.
        turned: places of images that EXIF turns.
    """

    readable: np.ndarray
    digests: np.ndarray
    hashes: np.ndarray
    thumbs: np.ndarray
    faults: dict[int, str] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    misnamed: list[int] = field(default_factory=list)
    moving: list[int] = field(default_factory=list)
    turned: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, n: int) -> Examined:
        """Nothing known of n files yet."""
        return cls(
            readable=np.zeros(n, bool),
            digests=np.zeros(n, f"V{DIGEST}"),
            hashes=np.zeros(n, np.uint64),
            thumbs=np.zeros((n, THUMB * THUMB), np.uint8),
        )

    def add(self, i: int, path: str, found: Facts | str) -> None:
        """What was found in the i-th file: facts, or why there are none."""
        if isinstance(found, str):
            self.faults[i] = found
            return
        self.readable[i] = True
        self.digests[i] = np.void(found.look.digest)
        self.hashes[i] = found.look.hash
        self.thumbs[i] = found.look.thumb.reshape(-1)
        self.sizes[found.size] += 1
        self.kinds[found.kind] += 1
        self.formats[found.format] += 1
        if PurePosixPath(path).suffix.lower() not in ENDINGS.get(found.format, ()):
            self.misnamed.append(i)
        if found.moves:
            self.moving.append(i)
        if found.turned:
            self.turned.append(i)


def examine(read: Read, paths: Sequence[str], progress: Progress | None = None) -> Examined:
    """Opens every file once, in threads; of the pixels only a look stays in memory.

    Args:
        read: from a path to the file's bytes.
        paths: of the files.
        progress: told (files done, files) now and then.
    """
    examined = Examined.of(len(paths))
    with quiet_threads() as pool:
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            for i, found in enumerate(pool.map(lambda path: _facts(read, path), batch), start):
                examined.add(i, paths[i], found)
            if progress is not None:
                progress(start + len(batch), len(paths))
    return examined


def _facts(read: Read, path: str) -> Facts | str:
    try:
        with open_image(read(path)) as image:
            size, kind = (image.height, image.width), kind_of(image.mode)
            moves = bool(getattr(image, "is_animated", False))
            picture = plain(image)
            turned = turned_by_exif(image)
            return Facts(size, kind, image.format or "", moves, turned, look(picture))
    except Exception as error:  # whatever a damaged file provokes: it is named
        return reason_of(error)
