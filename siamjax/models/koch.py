"""The convolutional tower of Koch, Zemel and Salakhutdinov (2015)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from siamjax.models.convolution import ConvPool, convolve
from siamjax.types import typed

Initializer = Callable[..., Array]


def _normal(mean: float, deviation: float) -> Initializer:
    def initializer(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        return mean + deviation * jax.random.normal(key, shape, dtype)

    return initializer


_SMALL, _HALF = _normal(0.0, 0.01), _normal(0.5, 0.01)
_ZERO = nn.initializers.zeros_init()

# name -> (convolution kernels, bias of conv1, other convolution biases, dense kernel, dense bias)
INITS: dict[str, tuple[Initializer, ...]] = {
    "paper": (_SMALL, _HALF, _HALF, _normal(0.0, 0.2), _HALF),
    "seed": (_SMALL, _ZERO, _HALF, _SMALL, _HALF),
    "he": (nn.initializers.he_normal(), _ZERO, _ZERO, nn.initializers.lecun_normal(), _ZERO),
}


class Koch(nn.Module):
    """Four VALID convolutions with ReLU, three 2x2 pools, one wide sigmoid layer.

    At 105x105 the maps are 105 -> 96 -> 48 -> 42 -> 21 -> 18 -> 9 -> 6, flattened to 9216, and
    the tower has 38,947,648 parameters.

    Attributes:
        initial: "paper" (Koch et al., section 3.2: kernels N(0, 0.01), dense N(0, 0.2), biases
            N(0.5, 0.01)); "seed" (the Keras ports: dense N(0, 0.01), first bias 0); "he"
            (He/LeCun, biases 0). The first two start almost constant: two characters' embeddings
            differ by 0.003 and 0.0006 a unit, by 0.1 with "he".
        features: channels of the four convolutions.
        embedding: size of the sigmoid layer.
        dtype: of the computation; parameters are float32.

    References:
        Koch, Zemel, Salakhutdinov 2015, "Siamese Neural Networks for One-shot Image Recognition",
        figure 4.
    """

    initial: str = "he"
    features: tuple[int, int, int, int] = (64, 128, 128, 256)
    embedding: int = 4096
    dtype: jnp.dtype = jnp.float32  # pyright: ignore[reportAssignmentType]

    @nn.compact
    @typed
    def __call__(self, x: Float[Array, "n h w c"], *, train: bool) -> Float[Array, "n d"]:
        """Images in 0..1, `[n, h, w, c]` with h and w at least 65, to embeddings in 0..1."""
        if self.initial not in INITS:
            raise ValueError(f"koch knows init {', '.join(INITS)}; got {self.initial!r}")
        if min(x.shape[1:3]) < 65:
            raise ValueError(
                f"the Koch tower needs images of at least 65x65 (105x105 in the paper); got"
                f" {x.shape[1]}x{x.shape[2]}: set config.data.size, or use another tower"
            )
        kernel, first_bias, bias, dense_kernel, dense_bias = INITS[self.initial]
        for i, (features, size) in enumerate(zip(self.features, (10, 7, 4, 4), strict=True)):
            settings: Any = {
                "features": features,
                "kernel_size": (size, size),
                "padding": "VALID",
                "kernel_init": kernel,
                "bias_init": bias if i else first_bias,
                "dtype": self.dtype,
                "name": f"conv{i + 1}",
            }
            if i < 3:
                layer = ConvPool(**settings)
            else:
                layer = nn.Conv(**settings, conv_general_dilated=convolve)
            # ReLU and maximum commute: after the pool it has a quarter of the work.
            x = nn.relu(layer(x))
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(
            self.embedding,
            kernel_init=dense_kernel,
            bias_init=dense_bias,
            dtype=self.dtype,
            name="dense",
        )(x)
        return nn.sigmoid(x)
