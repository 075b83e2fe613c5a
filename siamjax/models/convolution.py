"""Companions of convolutions where XLA's own are slow: a 2x2 max pool with a cheap gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from siamjax.types import typed

_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # row-major: "first" means the same as in XLA


@typed
def max_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """The largest of each 2x2 block, stride 2; an odd last row or column is dropped.

    Equal to `flax.linen.max_pool(x, (2, 2), (2, 2))`, its gradient included: where several
    elements of a block tie, the first in row-major order gets all of it. Flat backgrounds tie
    everywhere, so any other rule trains another network.

    XLA's gradient of `reduce_window` scans each window again; here the forward pass keeps the
    index of the first maximum as one byte, and the backward pass is a comparison.

    Args:
        x: `[n, h, w, c]`.

    Returns:
        `[n, h // 2, w // 2, c]`.
    """
    return _pool(x)


def _corners(x: Array) -> list[Array]:
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return [x[:, i:h:2, j:w:2] for i, j in _CORNERS]


@jax.custom_vjp
def _pool(x: Array) -> Array:
    a, b, c, d = _corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _pool_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    a, b, c, _ = _corners(x)
    largest = _pool(x)
    first = jnp.where(
        a == largest, 0, jnp.where(b == largest, 1, jnp.where(c == largest, 2, 3))
    ).astype(jnp.uint8)
    return largest, (first, x[:0])  # x[:0] carries only its shape


def _pool_backward(residual: tuple[Array, Array], slope: Array) -> tuple[Array]:
    first, empty = residual
    n, h, w, c = slope.shape
    slope = lax.optimization_barrier(slope)  # otherwise its producers are fused in four times
    corner = jnp.arange(4, dtype=jnp.uint8).reshape(2, 1, 2, 1)
    grid = jnp.where(first[:, :, None, :, None] == corner, slope[:, :, None, :, None], 0)
    grid = grid.reshape(n, 2 * h, 2 * w, c)
    odd = (empty.shape[1] - 2 * h, empty.shape[2] - 2 * w)
    return (jnp.pad(grid, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0))),)


_pool.defvjp(_pool_forward, _pool_backward)
