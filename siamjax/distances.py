"""Distances between embeddings, with a gradient that is finite everywhere.

Each takes two arrays that broadcast against each other and reduces the last axis, so the same
function gives row-wise distances, `[b, d], [b, d] -> [b]`, and all pairs,
`[n, 1, d], [1, m, d] -> [n, m]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from siamjax.types import typed


@jax.custom_jvp
def absolute(x: Array) -> Array:
    """`|x|` with slope 0 at 0, as TensorFlow and PyTorch have it; JAX has 1 there.

    With 1, two embeddings that are equal in a place would be pulled apart by it.
    """
    return jnp.abs(x)


@absolute.defjvp
def _absolute_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return jnp.abs(primals[0]), jnp.sign(primals[0]) * tangents[0]


@typed
def l1(left: Float[Array, "*#b d"], right: Float[Array, "*#b d"]) -> Float[Array, "*b"]:
    """The city-block distance `sum |left - right|`.

    Example:
        >>> import jax.numpy as jnp
        >>> float(l1(jnp.array([1.0, 2.0]), jnp.array([4.0, 0.0])))
        5.0
    """
    return absolute(left - right).sum(-1)


@typed
def squared_l2(left: Float[Array, "*#b d"], right: Float[Array, "*#b d"]) -> Float[Array, "*b"]:
    """The squared Euclidean distance `sum (left - right)^2`."""
    return jnp.square(left - right).sum(-1)


@typed
def l2(
    left: Float[Array, "*#b d"], right: Float[Array, "*#b d"], epsilon: float = 0.0
) -> Float[Array, "*b"]:
    """The Euclidean distance `sqrt(max(sum (left - right)^2, epsilon))`.

    The root's slope at 0 is infinite, and an infinite slope times a zero difference is NaN. Here
    the gradient of two identical rows is exactly 0.

    Args:
        left: `[..., d]`.
        right: `[..., d]`, broadcast against `left`.
        epsilon: floor of the squared distance. Keras' examples use 1e-7, which makes the distance
            of identical rows 3.2e-4; the default makes it 0.

    Returns:
        `[...]`, at least `sqrt(epsilon)`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> float(l2(jnp.array([3.0, 0.0]), jnp.array([0.0, 4.0])))
        5.0
        >>> float(jax.grad(lambda x: l2(x, jnp.ones(2)))(jnp.ones(2)).sum())
        0.0
    """
    squared = squared_l2(left, right)
    away = squared > epsilon
    # Both branches of a where are differentiated: the inner one keeps the root off 0.
    return jnp.where(away, jnp.sqrt(jnp.where(away, squared, 1.0)), epsilon**0.5)


@typed
def lp(
    left: Float[Array, "*#b d"],
    right: Float[Array, "*#b d"],
    p: int | float = 2,
    epsilon: float = 0.0,
) -> Float[Array, "*b"]:
    """The Minkowski distance `max(sum |left - right|^p, epsilon)^(1/p)`.

    It takes magnitudes before the power (signed differences would cancel for odd p), and its
    gradient at two identical rows is exactly 0.

    Args:
        left: `[..., d]`.
        right: `[..., d]`, broadcast against `left`.
        p: at least 1; 1 is the city-block distance, 2 the Euclidean one.
        epsilon: floor of the sum.

    Returns:
        `[...]`, at least `epsilon^(1/p)`.

    Raises:
        ValueError: if p is below 1, where the triangle inequality fails, or not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(lp(jnp.array([2.0, -1.0]), jnp.zeros(2), p=3)), 4)  # (8 + 1)^(1/3)
        2.0801
    """
    if not 1 <= p < float("inf"):
        raise ValueError(f"the exponent p of a distance must be finite and at least 1; got {p!r}")
    if p == 2:
        return l2(left, right, epsilon)
    total = (absolute(left - right) ** p).sum(-1)
    away = total > epsilon
    return jnp.where(away, jnp.where(away, total, 1.0) ** (1 / p), epsilon ** (1 / p))


@typed
def cosine_similarity(
    left: Float[Array, "*#b d"], right: Float[Array, "*#b d"], epsilon: float = 1e-12
) -> Float[Array, "*b"]:
    """The cosine of the angle between two rows, in -1..1; 0 where either row is zero.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(cosine_similarity(jnp.array([1.0, 0.0]), jnp.array([1.0, 1.0]))), 4)
        0.7071
    """
    return (unit(left, epsilon) * unit(right, epsilon)).sum(-1)


@typed
def unit(rows: Float[Array, "*b d"], epsilon: float = 1e-12) -> Float[Array, "*b d"]:
    """Each row divided by its Euclidean length; a zero row stays zero, with a zero gradient."""
    squared = jnp.square(rows).sum(-1, keepdims=True)
    away = squared > epsilon
    return jnp.where(away, rows / jnp.sqrt(jnp.where(away, squared, 1.0)), 0.0)
