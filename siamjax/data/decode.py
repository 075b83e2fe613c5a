"""Files to pixels, many at a time, and a word on each file that would not."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from siamjax.data.cache import Collected, Entry, Write
from siamjax.data.files import Read
from siamjax.data.splits import name_some
from siamjax.preprocess import Preprocess

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
BATCH = 1024  # files decoded before their pixels are written: bounds the memory
LARGE = 1 << 24  # pixels of an image that is unpacked alone, whatever the number of threads
KINDS = {
    "1": "1-bit",
    "L": "grey",
    "P": "palette",
    "LA": "grey with opacity",
    "I": "16-bit grey",
    "F": "float",
}


def kind_of(mode: str) -> str:
    """A mode of Pillow's in words."""
    return "16-bit grey" if mode.startswith("I;16") else KINDS.get(mode, mode)


@dataclass
class PixelFacts:
    """Sizes and kinds of images met, for the summary."""

    sizes: set[tuple[int, int]] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, size: tuple[int, int], mode: str) -> None:
        """Counts an image of `size` (height, width) and Pillow mode `mode`."""
        self.sizes.add(size)
        self.kinds[kind_of(mode)] += 1

    def __str__(self) -> str:
        if not self.sizes:
            return ""
        by_area = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
        ends = [f"{h}×{w}" for h, w in dict.fromkeys((by_area[0], by_area[-1]))]
        return f"{' to '.join(ends)}, {' and '.join(k for k, _ in self.kinds.most_common())}"


@dataclass(frozen=True)
class _Outcome:
    pixels: np.ndarray | None
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    moves: bool = False
    fault: str = ""


_ALONE = threading.Lock()


@contextlib.contextmanager
def open_image(data: bytes) -> Iterator[Image.Image]:
    """An image from a file's bytes, refused before a pixel is unpacked if there are too many.

    While it is open a large image keeps other large ones waiting, so memory is that of one.

    Raises:
        ValueError: if it has more pixels than Pillow's limit.
        Exception: whatever a damaged file provokes in Pillow, also later, in the `with` block.
    """
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        # Pillow itself only warns up to twice its limit, and then unpacks.
        if width * height > (Image.MAX_IMAGE_PIXELS or float("inf")):
            raise ValueError(f"{height}×{width} is more than Pillow's limit of pixels")
        with _ALONE if width * height > LARGE else contextlib.nullcontext():
            yield image


@contextlib.contextmanager
def quiet_threads() -> Iterator[ThreadPoolExecutor]:
    """Threads for Pillow to decode in, without its remarks on sloppy metadata, a line a file."""
    from PIL import Image

    Image.init()  # its plugins load here, once, rather than in every thread
    with warnings.catch_warnings(), ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        warnings.filterwarnings("ignore", module=r"PIL\.", category=UserWarning)
        # `open_image` checks the size.
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        yield pool


def reason_of(error: Exception) -> str:
    """What is wrong with a file, in a line."""
    text = str(error).strip().split("\n")[0]
    # Pillow says which BytesIO it was, which helps nobody.
    text = text.split(" <_io.BytesIO")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def decode_files(
    read: Read, entries: Sequence[Entry], preprocess: Preprocess, write: Write
) -> Collected:
    """Decodes and preprocesses files in threads (Pillow lets them run side by side).

    Args:
        read: from a path to the file's bytes.
        entries: the files, in the order wanted.
        preprocess: what is done to each.
        write: called with the pixels of each image that could be read, in order.

    Returns:
        The entries of the images written, notes about the others, and what the files held.

    Raises:
        ValueError: if not one image could be read.
    """
    kept: list[Entry] = []
    faults: list[str] = []
    moving: list[str] = []
    facts = PixelFacts()
    with contextlib.closing(_outcomes(read, entries, preprocess)) as outcomes:
        for entry, outcome in zip(entries, outcomes, strict=True):
            if outcome.pixels is None:
                faults.append(f"{entry.path} ({outcome.fault})")
                continue
            write(outcome.pixels)
            kept.append(entry)
            facts.add(outcome.size, outcome.mode)
            if outcome.moves:
                moving.append(entry.path)
    if not kept:
        raise ValueError(f"none of {len(entries):,} images could be read: {name_some(faults)}")
    notes = []
    if faults:
        notes.append(
            f"{len(faults):,} of {len(entries):,} images could not be read and are left out:"
            f" {name_some(faults)}"
        )
        before, after = ({e.class_name for e in some} for some in (entries, kept))
        if lost := sorted(before - after):
            notes.append(f"{len(lost):,} classes have no readable image: {name_some(lost)}")
    if moving:
        notes.append(
            f"{len(moving):,} images have several frames or pages, of which the first is used:"
            f" {name_some(moving)}"
        )
    return Collected(kept, notes, str(facts))


def _outcomes(
    read: Read, entries: Sequence[Entry], preprocess: Preprocess
) -> Generator[_Outcome, None, None]:
    with quiet_threads() as pool:
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            yield from pool.map(lambda entry: _decode(read, entry.path, preprocess), batch)


def _decode(read: Read, path: str, preprocess: Preprocess) -> _Outcome:
    try:
        with open_image(read(path)) as image:
            size, mode = (image.height, image.width), image.mode
            moves = getattr(image, "is_animated", False)
            return _Outcome(preprocess(image), size, mode, moves)
    except Exception as error:  # whatever a damaged file provokes: it is named, and left out
        return _Outcome(None, fault=reason_of(error))
