"""Weight standardisation: convolutions whose kernels have mean 0 and one size."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from siamjax.types import typed

EPSILON = 1e-4  # of the variance of a kernel as it starts, 1 / inputs: a constant kernel gives 0


@typed
def standardise(kernel: Float[Array, "h w c f"], gain: Float[Array, "f"]) -> Array:
    r"""Each output channel's kernel with mean 0 and variance 1 / (h w c), times a gain.

        w' = g (w - mean) / sqrt(h w c var + epsilon),  mean and variance over (h, w, c)

    Args:
        kernel: `[h, w, c, f]`.
        gain: of each output channel.

    Returns:
        `[h, w, c, f]`.

    References:
        Qiao, Wang, Liu, Shen, Yuille 2019, "Micro-Batch Training with Batch-Channel Normalization
        and Weight Standardization" (arXiv 1903.10520). The scale, which keeps that of the maps, is
        that of Brock, De, Smith 2021, "Characterizing signal propagation to close the performance
        gap in unnormalized ResNets".
    """
    inputs = kernel.shape[0] * kernel.shape[1] * kernel.shape[2]
    centred = kernel - kernel.mean((0, 1, 2))
    variance = jnp.square(centred).mean((0, 1, 2))
    return gain * centred * lax.rsqrt(inputs * variance + EPSILON)


class StandardisedConv(nn.Module):
    """`nn.Conv` of stride 1, padded to the same size and without bias, of a standardised kernel.

    Attributes:
        features: channels out.
        kernel_size: rows and columns.
        dtype: of the computation; parameters are float32, and are standardised as such.
    """

    features: int
    kernel_size: tuple[int, int]
    dtype: jnp.dtype = jnp.float32  # pyright: ignore[reportAssignmentType]

    @nn.compact
    @typed
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w f"]:
        """Maps to maps of the same size."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        gain = self.param("gain", nn.initializers.ones_init(), (self.features,))
        kernel = standardise(kernel, gain).astype(self.dtype)
        dimensions = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x.astype(self.dtype), kernel, (1, 1), "SAME", dimension_numbers=dimensions
        )
