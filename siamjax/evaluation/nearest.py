"""`Nearest`: the rows that can be among a query's k best, found by one matrix product."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from siamjax.distances import unit
from siamjax.types import typed

BLOCK = 1 << 17  # rows of one product: 100,000 fit
PRODUCT = 1 << 22  # numbers in all products of one turn
UNIT = 2.0**-24  # half a unit in the last place of 1.0, float32


class Nearest:
    """Candidates for an exact search by Euclidean distance or by cosine.

    `|a - b|^2 = |a|^2 + |b|^2 - 2ab` is one matrix product, but cancels where a and b are close:
    what is left is noise of the size of `|a|^2`. So the product only proposes: for each row it
    gives bounds that no rounding can break, and every row whose lower bound does not exceed the
    k-th smallest upper bound is a candidate. The head itself then ranks the candidates, usually
    k and a few more.

    Args:
        rows: embeddings.
        cosine: compare angles; else distances. Angles are distances between unit rows:
            `|a - b|^2 = 2 - 2 cos`.
        floor: squared distances below it count as it does (the epsilon of a head).

    Example:
        >>> rows = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], np.float32)
        >>> [c.tolist() for c in Nearest(rows).candidates(np.ones((1, 2), np.float32), 2)]
        [[0, 2]]
    """

    @typed
    def __init__(self, rows: Float[np.ndarray, "n d"], *, cosine: bool = False, floor: float = 0.0):
        self._cosine, self._floor, self._n = cosine, floor, len(rows)
        self._turn = max(1, min(32, PRODUCT // max(1, self._n)))  # queries
        # Distances do not change with the origin, but their rounding does: it is least around the
        # middle of the rows.
        self._origin = np.zeros(rows.shape[1], np.float32) if cosine else rows.mean(0)
        self._blocks = []
        for start in range(0, len(rows), BLOCK):
            self._blocks.append(self._placed(rows[start : start + BLOCK]))

    def _placed(self, rows: np.ndarray) -> tuple[Array, Array]:
        """Rows where they are compared, and their squared lengths."""
        if self._cosine:  # a row of no length has no angle: its cosine is 0, of length 1 as any
            return unit(jnp.asarray(rows)), jnp.ones(len(rows))
        moved = jnp.asarray(rows - self._origin)
        return moved, jnp.square(moved).sum(1)

    @typed
    def candidates(self, queries: Float[np.ndarray, "m d"], k: int) -> list[Int[np.ndarray, "..."]]:
        """For each query the rows among which its k best are, ties included, in ascending order."""
        k = min(k, self._n)
        found = []
        for start in range(0, len(queries), self._turn):
            part = self._placed(queries[start : start + self._turn])
            bounds = [_bounds(*part, *block) for block in self._blocks]
            low, high = (
                np.maximum(np.concatenate([np.asarray(b[side]) for b in bounds], 1), self._floor)
                for side in (0, 1)
            )
            worst = np.partition(high, k - 1, axis=1)[:, k - 1]
            # Not `row <= limit`: what overflowed has no bounds, and stays a candidate.
            found += [np.flatnonzero(~(row > limit)) for row, limit in zip(low, worst, strict=True)]
        return found


@jax.jit
def _bounds(queries: Array, own: Array, rows: Array, squares: Array) -> tuple[Array, Array]:
    """Lower and upper bounds of all squared distances, `[q, n]` each.

    A sum of d products in float32 is off by at most about `d u sum |a_i b_i|`, u = 2^-24, in
    whatever order it is added up; here that is less than `d u (|a| + |b|)^2`. The same again for
    the lengths of unit rows, and for the rounding of the head.
    """
    # By default GPUs multiply with 10 bits of mantissa, which these bounds do not cover.
    product = jnp.matmul(queries, rows.T, precision=jax.lax.Precision.HIGHEST)
    squared = own[:, None] + squares - 2 * product
    reach = jnp.square(jnp.sqrt(own)[:, None] + jnp.sqrt(squares))
    error = 3 * (queries.shape[1] + 16) * UNIT * reach
    return squared - error, squared + error
