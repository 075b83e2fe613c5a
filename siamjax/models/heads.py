"""Heads: two embeddings to a `Distance` (small = alike) or a `Logit` (large = alike).

Every head is symmetric, and broadcasts: `[b, d], [b, d] -> [b]` for pairs,
`[n, 1, d], [1, m, d] -> [n, m]` for all pairs, so a gallery never runs the tower twice.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from siamjax.distances import cosine_similarity, l2
from siamjax.types import Distance, Logit, typed


def _half(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    return 0.5 + nn.initializers.normal(0.01)(key, shape, dtype)


BIAS_INITS: dict[str, Callable[..., Array]] = {
    "paper": _half,
    "seed": _half,
    "he": nn.initializers.zeros_init(),
}


class WeightedL1(nn.Module):
    """`z = sum_i w_i |a_i - b_i| + bias`: a weighted city-block distance, learned as a logit.

    Attributes:
        initial: of the bias: "paper" and "seed" N(0.5, 0.01), "he" 0. The weights are Glorot uniform.

    References:
        Koch, Zemel, Salakhutdinov 2015, section 3.1.
    """

    initial: str = "he"

    @nn.compact
    @typed
    def __call__(
        self, left: Float[Array, "*#b d"], right: Float[Array, "*#b d"], *, train: bool = False
    ) -> Logit:
        """Embeddings `[..., d]` to a logit `[...]`."""
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (left.shape[-1], 1))
        bias = self.param("bias", BIAS_INITS[self.initial], (1,))
        difference = jnp.abs(left - right).astype(jnp.float32)
        # A sum, not a product of matrices: all pairs fuse into one loop and are never stored.
        return Logit((difference * kernel[:, 0]).sum(-1) + bias[0])


class Euclidean(nn.Module):
    """`d = sqrt(max(sum (a - b)^2, epsilon))`, no parameters.

    Attributes:
        initial: unused; every head takes it.
        epsilon: floor of the squared distance (Keras' examples: 1e-7).
        midpoint: the distance that counts as undecided; half of the loss's margin.
    """

    initial: str = "he"
    epsilon: float = 0.0
    midpoint: float = 0.5

    @typed
    def __call__(
        self, left: Float[Array, "*#b d"], right: Float[Array, "*#b d"], *, train: bool = False
    ) -> Distance:
        """Embeddings `[..., d]` to a distance `[...]`."""
        left, right = left.astype(jnp.float32), right.astype(jnp.float32)
        return Distance(l2(left, right, self.epsilon), self.midpoint)


class Cosine(nn.Module):
    """`z = e^s (cos(a, b) - c)` with learned scale s and midpoint c.

    Attributes:
        initial: unused; every head takes it.
        scale: `e^s` at the start.
        midpoint: c at the start: the cosine that counts as undecided.
    """

    initial: str = "he"
    scale: float = 10.0
    midpoint: float = 0.5

    @nn.compact
    @typed
    def __call__(
        self, left: Float[Array, "*#b d"], right: Float[Array, "*#b d"], *, train: bool = False
    ) -> Logit:
        """Embeddings `[..., d]` to a logit `[...]`."""
        log_scale = self.param("log_scale", nn.initializers.constant(jnp.log(self.scale)), ())
        midpoint = self.param("midpoint", nn.initializers.constant(self.midpoint), ())
        cosine = cosine_similarity(left.astype(jnp.float32), right.astype(jnp.float32))
        return Logit(jnp.exp(log_scale) * (cosine - midpoint))
