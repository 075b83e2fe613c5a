"""Convolutions with small kernels by Winograd's minimal filtering, written as products of matrices.

A 4x4 block of a 3x3 convolution looks at a 6x6 tile of the map. Tile and kernel are each turned, by
weighted sums alone, into 36 numbers whose products, turned back, are the block: 36 multiplications
instead of 144. Each of the 36 is one product of matrices `[tiles, c] @ [c, f]`. In float32 the
result is that of the plain convolution to 1e-6 (tiles of 4) or 5e-6 (tiles of 6) of its largest
value.

References:
    Winograd 1980, "Arithmetic Complexity of Computations". Lavin, Gray 2016, "Fast Algorithms for
    Convolutional Neural Networks", arXiv 1509.09308. Barabasz et al. 2020, "Error Analysis and
    Improving the Accuracy of Winograd Convolution for Deep Neural Networks", for the points.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from siamjax.models.parts import in_turn, summed_in_turn
from siamjax.types import typed

# Where the polynomials behind a tile's numbers are compared; infinity is one more point.
POINTS = {4: (0, 1, -1), 6: (0, 1, -1, 0.5, -2)}
LEAST = 1.5e9  # operations that must be saved; below, what surrounds it eats the gain
AT_ONCE = 14 << 20  # bytes of one group of tiles: more leave the cache before they are used

Parts = Sequence[Array]
Padding = tuple[tuple[int, int], tuple[int, int]]
Split = Callable[[Array, int], Sequence[Array]]
Join = Callable[[Sequence[Array], int], Array]


@functools.cache
def _matrices(size: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For one row: tile to numbers, kernel to numbers, and products of numbers to a block.

    The method of Toom and Cook: a convolution is a product of polynomials, and those are known by
    their values at enough points.
    """
    points, block = POINTS[size], size - taps + 1
    others = [[p for p in points if p != point] for point in points]
    tile = np.zeros((size, size), np.float32)
    for row, roots in zip(tile, [*others, points], strict=True):
        row[: len(roots) + 1] = np.poly(roots)[::-1]
    powers = np.vander(points, size, increasing=True)
    scale = [[math.prod(p - q for q in qs)] for p, qs in zip(points, others, strict=True)]
    kernel = np.concatenate([powers[:, :taps] / np.array(scale), np.eye(taps)[-1:]])
    back = np.concatenate([powers[:, :block], np.eye(block)[-1:]]).T
    return tile, kernel.astype(np.float32), back.astype(np.float32)


def _combine(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
    """A matrix times a column of arrays; nothing is multiplied by 0 or 1."""
    rows = []
    for row in matrix:
        terms = [
            part if weight == 1 else -part if weight == -1 else weight * part
            for weight, part in zip(row, parts, strict=True)
            if weight
        ]
        rows.append(functools.reduce(jnp.add, terms))
    return rows


def _spread(matrix: np.ndarray, x: Array, split: Split) -> list[Array]:
    """The rows of each tile of x, then the columns, turned by a matrix.

    Returns:
        A list over columns of arrays whose first axis are the rows.
    """
    rows = jnp.stack(_combine(matrix, split(x, 1)))
    return _combine(matrix, split(rows, 3))


def _gather(matrix: np.ndarray, columns: Sequence[Array], join: Join) -> Array:
    """The columns of each tile, then the rows, turned by a matrix and joined to maps."""
    rows = join(_combine(matrix, columns), 3)
    return join(_combine(matrix, list(rows)), 1)


def _tiles(x: Array, axis: int, size: int, block: int) -> list[Array]:
    """Entry i of every tile along an axis: tiles are a block apart, beyond the end are zeros."""
    count = _count(x.shape[axis], size, block)
    short = [(0, 0)] * x.ndim
    short[axis] = (0, block * (count - 1) + size - x.shape[axis])
    x, span = jnp.pad(x, short), block * (count - 1) + 1
    return [lax.slice_in_dim(x, i, i + span, block, axis) for i in range(size)]


def _blocks(parts: Sequence[Array], axis: int) -> Array:
    """Blocks one after the other along an axis: `_tiles` undone, where size = block."""
    y = jnp.stack(parts, axis + 1)
    return y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])


def _overlaid(parts: Sequence[Array], axis: int, block: int) -> Array:
    """The sum of tiles that overlap along an axis: the transpose of `_tiles`."""
    end, start = ([(0, 0)] * parts[0].ndim for _ in range(2))
    end[axis], start[axis] = (0, 1), (1, 0)
    own = [jnp.pad(part, end) for part in parts[:block]]
    for i, part in enumerate(parts[block:]):
        own[i] += jnp.pad(part, start)  # beyond a block the next one begins
    return _blocks(own, axis)


def _products(a: Parts, b: Parts, over_a: int, over_b: int) -> Parts:
    """Entry by entry a product of two matrices, summed over one axis of each."""
    over = (((over_a,), (over_b,)), ((0,), (0,)))
    return [lax.dot_general(left, right, over) for left, right in zip(a, b, strict=True)]


def _shaped(parts: Parts, *shape: int) -> Parts:
    return [part.reshape(len(part), *shape) for part in parts]


