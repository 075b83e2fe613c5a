"""What any network has to beat: images compared by their pixels, or by the shape of their ink.

A baseline has the two methods of an encoder that one-shot trials and retrieval use, `embed` and
`score`. It has learned nothing, so it has no similarity in 0..1 and no threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from siamjax.types import typed

DARK = 128  # ink is what is darker; any value in 1..255 does for images of 0 and 255


@dataclass(frozen=True)
class Baseline:
    """A comparison that needs no training.

    Attributes:
        name: as in `BASELINES`.
        embed: `uint8 [n, h, w, c]` to `[n, d]`, each image once.
        score: rows `[m, d]` and `[m, d]` to `[m]`, large = alike.
    """

    name: str
    embed: Callable[[np.ndarray], np.ndarray]
    score: Callable[[np.ndarray, np.ndarray], np.ndarray]


@typed
def ink(images: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
    """How dark each pixel is, 0 white to 1 black, flattened.

    Of ink rather than of paper: images that are nearly all paper have a cosine of nearly 1.
    """
    flat = images.reshape(len(images), -1)
    return (255 - flat).astype(np.float32) / 255


def cosine_score(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The cosine of each row with its partner, 0 where either is empty."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.einsum("md,md->m", left, right) / np.maximum(norms, 1e-12)


def l2_score(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Minus the Euclidean distance of each row from its partner."""
    return -np.linalg.norm(left - right, axis=1)


@typed
def ink_points(images: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n d"]:
    """The coordinates of each image's ink pixels, centred on their mean.

    Args:
        images: dark ink on white; of several channels the mean counts.

    Returns:
        For each image its pixels' rows, then their columns, each padded with NaN to the most
        pixels that any image has: `float64 [n, 2 * most]`.

    Raises:
        ValueError: if an image has no ink.
    """
    dark = images.mean(3) < DARK
    counts = dark.sum((1, 2))
    if not counts.all():
        raise ValueError(
            f"{(counts == 0).sum():,} of {len(images):,} images have no ink (pixels darker than"
            f" {DARK}): the Hausdorff distance compares dark strokes on white paper"
        )
    points = np.full((len(images), 2, counts.max(initial=0)), np.nan)
    for row, image in zip(points, dark, strict=True):
        place = np.array(np.nonzero(image), np.float64)
        row[:, : place.shape[1]] = place - place.mean(1, keepdims=True)
    return points.reshape(len(images), -1)


def modified_hausdorff(a: Float[np.ndarray, "2 p"], b: Float[np.ndarray, "2 q"]) -> float:
    """How far two sets of points lie apart: the larger of the two mean nearest distances.

    `max(mean over a of its distance to b, mean over b of its distance to a)`

    Args:
        a: the coordinates of p points.
        b: of q points.

    Returns:
        A distance of 0 or more, in the unit of the points.

    Example:
        >>> modified_hausdorff(np.array([[0.0, 0.0], [0.0, 4.0]]), np.array([[0.0], [1.0]]))
        2.0

    References:
        Dubuisson and Jain, "A modified Hausdorff distance for object matching" (1994), eq. 6
        and 23 (their distance no. 22).
    """
    from scipy.spatial import KDTree  # comes with JAX

    to_b = KDTree(b.T).query(a.T)[0].mean()
    to_a = KDTree(a.T).query(b.T)[0].mean()
    return float(max(to_b, to_a))


def hausdorff_score(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Minus the modified Hausdorff distance of each row of `ink_points` from its partner."""
    return np.array(
        [-modified_hausdorff(_points(a), _points(b)) for a, b in zip(left, right, strict=True)]
    )


def _points(row: np.ndarray) -> np.ndarray:
    both = row.reshape(2, -1)
    return both[:, : both.shape[1] - np.isnan(both[0]).sum()]


BASELINES = {
    b.name: b
    for b in (
        Baseline("pixel-cosine", ink, cosine_score),
        Baseline("pixel-l2", ink, l2_score),
        Baseline("hausdorff", ink_points, hausdorff_score),
    )
}
