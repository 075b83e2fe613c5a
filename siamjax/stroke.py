"""Random stroke width of grey handwriting, inside the compiled step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from siamjax.types import typed

Images = Float[Array, "n h w c"]
FOLD = 2  # of an image's key: the affine map draws from the key itself, the elastic one from fold 1


@typed
def stroke_width(images: Images, amounts: Float[Array, "n"], *, fill: float) -> Images:
    r"""Ink made thicker or thinner by a part of a pixel on each of its sides.

        out = (1 - |s|) x + |s| m,

    m being the image with the ink of each 3x3 neighbourhood at its centre (grey dilation) where
    s > 0, or its paper (erosion) where s < 0. So s = 1 widens every stroke by one pixel on each
    side, s = -1 takes one off, and a part of it shades the pixels at the edge by that part.
    Outside the image nothing is known, and nothing comes in from there.

    Args:
        images: `[n, h, w, 1]` in [0, 1].
        amounts: s of each image, in -1..1; with 0 an image stays as it is, bit for bit.
        fill: the value of paper, which tells ink: 1 for black on white, 0 for white on black.

    Returns:
        `[n, h, w, 1]`, within the range of each image's own values.

    Raises:
        ValueError: for images in colour, where ink has no order.

    Example:
        >>> line = jnp.array([0.0, 0.0, 1.0, 0.0, 0.0])[None, None, :, None]
        >>> stroke_width(line, jnp.array([0.5]), fill=0.0)[0, 0, :, 0]
        Array([0. , 0.5, 1. , 0.5, 0. ], dtype=float32)

    References:
        Simard, LeCun, Denker, Victorri (1998), "Transformation Invariance in Pattern Recognition:
        Tangent Distance and Tangent Propagation", for line thickness as one of the transformations
        that leave a character what it is; blending with the dilation is ours.
    """
    if images.shape[-1] != 1:
        raise ValueError(
            f"stroke width is of grey images; got {images.shape[-1]} channels: set"
            " config.augment.stroke to 0, or config.data.channels to 1"
        )
    s = amounts.astype(images.dtype)[:, None, None, None]
    # The erosion of an image is the dilation of its negative, so one pass does for both.
    sign = jnp.where((s > 0) == (fill < 0.5), 1, -1).astype(images.dtype)
    window, stride = (1, 3, 3, 1), (1, 1, 1, 1)
    spread = sign * lax.reduce_window(sign * images, -jnp.inf, lax.max, window, stride, "SAME")
    return images + jnp.abs(s) * (spread - images)


@typed
def amounts(keys: Array, *, probability: float, stroke: float) -> Float[Array, "n"]:
    """The s of each image: uniform in -stroke .. stroke with a probability, else 0.

    Args:
        keys: typed keys `[n]`, one per image.
        probability: that the width of an image changes at all.
        stroke: the largest change, in pixels on each side of a line, 0..1.
    """

    def one(key: Array) -> Array:
        value, chance = jax.random.uniform(jax.random.fold_in(key, FOLD), (2,))
        return jnp.where(chance < probability, stroke * (2 * value - 1), 0.0)

    return jax.vmap(one)(keys)