@typed
def convolve(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k c f"], size: int, padding: Padding
) -> Float[Array, "n h2 w2 f"]:
    """A convolution of stride 1 (in machine learning's sense: a correlation).

    Args:
        x: maps, with their padding at least as large as the kernel.
        kernel: taps, 2x2 or 3x3, and 4x4 with tiles of 6.
        size: rows and columns of a tile, 4 or 6.
        padding: zeros above and below, left and right.

    Returns:
        `[n, h - k + 1, w - k + 1, f]` for padded maps of h x w.
    """
    return _convolve(x, kernel, size, padding)


def tile(x: tuple[int, ...], kernel: tuple[int, ...]) -> int | None:
    """The size of tile that is quickest on a CPU, or None where too little is gained.

    Time goes into the products, which the plain way has too, only more of them, and into turning
    tiles, blocks and kernels, where memory decides: measured, a number costs as much as 80
    operations of a product. There is more to compile, too: small convolutions stay as they are.

    Args:
        x: shape `[n, h, w, c]` of padded maps.
        kernel: shape `[kh, kw, c, f]`.
    """
    (n, h, w, _), (taps, across, c, f) = x, kernel
    plain = 2 * taps**2 * n * (h - taps + 1) * (w - taps + 1) * c * f
    cost: dict[int | None, float] = {None: min(0.75 * plain, plain - LEAST)}
    for size in POINTS:
        # Larger kernels would overlap more than one neighbour.
        if across == taps and 2 <= taps <= size // 2 + 1:
            count = n * _count(h, size, size - taps + 1) * _count(w, size, size - taps + 1)
            numbers = size**2 * (count * (c + f) + c * f)
            cost[size] = 2 * size**2 * count * c * f + 80 * numbers
    return min(cost, key=cost.__getitem__)


def _count(length: int, size: int, block: int) -> int:
    """How many tiles cover a row."""
    return -(-(length - size + block) // block)


def _in_groups(x: Array, kernel: Array, size: int, padding: Padding) -> Array:
    """The images in equal parts, `[parts, n, h, w, c]`: a part's tiles stay in the cache."""
    block = size - len(kernel) + 1
    rows, columns = (
        _count(s + sum(p), size, block) for s, p in zip(x.shape[1:3], padding, strict=True)
    )
    most = AT_ONCE // (4 * size**2 * rows * columns * max(kernel.shape[2:]))
    groups = next(
        g for g in range(1, len(x) + 1) if len(x) % g == 0 and len(x) // g <= max(1, most)
    )
    return x.reshape(groups, -1, *x.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: Array, kernel: Array, size: int, padding: Padding) -> Array:
    taps, _, c, f = kernel.shape
    to_tile, to_taps, back = _matrices(size, taps)
    split = functools.partial(_tiles, size=size, block=size - taps + 1)
    whole = functools.partial(_tiles, size=taps, block=taps)
    weights = _shaped(_spread(to_taps, kernel[None], whole), c, f)

    def some(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        tiles = _spread(to_tile, x, split)
        products = _products(_shaped(tiles, -1, c), weights, 2, 1)
        y = _gather(back, _shaped(products, *tiles[0].shape[1:4], f), _blocks)
        return y[:, : x.shape[1] - taps + 1, : x.shape[2] - taps + 1]

    x = _in_groups(x, kernel, size, padding)
    if len(x) == 1:
        return some(x[0])
    y = in_turn(some, x)
    return y.reshape(-1, *y.shape[2:])


def _forward(
    x: Array, kernel: Array, size: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, size, padding), (x, kernel)  # tiles, twice the map, are made again


def _backward(
    size: int, padding: Padding, residual: tuple[Array, Array], slope: Array
) -> tuple[Array, Array]:
    # Behind the barrier the compiler does not recognise what the forward pass had, and keep it.
    x, kernel, slope = lax.optimization_barrier((*residual, slope))
    (taps, _, c, f), (h, w) = kernel.shape, x.shape[1:3]
    to_tile, to_taps, back = _matrices(size, taps)
    block, (top, left) = size - taps + 1, (padding[0][0], padding[1][0])
    split, apart, whole = (
        functools.partial(_tiles, size=s, block=b)
        for s, b in ((size, block), (block, block), (taps, taps))
    )
    join = functools.partial(_overlaid, block=block)
    weights = _shaped(_spread(to_taps, kernel[None], whole), c, f)

    def some(x: Array, slope: Array) -> tuple[Parts, Array]:
        tiles = _spread(to_tile, jnp.pad(x, ((0, 0), *padding, (0, 0))), split)
        slopes = _shaped(_spread(back.T, slope, apart), -1, f)
        d_weights = _products(_shaped(tiles, -1, c), slopes, 1, 1)
        d_tiles = _shaped(_products(slopes, weights, 2, 2), *tiles[0].shape[1:])
        d_x = _gather(to_tile.T, d_tiles, join)[:, top : top + h, left : left + w]
        return d_weights, d_x

    x = _in_groups(x, kernel, size, padding)
    slope = slope.reshape(*x.shape[:2], *slope.shape[1:])
    if len(x) == 1:
        total, d_x = some(x[0], slope[0])
    else:
        total, d_x = summed_in_turn(some, x, slope)
    d_kernel = _gather(to_taps.T, _shaped(total, 1, 1, 1, c, f), _blocks)
    return d_x.reshape(-1, h, w, c), d_kernel[0]


_convolve.defvjp(_forward, _backward)
