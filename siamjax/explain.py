"""Where does the network look? Maps of what two images' similarity hangs on, for both of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from siamjax import backend
from siamjax.inference import Comparator
from siamjax.types import Distance, typed

if TYPE_CHECKING:
    from siamjax.inference import OneImage

BATCH = 64  # occluded images in one call


class Maps(NamedTuple):
    """A map for each image of a pair, `float32 [h, w]`, as large as what the tower sees."""

    left: np.ndarray
    right: np.ndarray


def occlusion_map(
    comparator: Comparator,
    left: OneImage,
    right: OneImage,
    *,
    patch: int | None = None,
    stride: int | None = None,
    batch: int = BATCH,
) -> Maps:
    """How much of the score goes when a patch of one image is covered with its background.

    A square slides over one image while the other stays whole. A pixel's value is the mean, over
    the squares that cover it, of the score of the whole pair minus that of the covered one: above
    0, what lies there makes the two alike; below 0, it tells them apart. The score is the head's
    logit or negated distance, which does not saturate as similarity does.

    Args:
        comparator: of a run.
        left: a path, an array or a PIL image.
        right: another.
        patch: side of the square in pixels of the tower; None: a sixth of the shorter side.
        stride: pixels from one square to the next; None: a third of the patch.
        batch: covered images in one call.

    Raises:
        ValueError: if an image cannot be read, or the patch or stride does not fit.

    References:
        Zeiler and Fergus, "Visualizing and understanding convolutional networks" (2014).
    """
    a, b = comparator.pixels(left), comparator.pixels(right)
    patch, stride = patch_and_stride(a.shape[:2], patch, stride)
    za, zb = comparator.encoder.embed(np.stack([a, b]))
    whole = float(comparator.encoder.score(za[None], zb[None])[0])
    noise = 1e-6 * max(1.0, abs(whole))  # float32 cannot tell less from nothing

    def one(image: np.ndarray, other: np.ndarray, first: bool) -> np.ndarray:
        total, count = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
        for corners, covered in _covered(image, patch, stride, batch):
            z = comparator.encoder.embed(covered)
            pair = (z, np.broadcast_to(other, z.shape))
            scores = comparator.encoder.score(*(pair if first else pair[::-1]))
            for (y, x), score in zip(corners, scores, strict=True):
                loss = whole - float(score)
                total[y : y + patch, x : x + patch] += loss if abs(loss) > noise else 0.0
                count[y : y + patch, x : x + patch] += 1
        return (total / count).astype(np.float32)

    return Maps(one(a, zb, True), one(b, za, False))


def patch_and_stride(
    size: tuple[int, ...], patch: int | None = None, stride: int | None = None
) -> tuple[int, int]:
    """The sizes given, or those that suit the image.

    Raises:
        ValueError: if the patch does not fit into the image, or squares would leave gaps.

    Example:
        >>> patch_and_stride((105, 105)), patch_and_stride((28, 28)), patch_and_stride((105, 90), 9)
        ((17, 5), (4, 1), (9, 3))
    """
    shorter = min(size)
    patch = max(1, shorter // 6) if patch is None else patch
    stride = max(1, patch // 3) if stride is None else stride
    if not 1 <= patch <= shorter:
        raise ValueError(f"the patch must have 1 to {shorter} pixels, as the image; got {patch}")
    if not 1 <= stride <= patch:
        raise ValueError(f"the stride must be 1 to {patch}, the patch, or leave gaps; got {stride}")
    return patch, stride


@typed
def background(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "c"]:
    """The colour of an image's border: the median of its outermost pixels.

    Example:
        >>> page = np.full((5, 5, 1), 250, np.uint8)
        >>> page[1:4, 2] = 0
        >>> background(page).tolist()
        [250]
    """
    edges = [image[0], image[-1], image[:, 0], image[:, -1]]
    return np.median(np.concatenate(edges), 0).astype(np.uint8)


def _covered(
    image: np.ndarray, patch: int, stride: int, batch: int
) -> Iterator[tuple[list[tuple[int, int]], np.ndarray]]:
    """Batches of copies of an image, each with a square covered, and where."""
    places = [sorted({*range(0, s - patch, stride), s - patch}) for s in image.shape[:2]]
    corners = [(y, x) for y in places[0] for x in places[1]]
    colour = background(image)
    for start in range(0, len(corners), batch):
        part = corners[start : start + batch]
        covered = np.repeat(image[None], len(part), 0)
        for copy, (y, x) in zip(covered, part, strict=True):
            copy[y : y + patch, x : x + patch] = colour
        yield part, covered


def gradient_map(
    comparator: Comparator, left: OneImage, right: OneImage, *, smooth: float = 1.0
) -> Maps:
    """How fast the score changes with each pixel: `|d score / d pixel|`, summed over channels.

    Args:
        comparator: of a run.
        left: a path, an array or a PIL image.
        right: another.
        smooth: standard deviation in pixels of the Gaussian that the map is smoothed with; 0: raw.

    Returns:
        Maps at least 0, in score for a change of a pixel from black to white. All 0 where the two
        embeddings are equal: a distance has its minimum there, its slope is 0, and what is
        computed for it is rounding.

    Raises:
        ValueError: if an image cannot be read, or `smooth` is below 0.

    References:
        Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks: visualising image
        classification models and saliency maps" (2014).
    """
    if not smooth >= 0:
        raise ValueError(f"smooth is a standard deviation in pixels, at least 0; got {smooth}")
    images = np.stack([comparator.pixels(left), comparator.pixels(right)])
    za, zb = comparator.encoder.embed(images)
    if np.abs(za - zb).max() <= 1e-6 * np.abs(za).max():
        zero = np.zeros(images.shape[1:3], np.float32)
        return Maps(zero, zero.copy())
    pixels = [image[None] / np.float32(255) for image in images]
    model: Any = comparator.encoder.model
    weights = comparator.encoder.weights

    def score(a: jax.Array, b: jax.Array) -> jax.Array:
        z = [model.apply(weights, x, method="embed") for x in (a, b)]
        output = model.apply(weights, *z, method="compare")
        return (-output.value if isinstance(output, Distance) else output.value).sum()

    slopes = backend.jit(jax.grad(score, (0, 1)))(*pixels)
    raw = [np.asarray(jnp.abs(slope[0]).sum(-1), np.float32) for slope in slopes]
    return Maps(*(_smoothed(slope, smooth) for slope in raw))


@typed
def _smoothed(map_: Float[np.ndarray, "h w"], sigma: float | int) -> Float[np.ndarray, "h w"]:
    """A Gaussian blur; at the border it weighs what there is."""
    if sigma == 0:
        return map_
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)

    def blurred(values: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            values = np.apply_along_axis(
                lambda line: np.convolve(line, kernel)[reach : reach + len(line)], axis, values
            )
        return values

    wide = map_.astype(np.float64)
    return (blurred(wide) / blurred(np.ones_like(wide))).astype(np.float32)
