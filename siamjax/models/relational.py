"""`Relational`: a head that looks at both images at once, place by place."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from siamjax.distances import absolute, cosine_similarity
from siamjax.types import Logit, typed


class Relational(nn.Module):
    """The cosine of two embeddings, plus what a comparison of local features finds.

    An embedding is a global vector, then the tokens of a square grid of places (a tower's option
    `tokens` appends them). Each token of one image looks for its counterpart in the other by
    cross-attention, near its own place first; the difference to what it finds becomes evidence,
    averaged over the grid, and a logit. Both directions count half, so the head is symmetric:

        z = e^s (cos(a, b) - c) + (r(a, b) + r(b, a)) / 2.

    For p tokens of c channels a pair costs about 2 p (2 p c + c h) multiplications, some hundred
    times less than an image in the tower: all pairs of a batch are affordable.

    Attributes:
        initial: unused; every head takes it.
        embedding: size of the global vector.
        grid: tokens along a side; p = grid^2.
        channels: of each token.
        hidden: h, units of the two layers behind the attention.
        scale: `e^s` at the start.
        midpoint: c at the start.

    References:
        Polis, Ilin 2021, "A Relational Model for One-Shot Classification", ESANN (arXiv
        2111.04313): tokens of both images under self- and cross-attention, one logit. Here the
        cross-attention alone, and one layer of it.
    """

    initial: str = "he"
    embedding: int = 256
    grid: int = 4
    channels: int = 32
    hidden: int = 64
    scale: float = 10.0
    midpoint: float = 0.5

    def setup(self):
        """The parameters, which both directions share."""
        places = self.grid**2
        self.log_scale = self.param("log_scale", nn.initializers.constant(jnp.log(self.scale)), ())
        self.centre = self.param("midpoint", nn.initializers.constant(self.midpoint), ())
        self.place = self.param("place", nn.initializers.normal(0.2), (places, self.channels))
        self.nearness = self.param("nearness", self._nearness, (places, places))
        self.query_norm, self.key_norm = nn.LayerNorm(), nn.LayerNorm()
        self.query = nn.Dense(self.channels, use_bias=False)
        self.key = nn.Dense(self.channels, use_bias=False)
        self.evidence = nn.Dense(self.hidden, use_bias=False)
        shape = (places, self.hidden)
        self.evidence_bias = self.param("evidence_bias", nn.initializers.zeros, shape)
        self.summary = nn.Dense(self.hidden)
        self.output = nn.Dense(1)

    def _nearness(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Minus half of the squared distance between places: attention starts as a Gaussian."""
        place = np.stack(np.unravel_index(np.arange(self.grid**2), (self.grid, self.grid)), -1)
        return jnp.asarray(-0.5 * np.square(place[:, None] - place[None]).sum(-1), jnp.float32)

    @typed
    def __call__(
        self, left: Float[Array, "*#b d"], right: Float[Array, "*#b d"], *, train: bool = False
    ) -> Logit:
        """Embeddings `[..., d]` to a logit `[...]`.

        Raises:
            ValueError: if d is not embedding + grid^2 channels.
        """
        cosine = self._cosine(left, right)
        left, right = left.astype(jnp.float32), right.astype(jnp.float32)
        if left.ndim > 2 and left.shape[-2] == 1 and right.shape[-3] == 1:
            # All rows against all: what is done for one image alone stays that way.
            left, right = left[..., 0, :], right[..., 0, :, :]
            r = self._towards(left, right) + self._towards(right, left).swapaxes(-1, -2)
        else:
            left, right = jnp.broadcast_arrays(left[..., None, :], right[..., None, :])
            r = (self._towards(left, right) + self._towards(right, left))[..., 0, 0]
        return Logit(cosine + r / 2)

    @typed
    def among(self, z: Float[Array, "*g m d"], *, train: bool = False) -> Logit:
        """Each of m rows with each other, `[..., m, m]`, for half the work of two sets."""
        cosine = self._cosine(z[..., :, None, :], z[..., None, :, :])
        r = self._towards(z.astype(jnp.float32), z.astype(jnp.float32))
        return Logit(cosine + (r + r.swapaxes(-1, -2)) / 2)

    def _cosine(self, left: Array, right: Array) -> Array:
        left, right = (x[..., : self.embedding].astype(jnp.float32) for x in (left, right))
        return jnp.exp(self.log_scale) * (cosine_similarity(left, right) - self.centre)

    def _towards(self, left: Array, right: Array) -> Array:
        """The relation r of each of `[..., m, d]` with each of `[..., n, d]`: `[..., m, n]`."""
        a, b = self._tokens(left), self._tokens(right)
        *rest, m, p, c = a.shape
        n = b.shape[-3]
        query = self.query(self.query_norm(a) + self.place) / c**0.5
        key = self.key(self.key_norm(b) + self.place)
        # One product of matrices for each right image: every layout below is the one that
        # the products leave, so nothing is transposed.
        match = jnp.einsum("...xc,...nqc->...nxq", query.reshape(*rest, m * p, c), key)
        match = match.reshape(*rest, n, m, p, p) + self.nearness
        match = jnp.exp(match - lax.stop_gradient(match.max(-1, keepdims=True)))
        total = match.sum(-1).reshape(*rest, n, m * p, 1)
        found = jnp.einsum("...nxq,...nqc->...nxc", match.reshape(*rest, n, m * p, p), b) / total
        difference = absolute(a.reshape(*rest, 1, m * p, c) - found)
        seen = self.evidence(difference).reshape(*rest, n, m, p, self.hidden) + self.evidence_bias
        seen = nn.relu(self.summary(nn.relu(seen).mean(-2)))
        return self.output(seen)[..., 0].swapaxes(-1, -2)

    def _tokens(self, z: Array) -> Array:
        expected = self.embedding + self.grid**2 * self.channels
        if z.shape[-1] != expected:
            raise ValueError(
                f"the relational head expects embeddings of {expected} numbers, {self.embedding}"
                f" and {self.grid} x {self.grid} tokens of {self.channels}; got {z.shape[-1]}: give"
                f" the tower tokens={self.channels}, and the head the grid of its last map"
            )
        shape = (*z.shape[:-1], self.grid**2, self.channels)
        return z[..., self.embedding :].reshape(shape)
