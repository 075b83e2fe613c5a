"""A small residual tower for small images: the accurate one that a CPU can train."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from siamjax.models.convolution import max_pool
from siamjax.types import typed


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus the input, then ReLU.

    Attributes:
        features: channels out; where they differ from the input's, a 1x1 convolution joins.
        axis: name of the device axis to share batch statistics over, or None.
        dtype: of the computation.

    References:
        He et al. 2016, "Deep Residual Learning for Image Recognition", figure 2.
    """

    features: int
    axis: str | None = None
    dtype: jnp.dtype = jnp.float32  # pyright: ignore[reportAssignmentType]

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """`[n, h, w, c]` to `[n, h, w, features]`."""
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.95,
            axis_name=self.axis,
            dtype=self.dtype,
        )
        y = nn.relu(norm(name="norm1")(conv(self.features, (3, 3), name="conv1")(x)))
        y = norm(name="norm2")(conv(self.features, (3, 3), name="conv2")(y))
        if x.shape[-1] != self.features:
            x = norm(name="norm_join")(conv(self.features, (1, 1), name="join")(x))
        return nn.relu(x + y)


class SmallResNet(nn.Module):
    """A 3x3 stem and three residual blocks with 2x2 pools between them, then a linear layer.

    For images of about 28 to 48 pixels. At 35x35 the maps are 35 -> 17 -> 8 -> 4.

    Attributes:
        initial: only "he" (He/LeCun normal kernels, zero biases).
        width: channels of the stem; the blocks have 1, 2 and 4 times as many.
        embedding: size of the output, or of its first part.
        tokens: channels of the local features that follow: the last map, 4x4 at 35x35, through a
            linear layer, place after place; 0 for none. The head `relational` reads them.
        axis: name of the device axis to share batch statistics over, or None.
        dtype: of the computation; parameters are float32.
    """

    initial: str = "he"
    width: int = 48
    embedding: int = 256
    tokens: int = 0
    axis: str | None = None
    dtype: jnp.dtype = jnp.float32  # pyright: ignore[reportAssignmentType]

    @nn.compact
    @typed
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n d"]:
        """Images in 0..1, `[n, h, w, c]`, to embeddings `[n, embedding + places * tokens]`."""
        if self.initial != "he":
            raise ValueError(f"small_resnet knows init he; got {self.initial!r}")
        block = functools.partial(ResidualBlock, axis=self.axis, dtype=self.dtype)
        x = nn.Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype, name="stem")(x)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.95,
            axis_name=self.axis,
            dtype=self.dtype,
            name="stem_norm",
        )(x)
        x = nn.relu(max_pool(x))
        x = max_pool(block(self.width, name="block1")(x, train=train))
        x = max_pool(block(2 * self.width, name="block2")(x, train=train))
        x = block(4 * self.width, name="block3")(x, train=train)
        z = nn.Dense(self.embedding, dtype=self.dtype, name="dense")(x.reshape(x.shape[0], -1))
        if not self.tokens:
            return z
        local = nn.Dense(self.tokens, dtype=self.dtype, name="tokens")(x)
        return jnp.concatenate([z, local.reshape(x.shape[0], -1)], -1)
