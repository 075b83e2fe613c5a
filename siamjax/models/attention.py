"""`SelfAttention`: every place of a map looks at every other one."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array


class SelfAttention(nn.Module):
    """x + W attention(norm(x) + place): a residual branch, with a learned vector for each place.

    W starts at zero, so a tower begins as if the branch weren't there. For m = h w places of c
    channels it costs 4 m c^2 + 2 m^2 c multiplications an image.

    Attributes:
        heads: they divide c.
        dtype: of the computation.

    References:
        Wang et al. 2018, "Non-local Neural Networks", CVPR (the branch, and its start at zero).
        Polis, Ilin 2021, "A Relational Model for One-Shot Classification" (arXiv 2111.04313):
        self-attention among the local features of an image before two images are compared.
    """

    heads: int = 4
    dtype: jnp.dtype = jnp.float32  # pyright: ignore[reportAssignmentType]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[n, h, w, c]` to the same shape.

        Raises:
            ValueError: if the channels do not divide into the heads.
        """
        n, h, w, c = x.shape
        if self.heads < 1 or c % self.heads:
            raise ValueError(
                f"heads of self-attention must divide the {c} channels of its map; got"
                f" {self.heads!r}"
            )
        places = nn.LayerNorm(dtype=self.dtype)(x.reshape(n, h * w, c))
        places = places + self.param("place", nn.initializers.normal(0.2), (h * w, c), jnp.float32)
        branch = nn.MultiHeadDotProductAttention(
            self.heads,
            dtype=self.dtype,
            out_kernel_init=nn.initializers.zeros,
            name="attention",
        )(places.astype(self.dtype))
        return x + branch.reshape(x.shape)
