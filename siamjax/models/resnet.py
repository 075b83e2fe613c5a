"""ResNet with pre-activation (version 2), layer for layer that of Keras, as a tower."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from siamjax.models.convolution import convolve
from siamjax.models.dropout import Dropout
from siamjax.models.normalisation import normalise
from siamjax.types import typed

BLOCKS: dict[int, tuple[int, int, int, int]] = {
    26: (2, 2, 2, 2),  # for small data and tests; no weights are published
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
CHANNELS = 64
INITS = {
    "keras": nn.initializers.glorot_uniform(),
    "he": nn.initializers.he_normal(),
}
_EDGE = ((0, 0), (1, 1), (1, 1), (0, 0))


class Backbone(nn.Module):
    """All that `keras.applications.resnet_v2` has without its top, under the same layer names.

    Attributes:
        depth: 26, 50, 101 or 152.
        initial: "keras" or "he".
        divide: every number of channels is divided by it.
        remat: compute a block's maps again in the backward pass.
        axis: name of the device axis to share batch statistics over, or None.
        dtype: of the computation.
    """

    depth: int
    initial: str
    divide: int
    remat: bool
    axis: str | None
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """`[n, h, w, c]` to maps `[n, about h / 32, about w / 32, 2048 / divide]`."""
        width = CHANNELS // self.divide
        x = self._conv("conv1_conv", width, 7, stride=2, padding=3)(x)
        # Keras pads with zeros, not with minus infinity: an edge of negative values becomes 0.
        x = nn.max_pool(jnp.pad(x, _EDGE), (3, 3), (2, 2))
        block = Backbone._block
        if self.remat:
            block = nn.remat(block, static_argnums=(2, 3, 4, 5, 6))
        for stack, blocks in enumerate(BLOCKS[self.depth]):
            for i in range(1, blocks + 1):
                # Version 2 of Keras halves the maps in a stack's LAST block.
                stride = 2 if i == blocks and stack < 3 else 1
                name = f"conv{stack + 2}_block{i}"
                x = block(self, x, name, width * 2**stack, stride, i == 1, train)
        return nn.relu(self._norm("post_bn", train)(x))

    def _block(
        self, x: Array, name: str, features: int, stride: int, first: bool, train: bool
    ) -> Array:
        y = nn.relu(self._norm(f"{name}_preact_bn", train)(x))
        if first:
            shortcut = self._conv(f"{name}_0_conv", 4 * features, 1, stride)(y)
        else:
            shortcut = x[:, ::stride, ::stride]  # a max pool of 1x1
        y = self._conv(f"{name}_1_conv", features, 1, bias=False)(y)
        y = nn.relu(self._norm(f"{name}_1_bn", train)(y))
        y = self._conv(f"{name}_2_conv", features, 3, stride, padding=1, bias=False)(y)
        y = nn.relu(self._norm(f"{name}_2_bn", train)(y))
        return shortcut + self._conv(f"{name}_3_conv", 4 * features, 1)(y)

    def _conv(
        self,
        name: str,
        features: int,
        size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> nn.Conv:
        return nn.Conv(
            features,
            (size, size),
            (stride, stride),
            padding=padding,
            use_bias=bias,
            kernel_init=INITS[self.initial],
            dtype=self.dtype,
            conv_general_dilated=convolve,
            name=name,
        )

    def _norm(self, name: str, train: bool) -> nn.BatchNorm:
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.99,
            epsilon=1.001e-5,
            axis_name=self.axis,
            dtype=self.dtype,
            name=name,
        )


class ResNetV2(nn.Module):
    """ResNet-v2 without its top, flattened; then dropout, a dense layer and ReLU.

    At 64x64 the maps are 64 -> 32 -> 16 -> 8 -> 4 -> 2 -> 2, flattened (row, column, channel) to
    8192. Depth 152 has 58,331,648 numbers in the backbone, statistics included, and the dense
    layer to 512 another 4,194,816.

    Attributes:
        initial: "keras" (Glorot uniform kernels, zero biases) or "he" (He normal kernels).
        depth: 26, 50, 101 or 152.
        frozen: the backbone stays as it is: its batch norms use the stored statistics also in
            training, and no gradient reaches it. Meant for imported weights.
        normalise: "unit" (pixels in 0..1 go in as they are), "tf" (-1..1, what Keras' weights
            were trained with) or "imagenet".
        replicate_grey: give a grey image three equal channels, so that weights trained on colour
            fit as they are; otherwise its first kernel has one input channel.
        embedding: size of the dense layer; 0 for none: the flattened maps come out.
        dropout: share of the flattened maps that is dropped in training, before the dense layer.
        divide: every number of channels of the backbone is divided by it, for small tests.
        remat: forget a block's maps after the forward pass, and compute them again in the backward
            pass: meant for GPUs, less memory and more work; neither was measured.
        from_features: the input is the flattened maps, as `embedding=0` gives them, not images:
            for a frozen backbone that ran before.
        axis: name of the device axis to share batch statistics over, or None.
        dtype: of the computation; parameters are float32.

    References:
        He, Zhang, Ren, Sun 2016, "Identity Mappings in Deep Residual Networks", figure 4e. As
        `keras.applications.resnet_v2`, which halves the maps in the last block of a stack, not
        in the first.
    """

    initial: str = "keras"
    depth: int = 50
    frozen: bool = False
    normalise: str = "tf"
    replicate_grey: bool = False
    embedding: int = 512
    dropout: float = 0.0
    divide: int = 1
    remat: bool = False
    from_features: bool = False
    axis: str | None = None
    dtype: jnp.dtype = jnp.float32  # pyright: ignore[reportAssignmentType]

    @nn.compact
    @typed
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n d"]:
        """Images in 0..1, `[n, h, w, c]`, to `[n, embedding]`."""
        self._check()
        if not self.from_features:
            x = self._backbone(x, train)
        x = x.reshape(x.shape[0], -1)
        if not self.embedding:
            return x
        x = Dropout(self.dropout)(x, train=train)
        x = nn.Dense(
            self.embedding, kernel_init=INITS[self.initial], dtype=self.dtype, name="dense"
        )(x)
        return nn.relu(x)

    def _backbone(self, x: Array, train: bool) -> Array:
        x = normalise(x, self.normalise, self.replicate_grey)
        backbone = Backbone(
            self.depth,
            self.initial,
            self.divide,
            self.remat,
            self.axis,
            self.dtype,
            name="backbone",
        )
        x = backbone(x, train=train and not self.frozen)
        return lax.stop_gradient(x) if self.frozen else x

    def _check(self) -> None:
        if self.initial not in INITS:
            raise ValueError(f"resnet_v2 knows init {', '.join(INITS)}; got {self.initial!r}")
        if self.depth not in BLOCKS:
            known = ", ".join(map(str, BLOCKS))
            raise ValueError(f"resnet_v2 has depth {known}; got {self.depth!r}")
        if self.divide < 1 or CHANNELS % self.divide:
            raise ValueError(f"resnet_v2's divide must divide {CHANNELS}; got {self.divide!r}")
