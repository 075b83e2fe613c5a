"""Which images are the same picture, or nearly so, among very many.

Two rules. Exact: equal pixels, upright, in 8 bits, on white paper, whatever their files' format.
Near: a perceptual hash of 64 bits that differs in at most 4, and grey thumbnails of 16×16 that
correlate by at least 0.99. Near finds pictures that were compressed, resized or lightened anew, not
cut, turned or mirrored ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8, UInt64

from siamjax.data.pair_schemes import connected
from siamjax.types import typed

if TYPE_CHECKING:
    from PIL import Image

DIGEST = 16  # bytes
THUMB = 16  # pixels of a side
DISTANCE = 4  # bits that may differ
CORRELATION = 0.99
FLAT = 1.0  # grey levels of spread below which a thumbnail is one grey, and nothing correlates
NEIGHBOURS = 1000  # of one band, compared with an image at most: bounds the time
MAX_PAIRS = 1_000_000  # bounds the memory
_HASHED, _FREQUENCIES = 32, 8


class Look(NamedTuple):
    """What is kept of a picture.

    Attributes:
        digest: of its pixels.
        hash: 64 bits that a new compression hardly changes.
        thumb: `uint8 [16, 16]`.
    """

    digest: bytes
    hash: int
    thumb: np.ndarray


def look(picture: Image.Image) -> Look:
    """What is kept of a picture as `siamjax.preprocess.plain` makes it."""
    from PIL import Image

    grey = picture.convert("L")
    colours = picture.convert("RGB")
    digest = hashlib.blake2b(f"{colours.size}".encode(), digest_size=DIGEST)
    digest.update(colours.tobytes())
    bilinear = Image.Resampling.BILINEAR
    small = np.asarray(grey.resize((_HASHED, _HASHED), bilinear))
    thumb = np.asarray(grey.resize((THUMB, THUMB), bilinear))
    return Look(digest.digest(), perceptual_hash(small), thumb)


@typed
def perceptual_hash(grey: UInt8[np.ndarray, "32 32"]) -> int:
    """The signs of the 8×8 lowest frequencies of a cosine transform against their median.

    Half of the bits are set whatever the picture shows, so hashes of sparse drawings are spread as
    evenly as those of photographs.

    References:
        Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010),
        section 3.2.1.
    """
    place = np.arange(_HASHED)
    cosines = np.cos(np.pi * (2 * place + 1) * np.arange(_FREQUENCIES)[:, None] / (2 * _HASHED))
    # Rounded: what is zero in theory should not be a random bit.
    strength = np.round(cosines @ (grey - grey.mean()) @ cosines.T, 3).reshape(-1)
    bits = strength > np.median(strength)
    return int(np.packbits(bits).view(">u8")[0])


def exact_groups(digests: np.ndarray) -> list[np.ndarray]:
    """The places of equal digests, for each that occurs more than once, in order."""
    _, first, number = np.unique(digests, return_index=True, return_inverse=True)
    return groups_of(first[number])


def groups_of(leader: Int[np.ndarray, "n"]) -> list[np.ndarray]:
    """The places that share a leader, for each with more than one.

    Example:
        >>> [group.tolist() for group in groups_of(np.array([0, 1, 0, 3, 1]))]
        [[0, 2], [1, 4]]
    """
    order = np.argsort(leader, kind="stable")
    starts = np.flatnonzero(np.diff(leader[order], prepend=-1))
    return [group for group in np.split(order, starts[1:]) if len(group) > 1]


@typed
def near_groups(
    hashes: UInt64[np.ndarray, "n"], thumbs: UInt8[np.ndarray, "n t"]
) -> tuple[list[np.ndarray], bool]:
    """Groups of nearly equal images: each is near to another one of its group.

    Not every pair is compared. Hashes that differ in at most 4 bits agree in one of 5 bands of
    bits at least, so only images of a common band meet.

    Args:
        hashes: of images whose pixels all differ.
        thumbs: their thumbnails, flat.

    Returns:
        The groups, and whether all were found: where more than 1,000 images share a band each is
        compared with the next 1,000 only, and after a million pairs nothing more is looked for.
    """
    n = len(hashes)
    if n < 2:
        return [], True
    left, right, found, whole = [np.zeros(0, int)], [np.zeros(0, int)], 0, True
    edges = np.linspace(0, 64, DISTANCE + 2).astype(int)
    for low, high in pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.lexsort((hashes, band))
        for a, b in _meetings(band[order]):
            a, b = order[a], order[b]
            near = np.bitwise_count(hashes[a] ^ hashes[b]) <= DISTANCE
            a, b = a[near], b[near]
            near = _alike(thumbs, a, b)
            left.append(a[near])
            right.append(b[near])
            found += int(near.sum())
            if found > MAX_PAIRS:
                whole = False
                break
        whole &= bool(np.unique(band, return_counts=True)[1].max() <= NEIGHBOURS + 1)
    leader = connected(n, np.concatenate(left), np.concatenate(right))
    return groups_of(leader), whole


def _meetings(band: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places `(a, b)` of equal neighbours in a sorted array: one step apart, then two, ..."""
    a = np.arange(len(band))
    for step in range(1, NEIGHBOURS + 1):
        a = a[a + step < len(band)]
        a = a[band[a] == band[a + step]]
        if not len(a):
            return
        yield a, a + step


def _alike(thumbs: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which pairs of thumbnails correlate, a stretch of them in memory at a time."""
    parts = [np.zeros(0, bool)]
    for start in range(0, len(a), 1 << 14):
        rows = slice(start, start + (1 << 14))
        x, y = (thumbs[side[rows]].astype(np.float32) for side in (a, b))
        apart = np.abs(x.mean(1) - y.mean(1))
        x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
        spread = x.std(1), y.std(1)
        flat = np.minimum(*spread) < FLAT
        with np.errstate(invalid="ignore", divide="ignore"):
            together = (x * y).mean(1) / (spread[0] * spread[1])
        both_flat = (np.maximum(*spread) < FLAT) & (apart < FLAT)
        parts.append(np.where(flat, both_flat, together >= CORRELATION))
    return np.concatenate(parts)
