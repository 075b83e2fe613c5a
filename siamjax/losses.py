"""Losses of pairs and of sets. Each returns one value per example; the objective averages.

`same` is True for one class, everywhere. (Hadsell et al. 2006 write 0 for same; Keras' examples
and this library write 1.)

A pair loss takes `(output, same)` of one shape, any shape, and returns that shape. A set loss
takes the `[n, n]` comparison of every image with every other and returns `[n]`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from siamjax.types import Distance, Logit, PairOutput, typed


def _logit(output: PairOutput, loss: str) -> Array:
    if not isinstance(output, Logit):
        raise ValueError(
            f"{loss} needs a head that gives a logit (large = alike), but this head gives a distance"
            " (small = alike): use loss contrastive, or a head such as weighted_l1 or cosine"
        )
    return output.value.astype(jnp.float32)


def _distance(output: PairOutput, loss: str) -> Array:
    if not isinstance(output, Distance):
        raise ValueError(
            f"{loss} needs a head that gives a distance (small = alike), but this head gives a logit"
            " (large = alike): use loss bce, or a head such as euclidean"
        )
    return output.value.astype(jnp.float32)


@typed
def bce(output: PairOutput, same: Bool[Array, "*b"]) -> Float[Array, "*b"]:
    """Binary cross-entropy of a logit z: `log(1 + e^z) - same * z`.

    A constant output of p = 1/2 costs ln 2 = 0.693 for every pair.

    Raises:
        ValueError: if the head gives a distance.

    Example:
        >>> from siamjax.types import Logit
        >>> bce(Logit(jnp.array([0.0, 2.0])), jnp.array([True, False])).tolist()
        [0.6931471824645996, 2.1269280910491943]
    """
    z = _logit(output, "bce")
    return jax.nn.softplus(z) - jnp.where(same, z, 0.0)


@typed
def contrastive(
    output: PairOutput, same: Bool[Array, "*b"], margin: float = 1.0
) -> Float[Array, "*b"]:
    """The contrastive loss `same * d^2 + (1 - same) * max(margin - d, 0)^2`.

    Raises:
        ValueError: if the head gives a logit.

    Example:
        >>> from siamjax.types import Distance
        >>> d = Distance(jnp.array([0.5, 0.5, 3.0]))
        >>> contrastive(d, jnp.array([True, False, False]), margin=2.0).tolist()
        [0.25, 2.25, 0.0]

    References:
        Hadsell, Chopra, LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping",
        equation 4, without its factor 1/2 and with the labels the other way round.
    """
    d = _distance(output, "contrastive")
    return jnp.where(same, d**2, jnp.maximum(margin - d, 0.0) ** 2)


@typed
def nca(
    output: PairOutput, same: Bool[Array, "n n"], mask: Bool[Array, "n n"]
) -> Float[Array, "n"]:
    """Softmax over the other images: `-log(sum_same e^s / sum_all e^s)` for each image.

    s is the logit, or minus the squared distance. Only pairs where `mask` is True take part; an
    image with no partner of its class, or nothing to tell it from, costs 0.

    Args:
        output: `[n, n]`, row i the comparison of image i with every image.
        same: `[n, n]`, whether two images are of one class.
        mask: `[n, n]`, which pairs take part; the diagonal must be False.

    Returns:
        `[n]`, at least 0.

    References:
        Goldberger et al. 2004, "Neighbourhood Components Analysis", with the log of equation 2
        as in its section 2.2.
    """
    value = output.value.astype(jnp.float32)
    score = value if isinstance(output, Logit) else -jnp.square(value)
    alike = _log_sum_exp(score, mask & same)
    everything = _log_sum_exp(score, mask)
    counted = (mask & same).any(-1)
    return jnp.where(counted, everything - alike, 0.0)


def _log_sum_exp(score: Array, mask: Array) -> Array:
    """Over the last axis where `mask`; 0, with a zero gradient, where nothing is."""
    some = mask.any(-1)
    # -inf in every place would make the gradient NaN, even behind a where.
    safe = jnp.where(mask, score, jnp.where(some[..., None], -jnp.inf, 0.0))
    return jnp.where(some, jax.nn.logsumexp(safe, axis=-1), 0.0)


PAIR_LOSSES: dict[str, Callable] = {"bce": bce, "contrastive": contrastive}
SET_LOSSES: dict[str, Callable] = {"nca": nca}
LOSSES: dict[str, Callable] = {**PAIR_LOSSES, **SET_LOSSES}
