"""Convolutions and pools where XLA's own are slow on a CPU, with the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer
from jax import lax
from jaxtyping import Array, Float

from siamjax import backend
from siamjax.models import fourier, winograd
from siamjax.models.parts import in_turn
from siamjax.types import typed

_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # row-major: "first" means the same as in XLA
FUSED_TAPS = 9  # a larger kernel over one channel is faster as a product of matrices


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
    if jax.export.is_symbolic_dim(x.shape[0]):
        return nn.max_pool(x, (2, 2), (2, 2))
    return _pool(x)


def _cpu_only(x: Array) -> bool:
    """Whether this runs on a CPU and nowhere else: a program for any batch size is exported."""
    return backend.on_cpu() and not jax.export.is_symbolic_dim(x.shape[0])


def _corners(x: Array) -> list[Array]:
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return [x[:, i:h:2, j:w:2] for i, j in _CORNERS]


@jax.custom_vjp
def _pool(x: Array) -> Array:
    a, b, c, d = _corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _pool_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    # In a loop, out of which the compiler can't take what finds the first maximum: it would do so
    # in the backward pass, and keep the whole map until then.
    parts = next((g for g in (2, 3, 5, 7) if len(x) % g == 0), 1) if backend.on_cpu() else 1
    if parts == 1:
        largest, first = _largest_and_first(x)
    else:
        both = in_turn(_largest_and_first, x.reshape(parts, -1, *x.shape[1:]))
        largest, first = (y.reshape(len(x), *y.shape[2:]) for y in both)
    return largest, (first, x[:0])  # x[:0] carries only its shape


def _largest_and_first(x: Array) -> tuple[Array, Array]:
    a, b, c, _ = _corners(x)
    largest = _pool(x)
    first = jnp.where(a == largest, 0, jnp.where(b == largest, 1, jnp.where(c == largest, 2, 3)))
    return largest, first.astype(jnp.uint8)


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


def convolve(x: Array, kernel: Array, strides: Sequence[int], padding: Any, **rest: Any) -> Array:
    """`lax.conv_general_dilated` for `flax.linen.Conv`, on a CPU by the quickest way.

    - Kernels up to 4x4 between many channels go tile by tile (`models/winograd.py`), larger ones
      through a Fourier transform (`models/fourier.py`).
    - Taps over a smaller map, as 3x3 over 2x2 at the end of a ResNet on 64x64 images, run at
      1 GFLOP/s: they are laid side by side and go through one product of matrices.

    Args:
        x: `[n, h, w, c]`.
        kernel: `[kh, kw, c, f]`.
        strides: of rows and columns.
        padding: "SAME", "VALID" or pairs of numbers for rows and columns.
        rest: as `lax.conv_general_dilated` has them.
    """
    taps = kernel.shape[:2]
    plain = all(rest.get(d, (1, 1)) == (1, 1) for d in ("lhs_dilation", "rhs_dilation"))
    plain = plain and rest.get("feature_group_count", 1) == 1
    if not _cpu_only(x) or not plain or x.dtype != jnp.float32:
        return lax.conv_general_dilated(x, kernel, strides, padding, **rest)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], taps, strides, padding)
    around = ((0, 0), *padding, (0, 0))
    if x.shape[1] < taps[0] or x.shape[2] < taps[1]:
        return _side_by_side(jnp.pad(x, around), kernel, strides)
    if tuple(strides) == (1, 1):
        shape = tuple(s + sum(p) for s, p in zip(x.shape, around, strict=True))
        if size := winograd.tile(shape, kernel.shape):
            return winograd.convolve(x, kernel, size, tuple(padding))
        if fourier.saves(shape, kernel.shape):
            return fourier.convolve(jnp.pad(x, around), kernel)
    return lax.conv_general_dilated(x, kernel, strides, padding, **rest)


def _side_by_side(x: Array, kernel: Array, strides: Sequence[int]) -> Array:
    (rows, columns), (down, across) = kernel.shape[:2], strides
    bottom, right = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    taps = [
        x[:, i : i + bottom : down, j : j + right : across] for i, j in np.ndindex(rows, columns)
    ]
    return jnp.concatenate(taps, -1) @ kernel.reshape(-1, kernel.shape[-1])


class ConvPool(nn.Module):
    """A convolution of stride 1 with its bias, then the 2x2 maximum.

    The parameters, their names and the result are those of `nn.Conv` followed by `max_pool`. On a
    CPU a small kernel over one channel runs as one operation that never stores the map before the
    pool: XLA's own takes 52 ms for 128 images of 28x28, 2x2 taps and 64 features, gradient
    included, this one 8.

    Attributes:
        features: channels of the output.
        kernel_size: rows and columns of the kernel.
        padding: "SAME" or "VALID".
        kernel_init, bias_init: initialisers.
        use_bias: whether there is one.
        dtype: of the computation; parameters are float32.
    """

    features: int
    kernel_size: tuple[int, int]
    padding: str
    kernel_init: Initializer
    bias_init: Initializer = nn.initializers.zeros_init()
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32  # pyright: ignore[reportAssignmentType]

    @nn.compact
    @typed
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 f"]:
        """Maps `[n, h, w, c]` to maps of half the size."""
        kernel = self.param(
            "kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features)
        )
        y = conv_pool(x.astype(self.dtype), kernel.astype(self.dtype), self.padding)
        if not self.use_bias:
            return y
        # The bias is the same for a whole block, so it may as well come after the maximum.
        return y + self.param("bias", self.bias_init, (self.features,)).astype(self.dtype)


@typed
def conv_pool(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c f"], padding: str
) -> Float[Array, "n h2 w2 f"]:
    """`max_pool` of a convolution, by whichever way is faster here."""
    taps = kernel.shape[0] * kernel.shape[1]
    small = kernel.shape[2] == 1 and taps <= FUSED_TAPS
    if _cpu_only(x) and small and x.dtype == jnp.float32:
        return _fused(_padded(x, kernel.shape, padding)[..., 0], kernel[:, :, 0])
    dimensions = ("NHWC", "HWIO", "NHWC")
    return max_pool(convolve(x, kernel, (1, 1), padding, dimension_numbers=dimensions))


def _padded(x: Array, kernel: tuple[int, ...], padding: str) -> Array:
    if padding == "VALID":
        return x
    sides = [((k - 1) // 2, k // 2) for k in kernel[:2]]  # as XLA and Keras have it
    return jnp.pad(x, ((0, 0), *sides, (0, 0)))


def _phases(x: Array, kernel: Array) -> list[Array]:
    """The convolution at each of the four corners of every pooled block, `[n, h2, w2, f]`."""
    views, taps = _views(x, kernel), list(np.ndindex(kernel.shape[:2]))
    return [
        sum((views[p + i, q + j][..., None] * kernel[i, j] for i, j in taps), jnp.float32(0))
        for p, q in _CORNERS
    ]


def _views(x: Array, kernel: Array) -> dict[tuple[int, int], Array]:
    """Every pixel that a pooled block looks at, `[n, h2, w2]`, by its offset from the corner."""
    (rows, columns), (h, w) = kernel.shape[:2], x.shape[1:]
    h2, w2 = (h - rows + 1) // 2, (w - columns + 1) // 2
    return {
        (i, j): x[:, i : i + 2 * h2 : 2, j : j + 2 * w2 : 2]
        for i in range(rows + 1)
        for j in range(columns + 1)
    }


@jax.custom_vjp
def _fused(x: Array, kernel: Array) -> Array:
    a, b, c, d = _phases(x, kernel)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _fused_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    largest = _fused(x, kernel)
    a, b, c, _ = _phases(x, kernel)
    first = jnp.where(
        a == largest, 0, jnp.where(b == largest, 1, jnp.where(c == largest, 2, 3))
    ).astype(jnp.uint8)
    return largest, (x, kernel, first)


def _fused_backward(residual: tuple[Array, Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel, first = residual
    (rows, columns, features), (h2, w2) = kernel.shape, slope.shape[1:3]
    slope = lax.optimization_barrier(slope)  # otherwise its producers are fused in four times
    views = _views(x, kernel)
    pixels = jnp.stack(list(views.values()), -1).reshape(-1, len(views))
    d_kernel, d_x = jnp.zeros_like(kernel), jnp.zeros_like(x)
    for corner, (p, q) in enumerate(_CORNERS):
        here = jnp.where(first == corner, slope, 0)
        products = (pixels.T @ here.reshape(-1, features)).reshape(rows + 1, columns + 1, features)
        d_kernel += products[p : p + rows, q : q + columns]
        # Only who asks for the gradient of the image pays for it: else the compiler drops it.
        for i in range(rows):
            for j in range(columns):
                top, left = slice(p + i, p + i + 2 * h2, 2), slice(q + j, q + j + 2 * w2, 2)
                d_x = d_x.at[:, top, left].add(here @ kernel[i, j])
    return d_x, d_kernel


_fused.defvjp(_fused_forward, _fused_backward)
