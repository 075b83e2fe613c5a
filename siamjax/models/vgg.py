"""The convolutional part of VGG (Simonyan and Zisserman, 2015) as a tower."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from siamjax.models.convolution import ConvPool, convolve, max_pool
from siamjax.models.normalisation import normalise
from siamjax.types import typed

BLOCKS: dict[int, tuple[int, ...]] = {  # depth (its classifier has three more) -> convolutions
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)


class Vgg(nn.Module):
    """Blocks of 3x3 convolutions with ReLU, a 2x2 pool after each of the five; no classifier.

    At 105x105 the maps are 105 -> 52 -> 26 -> 13 -> 6 -> 3, flattened (row, column, channel) to
    4608. Depth 16 has 14,714,688 parameters with colour images.

    Attributes:
        initial: "kaiming" or "he": normal kernels of variance 2 / fan-out, zero biases.
        depth: 11, 13, 16 or 19.
        batch_norm: a batch norm after each convolution.
        normalise: "none" (pixels in 0..1 go in as they are), "imagenet" (what torchvision's
            weights were trained with) or "tf".
        replicate_grey: give a grey image three equal channels, so that weights trained on colour
            fit as they are; otherwise its first kernel has one input channel.
        divide: every number of channels is divided by it, for small tests.
        remat: forget a block's maps after the forward pass, and compute them again in the backward
            pass: meant for GPUs, less memory and more work; on a CPU it saved nothing.
        axis: name of the device axis to share batch statistics over, or None.
        dtype: of the computation; parameters are float32.

    References:
        Simonyan, Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image
        Recognition", table 1, columns A, B, D and E. Weights: torchvision's, whose first
        maximum wins a tie as ours does.
    """

    initial: str = "kaiming"
    depth: int = 16
    batch_norm: bool = False
    normalise: str = "none"
    replicate_grey: bool = False
    divide: int = 1
    remat: bool = False
    axis: str | None = None
    dtype: jnp.dtype = jnp.float32  # pyright: ignore[reportAssignmentType]

    @nn.compact
    @typed
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n d"]:
        """Images in 0..1, `[n, h, w, c]` with h and w at least 32, to flattened maps."""
        self._check(x.shape)
        x = normalise(x, self.normalise, self.replicate_grey)
        block = nn.remat(Vgg._block, static_argnums=(2, 3)) if self.remat else Vgg._block
        for number in range(1, 6):
            x = block(self, x, number, train)
        return x.reshape(x.shape[0], -1)

    def _block(self, x: Array, number: int, train: bool) -> Array:
        convolutions, channels = BLOCKS[self.depth][number - 1], CHANNELS[number - 1]
        for i in range(1, convolutions + 1):
            settings: Any = {
                "features": channels // self.divide,
                "kernel_size": (3, 3),
                "padding": "SAME",
                "kernel_init": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
                "dtype": self.dtype,
                "name": f"conv{number}_{i}",
            }
            pooled = i == convolutions
            if pooled and not self.batch_norm:
                x = ConvPool(**settings)(x)
            else:
                x = nn.Conv(**settings, conv_general_dilated=convolve)(x)
            if self.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=0.9,
                    epsilon=1e-5,
                    axis_name=self.axis,
                    dtype=self.dtype,
                    name=f"norm{number}_{i}",
                )(x)
                x = max_pool(x) if pooled else x
            # ReLU and maximum commute: after the pool it has a quarter of the work.
            x = nn.relu(x)
        return x

    def _check(self, shape: tuple[int, ...]) -> None:
        if self.initial not in ("kaiming", "he"):
            raise ValueError(f"vgg knows init kaiming, he; got {self.initial!r}")
        if self.depth not in BLOCKS:
            raise ValueError(f"vgg has depth {', '.join(map(str, BLOCKS))}; got {self.depth!r}")
        if self.divide < 1 or CHANNELS[0] % self.divide:
            raise ValueError(f"vgg's divide must divide {CHANNELS[0]}; got {self.divide!r}")
        if min(shape[1:3]) < 32:
            raise ValueError(
                f"the VGG tower needs images of at least 32x32; got {shape[1]}x{shape[2]}: set"
                " config.data.size, or use another tower"
            )
