"""Heads: two embeddings to a `Distance` (small = alike) or a `Logit` (large = alike).

Every head is symmetric, and broadcasts: `[b, d], [b, d] -> [b]` for pairs,
`[n, 1, d], [1, m, d] -> [n, m]` for all pairs, so a gallery never runs the tower twice.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from siamjax.distances import absolute, cosine_similarity, l2, lp
from siamjax.types import Distance, Logit, typed

Initializer = Callable[..., Array]
_GLOROT, _ZERO = nn.initializers.glorot_uniform(), nn.initializers.zeros_init()


def _half(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    return 0.5 + nn.initializers.normal(0.01)(key, shape, dtype)


BIAS_INITS: dict[str, Initializer] = {"paper": _half, "seed": _half}  # 0 with any other name


def _raw(initializer: Initializer) -> Initializer:
    """Of what softplus turns into the magnitudes that `initializer` draws."""

    def raw(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        magnitude = jnp.abs(initializer(key, shape, dtype))
        return jnp.log(jnp.expm1(jnp.maximum(magnitude, 1e-6)))

    return raw


class Linear(nn.Module):
    """The weights of a dense layer, `kernel [inputs, outputs]` and `bias [outputs]`.

    Attributes:
        shape: inputs, outputs.
        kernel_init: of the kernel.
        bias_init: of the bias.
        nonnegative: keep the kernel above 0: its parameter goes through a softplus.
    """

    shape: tuple[int, int]
    kernel_init: Initializer = _GLOROT
    bias_init: Initializer = _ZERO
    nonnegative: bool = False

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """Kernel and bias, float32."""
        init = _raw(self.kernel_init) if self.nonnegative else self.kernel_init
        kernel = self.param("kernel", init, self.shape)
        bias = self.param("bias", self.bias_init, self.shape[1:])
        return nn.softplus(kernel) if self.nonnegative else kernel, bias


class WeightedL1(nn.Module):
    """`z = sum_i w_i |a_i - b_i| + bias`: a weighted city-block distance, learned as a logit.

    Attributes:
        initial: of the bias: "paper" and "seed" N(0.5, 0.01), else 0. The weights are Glorot
            uniform.
        nonnegative: `z = bias - sum_i softplus(w_i) |a_i - b_i|`: nothing is more alike than an
            image and itself. Plain weights, as the paper has them, may have any sign.

    References:
        Koch, Zemel, Salakhutdinov 2015, section 3.1.
    """

    initial: str = "he"
    nonnegative: bool = True

    @nn.compact
    @typed
    def __call__(
        self, left: Float[Array, "*#b d"], right: Float[Array, "*#b d"], *, train: bool = False
    ) -> Logit:
        """Embeddings `[..., d]` to a logit `[...]`."""
        bias_init = BIAS_INITS.get(self.initial, _ZERO)
        kernel_init = _raw(_GLOROT) if self.nonnegative else _GLOROT
        kernel = self.param("kernel", kernel_init, (left.shape[-1], 1))
        bias = self.param("bias", bias_init, (1,))
        weight = nn.softplus(kernel[:, 0]) if self.nonnegative else kernel[:, 0]
        difference = absolute(left - right).astype(jnp.float32)
        # A sum, not a product of matrices: all pairs fuse into one loop and are never stored.
        distance = (difference * weight).sum(-1)
        return Logit(bias[0] - distance if self.nonnegative else distance + bias[0])


class Euclidean(nn.Module):
    """`d = max(sum |a - b|^p, epsilon)^(1/p)`, no parameters; Euclidean for p = 2.

    Attributes:
        initial: unused; every head takes it.
        epsilon: floor of the sum (Keras' examples: 1e-7).
        midpoint: the distance that counts as undecided; half of the loss's margin.
        p: exponent, at least 1; 1 is the city-block distance.
    """

    initial: str = "he"
    epsilon: float = 0.0
    midpoint: float = 0.5
    p: int | float = 2

    @typed
    def __call__(
        self, left: Float[Array, "*#b d"], right: Float[Array, "*#b d"], *, train: bool = False
    ) -> Distance:
        """Embeddings `[..., d]` to a distance `[...]`."""
        left, right = left.astype(jnp.float32), right.astype(jnp.float32)
        return Distance(lp(left, right, self.p, self.epsilon), self.midpoint)


class EuclideanDense(nn.Module):
    """`z = w d + bias` of the Euclidean distance d: a logit from two parameters.

    Plain, the sign of w is learned; it starts at random, so half of all runs start the wrong way
    round.

    Attributes:
        initial: of the bias: "paper" and "seed" N(0.5, 0.01), else 0. w is Glorot uniform.
        epsilon: floor of the squared distance; 1e-7 as in Keras' examples.
        nonnegative: `z = bias - softplus(w) d`: nothing is more alike than an image and itself.

    References:
        Rosebrock 2020, "Siamese networks with Keras, TensorFlow, and Deep Learning"
        (pyimagesearch.com).
    """

    initial: str = "glorot"
    epsilon: float = 1e-7
    nonnegative: bool = True

    @nn.compact
    @typed
    def __call__(
        self, left: Float[Array, "*#b d"], right: Float[Array, "*#b d"], *, train: bool = False
    ) -> Logit:
        """Embeddings `[..., d]` to a logit `[...]`."""
        bias_init = BIAS_INITS.get(self.initial, _ZERO)
        kernel, bias = Linear((1, 1), _GLOROT, bias_init, self.nonnegative, name="dense")()
        d = l2(left.astype(jnp.float32), right.astype(jnp.float32), self.epsilon)
        return Logit(bias[0] - kernel[0, 0] * d if self.nonnegative else kernel[0, 0] * d + bias[0])


class EuclideanNormDense(nn.Module):
    """`sigmoid(w norm(d) + bias)` of the Euclidean distance d, itself taken as a distance in 0..1.

    `norm` is a batch norm over all distances of a batch: in training a pair's output depends on
    the others, in inference on the running statistics only. With the contrastive loss and margin 1
    the hinge is never cut off, so that loss is the mean squared error of the output against 1 for
    pairs of two classes and 0 for pairs of one (Brier's score), not a contrastive one.

    Attributes:
        initial: unused; w is Glorot uniform, the bias 0.
        epsilon: floor of the squared distance; 1e-7 as in Keras' examples.
        nonnegative: keep w above 0 and leave out the norm's own scale: nothing is more alike than
            an image and itself. Plain, w's sign is learned, and starts at random.
        axis: name of the device axis to share batch statistics over, or None.
    """

    initial: str = "glorot"
    epsilon: float = 1e-7
    nonnegative: bool = True
    axis: str | None = None

    @nn.compact
    @typed
    def __call__(
        self, left: Float[Array, "*#b d"], right: Float[Array, "*#b d"], *, train: bool = False
    ) -> Distance:
        """Embeddings `[..., d]` to a distance `[...]` in 0..1, undecided at 0.5."""
        d = l2(left.astype(jnp.float32), right.astype(jnp.float32), self.epsilon)
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.99,
            epsilon=1e-3,
            use_scale=not self.nonnegative,
            axis_name=self.axis,
            use_fast_variance=False,  # the fast one cancels where distances are nearly equal
            name="norm",
        )
        kernel, bias = Linear((1, 1), nonnegative=self.nonnegative, name="dense")()
        return Distance(nn.sigmoid(norm(d[..., None])[..., 0] * kernel[0, 0] + bias[0]))


def _torch(inputs: int) -> Initializer:
    """PyTorch's default for the kernel and the bias of a layer: uniform below 1/sqrt(inputs)."""

    def uniform(key: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -(inputs**-0.5), inputs**-0.5)

    return uniform


class L1Mlp(nn.Module):
    """`z = w2 . act(W1 |a - b| + b1) + b2`: a layer between |a - b| and the logit.

    Without an activation the two layers are one: `z` is a weighted city-block distance, and is
    computed as such, with `W1 w2` multiplied out once.

    Attributes:
        initial: "glorot": Glorot uniform kernels, biases 0; else PyTorch's default, as in the
            reference.
        hidden: units of the first layer.
        activation: "none" or "relu".
        nonnegative: `z = b2 - softplus(w2) . act(softplus(W1) |a - b| + b1)`: nothing is more alike
            than an image and itself.
    """

    initial: str = "torch"
    hidden: int = 512
    activation: str = "none"
    nonnegative: bool = True

    @nn.compact
    @typed
    def __call__(
        self, left: Float[Array, "*#b d"], right: Float[Array, "*#b d"], *, train: bool = False
    ) -> Logit:
        """Embeddings `[..., d]` to a logit `[...]`."""
        if self.activation not in ("none", "relu"):
            raise ValueError(f"l1_mlp knows activation none, relu; got {self.activation!r}")
        w1, b1 = self._linear("hidden", left.shape[-1], self.hidden)
        w2, b2 = self._linear("output", self.hidden, 1)
        difference = absolute(left - right).astype(jnp.float32)
        if self.activation == "none":
            z = (difference * (w1 @ w2)[:, 0]).sum(-1) + (b1 @ w2)[0]
        else:
            z = nn.relu(difference @ w1 + b1) @ w2[:, 0]
        return Logit(b2[0] - z if self.nonnegative else z + b2[0])

    def _linear(self, name: str, inputs: int, outputs: int) -> tuple[Array, Array]:
        glorot = self.initial == "glorot"
        kernel, bias = (_GLOROT, _ZERO) if glorot else (_torch(inputs), _torch(inputs))
        return Linear((inputs, outputs), kernel, bias, self.nonnegative, name=name)()


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
