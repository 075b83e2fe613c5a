"""A small residual tower for small images: the accurate one that a CPU can train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from siamjax.models.attention import SelfAttention
from siamjax.models.convolution import ConvPool, max_pool
from siamjax.models.standardised import StandardisedConv
from siamjax.types import typed

NORMS = ("batch", "group")


@dataclass(frozen=True)
class Layers:
    """How the convolutions and norms of the tower are made.

    Attributes:
        norm: "batch" or "group".
        groups: of channels, of group norm.
        standardise: whether kernels are standardised.
        axis: name of the device axis to share batch statistics over, or None.
        dtype: of the computation.
    """

    norm: str
    groups: int
    standardise: bool
    axis: str | None
    dtype: jnp.dtype

    def conv(self, features: int, size: int, name: str) -> Callable[[Array], Array]:
        """A convolution of stride 1 without bias."""
        if self.standardise:
            return StandardisedConv(features, (size, size), dtype=self.dtype, name=name)
        return nn.Conv(features, (size, size), use_bias=False, dtype=self.dtype, name=name)

    def pooled_conv(self, x: Array, features: int, name: str) -> Array:
        """A 3x3 convolution, then the 2x2 maximum."""
        if self.standardise:
            return max_pool(self.conv(features, 3, name)(x))
        initial = nn.linear.default_kernel_init
        conv = ConvPool(
            features, (3, 3), "SAME", initial, use_bias=False, dtype=self.dtype, name=name
        )
        return conv(x)

    def normalise(self, x: Array, name: str, train: bool) -> Array:
        """Channels to mean 0 and variance 1, over the batch or each image; then an affine map.

        Raises:
            ValueError: if the channels do not divide into the groups.
        """
        if self.norm == "batch":
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=0.95,
                axis_name=self.axis,
                dtype=self.dtype,
                name=name,
            )(x)
        if self.groups < 1 or x.shape[-1] % self.groups:
            raise ValueError(
                f"small_resnet's groups must divide its width, {x.shape[-1]} channels at {name};"
                f" got {self.groups!r}"
            )
        return nn.GroupNorm(self.groups, epsilon=1e-5, dtype=self.dtype, name=name)(x)


class ResidualBlock(nn.Module):
    """conv-norm-ReLU-conv-norm plus the input, then ReLU.

    Attributes:
        features: channels out; where they differ from the input's, a 1x1 convolution joins.
        layers: how convolutions and norms are made.

    References:
        He et al. 2016, "Deep Residual Learning for Image Recognition", figure 2.
    """

    features: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """`[n, h, w, c]` to `[n, h, w, features]`."""
        conv, norm = self.layers.conv, self.layers.normalise
        y = nn.relu(norm(conv(self.features, 3, "conv1")(x), "norm1", train))
        y = norm(conv(self.features, 3, "conv2")(y), "norm2", train)
        if x.shape[-1] != self.features:
            x = norm(conv(self.features, 1, "join")(x), "norm_join", train)
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
        norm: "batch", or "group": over groups of an image's own channels, so that an embedding
            depends on no other image, in training neither.
        groups: of group norm; they divide the width.
        standardise: keep the kernels of the convolutions standardised (`models/standardised.py`);
            its authors pair that with group norm.
        pool_first: whether the stem pools before it normalises. On one channel convolution and pool
            then are one operation on a CPU, which never stores the map before the pool.
        attention: heads of a self-attention over the last map (`models/attention.py`); 0 for none.
        axis: name of the device axis to share batch statistics over, or None.
        dtype: of the computation; parameters are float32.

    References:
        Wu, He 2018, "Group Normalization". Qiao et al. 2019, "Micro-Batch Training with
        Batch-Channel Normalization and Weight Standardization" (arXiv 1903.10520).
    """

    initial: str = "he"
    width: int = 48
    embedding: int = 256
    tokens: int = 0
    norm: str = "batch"
    groups: int = 16
    standardise: bool = False
    pool_first: bool = False
    attention: int = 0
    axis: str | None = None
    dtype: jnp.dtype = jnp.float32  # pyright: ignore[reportAssignmentType]

    @nn.compact
    @typed
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n d"]:
        """Images in 0..1, `[n, h, w, c]`, to embeddings `[n, embedding + places * tokens]`."""
        if self.initial != "he":
            raise ValueError(f"small_resnet knows init he; got {self.initial!r}")
        if self.norm not in NORMS:
            raise ValueError(f"small_resnet knows norm {', '.join(NORMS)}; got {self.norm!r}")
        layers = Layers(self.norm, self.groups, self.standardise, self.axis, self.dtype)
        if self.pool_first:
            x = layers.normalise(layers.pooled_conv(x, self.width, "stem"), "stem_norm", train)
        else:
            x = layers.normalise(layers.conv(self.width, 3, "stem")(x), "stem_norm", train)
            x = max_pool(x)
        x = nn.relu(x)
        for name, features in (("block1", self.width), ("block2", 2 * self.width)):
            x = max_pool(ResidualBlock(features, layers, name=name)(x, train=train))
        x = ResidualBlock(4 * self.width, layers, name="block3")(x, train=train)
        if self.attention:
            x = SelfAttention(self.attention, self.dtype, name="attention")(x)
        z = nn.Dense(self.embedding, dtype=self.dtype, name="dense")(x.reshape(x.shape[0], -1))
        if not self.tokens:
            return z
        local = nn.Dense(self.tokens, dtype=self.dtype, name="tokens")(x)
        return jnp.concatenate([z, local.reshape(x.shape[0], -1)], -1)
