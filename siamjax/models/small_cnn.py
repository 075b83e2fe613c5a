"""A small convolutional tower for small images."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from siamjax.models.convolution import ConvPool
from siamjax.models.dropout import Dropout
from siamjax.models.mlp import kernel_initializer
from siamjax.types import typed


class SmallCnn(nn.Module):
    """2x2 convolutions with ReLU, 2x2 pools and dropout; a global average; a linear layer.

    At 28x28 the maps are 28 -> 14 -> 7, and the tower has 19,888 parameters. The average makes it
    work on any size, and blind to where in the image something is.

    Attributes:
        initial: of the kernels: "glorot" (uniform, Keras' default) or "he"; biases are 0.
        features: channels of the convolutions, each followed by a pool that halves the map.
        embedding: size of the output.
        dropout: share of values dropped after each pool in training.
        dtype: of the computation; parameters are float32.

    References:
        Rosebrock 2020, "Siamese networks with Keras, TensorFlow, and Deep Learning"
        (pyimagesearch.com), `build_siamese_model`.
    """

    initial: str = "glorot"
    features: tuple[int, ...] = (64, 64)
    embedding: int = 48
    dropout: float = 0.3
    dtype: jnp.dtype = jnp.float32  # pyright: ignore[reportAssignmentType]

    @nn.compact
    @typed
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n d"]:
        """Images in 0..1, `[n, h, w, c]`, to embeddings `[n, embedding]`."""
        kernel = kernel_initializer("small_cnn", self.initial)
        least = 2 ** len(self.features)
        if min(x.shape[1:3]) < least:
            raise ValueError(
                f"small_cnn halves its maps {len(self.features)} times, so it needs images of at"
                f" least {least}x{least}; got {x.shape[1]}x{x.shape[2]}: set config.data.size"
            )
        for i, features in enumerate(self.features):
            # SAME with an even kernel pads at the bottom and at the right, in XLA as in Keras.
            x = ConvPool(
                features,
                (2, 2),
                padding="SAME",
                kernel_init=kernel,
                dtype=self.dtype,
                name=f"conv{i + 1}",
            )(x)
            # ReLU and maximum commute: after the pool it has a quarter of the work.
            x = Dropout(self.dropout, name=f"dropout{i + 1}")(nn.relu(x), train=train)
        x = x.mean((1, 2))
        return nn.Dense(self.embedding, kernel_init=kernel, dtype=self.dtype, name="dense")(x)
