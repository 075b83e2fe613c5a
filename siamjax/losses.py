"""Losses of pairs and of sets. Each returns one value per example; the objective averages.

`same` is True for one class, everywhere. (Hadsell et al. 2006 write 0 for same; Keras' examples
and this library write 1.)

A pair loss takes `(output, same)` of one shape, any shape, and returns that shape. A set loss
takes the `[n, m]` comparisons of every image with those of its group and returns `[n]`; an image
that has nothing to be compared with costs 0, and `anchors` tells which to leave out of the average.
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
            f"{loss} needs a head that gives a logit (large = alike), but this head gives a"
            " distance (small = alike): use a loss such as contrastive, or a head such as cosine"
        )
    return output.value.astype(jnp.float32)


def _distance(output: PairOutput, loss: str) -> Array:
    if not isinstance(output, Distance):
        raise ValueError(
            f"{loss} needs a head that gives a distance (small = alike), but this head gives a"
            " logit (large = alike): use loss bce, or a head such as euclidean"
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
def contrastive_half(
    output: PairOutput, same: Bool[Array, "*b"], margin: float = 1.0
) -> Float[Array, "*b"]:
    """The contrastive loss as first published, with 1/2: half of `contrastive`.

    The minimum is the same; a learning rate tuned for one is twice or half right for the other
    (not for Adam and RMSprop, whose step does not depend on the loss's scale).

    Raises:
        ValueError: if the head gives a logit.

    Example:
        >>> from siamjax.types import Distance
        >>> d = Distance(jnp.array([0.5, 0.5, 3.0]))
        >>> contrastive_half(d, jnp.array([True, False, False]), margin=2.0).tolist()
        [0.125, 1.125, 0.0]

    References:
        Hadsell, Chopra, LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping",
        equation 4, with the labels the other way round.
    """
    return 0.5 * contrastive(output, same, margin)


@typed
def contrastive_squared(
    output: PairOutput, same: Bool[Array, "*b"], margin: float = 1.0
) -> Float[Array, "*b"]:
    """A linear hinge on squared distances D: `same * D + (1 - same) * max(margin - D, 0)`.

    D = d^2, and the margin is in its units: pairs of two classes are pushed beyond
    d = sqrt(margin), and D = margin / 2 is undecided. The push on them is `2 d`: it vanishes as the
    two come together, where that of `contrastive` is largest.

    Raises:
        ValueError: if the head gives a logit.

    Example:
        >>> from siamjax.types import Distance
        >>> d = Distance(jnp.array([0.5, 0.5, 3.0]))
        >>> contrastive_squared(d, jnp.array([True, False, False]), margin=2.0).tolist()
        [0.25, 1.75, 0.0]

    References:
        Musgrave, Belongie, Lim 2020, "PyTorch Metric Learning": its ContrastiveLoss over
        LpDistance(power=2), which also divides by the number of non-zero terms only.
    """
    squared = jnp.square(_distance(output, "contrastive_squared"))
    return jnp.where(same, squared, jnp.maximum(margin - squared, 0.0))


@typed
def anchors(same: Bool[Array, "n m"], mask: Bool[Array, "n m"]) -> Bool[Array, "n"]:
    """Which images of a set have both a partner of their class and one of another.

    The others cost 0 in a set loss and have no gradient; counted in an average, they would only
    dilute it.

    Args:
        same: `[n, m]`, whether two images are of one class.
        mask: `[n, m]`, which pairs take part; an image with itself must not.
    """
    return (mask & same).any(-1) & (mask & ~same).any(-1)


@typed
def triplet(
    output: PairOutput,
    same: Bool[Array, "n m"],
    mask: Bool[Array, "n m"],
    margin: float = 1.0,
    strategy: str = "hardest",
) -> Float[Array, "n"]:
    """The triplet loss `max(d(a, p) - d(a, n) + margin, 0)` of each image a as the anchor.

    p is an image of its class, n one of another. Which of them:

    - "hardest": the farthest p and the nearest n.
    - "semi_hard": every p, each with the nearest n that is farther than p, or where there is none
      the farthest n; the mean over p.
    - "all": the mean over every p and n. Compares n m^2 triplets: for a few hundred images.

    Args:
        output: `[n, m]` distances, row i those of image i to the m images of its group.
        same: `[n, m]`, whether two images are of one class.
        mask: `[n, m]`, which pairs take part; an image with itself must not.
        margin: how much farther than p an n has to be.
        strategy: "hardest", "semi_hard" or "all".

    Returns:
        `[n]`, at least 0; 0 for an image without a p or without an n (see `anchors`). When all
        distances collapse to 0 the loss stays at `margin`, and the gradient is 0.

    Raises:
        ValueError: if the head gives a logit, or for another strategy.

    References:
        Schroff, Kalenichenko, Philbin 2015, "FaceNet", equations 2 and 4 (there on squared
        distances of unit vectors); Hermans, Beyer, Leibe 2017, "In Defense of the Triplet Loss for
        Person Re-Identification", equations 5 and 6 (as means, not sums).
    """
    if strategy not in TRIPLET_STRATEGIES:
        known = ", ".join(TRIPLET_STRATEGIES)
        raise ValueError(f"triplet knows strategy {known}; got {strategy!r}")
    d = _distance(output, "triplet")
    positive, negative = mask & same, mask & ~same
    loss = TRIPLET_STRATEGIES[strategy](d, positive, negative, margin)
    return jnp.where(anchors(same, mask), loss, 0.0)


def _hardest(d: Array, positive: Array, negative: Array, margin: float) -> Array:
    nearest = _extreme(d, negative, largest=False)
    return jnp.maximum(_extreme(d, positive, largest=True) - nearest + margin, 0.0)


def _semi_hard(d: Array, positive: Array, negative: Array, margin: float) -> Array:
    rising = jnp.sort(jnp.where(negative, d, jnp.inf), axis=-1)
    # Of each row's negatives, in rising order, the first one beyond each of its positives.
    after = jax.vmap(lambda row, at: jnp.searchsorted(row, at, side="right"))(rising, d)
    chosen = jnp.take_along_axis(rising, jnp.minimum(after, d.shape[-1] - 1), axis=-1)
    beyond = jnp.isfinite(chosen) & (after < d.shape[-1])
    farthest = _extreme(d, negative, largest=True)[:, None]
    chosen = jnp.where(beyond, jnp.where(beyond, chosen, 0.0), farthest)
    return row_mean(jnp.maximum(d - chosen + margin, 0.0), positive)


def _all(d: Array, positive: Array, negative: Array, margin: float) -> Array:
    hinge = jnp.maximum(d[:, :, None] - d[:, None, :] + margin, 0.0)
    valid = (positive[:, :, None] & negative[:, None, :]).reshape(len(d), -1)
    return row_mean(hinge.reshape(len(d), -1), valid)


TRIPLET_STRATEGIES: dict[str, Callable[..., Array]] = {
    "hardest": _hardest,
    "semi_hard": _semi_hard,
    "all": _all,
}


def _extreme(values: Array, mask: Array, largest: bool) -> Array:
    """The largest or smallest of each row over `mask`; 0 where there is none."""
    filled = jnp.where(mask, values, -jnp.inf if largest else jnp.inf)
    return jnp.where(mask.any(-1), filled.max(-1) if largest else filled.min(-1), 0.0)


def row_mean(values: Array, mask: Array) -> Array:
    """The mean of each row over `mask`; 0 where there is none."""
    return jnp.where(mask, values, 0.0).sum(-1) / jnp.maximum(mask.sum(-1), 1)


@typed
def nca(
    output: PairOutput, same: Bool[Array, "n m"], mask: Bool[Array, "n m"]
) -> Float[Array, "n"]:
    """Softmax over the other images: `-log(sum_same e^s / sum_all e^s)` for each image.

    s is the logit, or minus the squared distance. Only pairs where `mask` is True take part; an
    image with no partner of its class, or nothing to tell it from, costs 0.

    Args:
        output: `[n, m]`, row i the comparison of image i with the m images of its group.
        same: `[n, m]`, whether two images are of one class.
        mask: `[n, m]`, which pairs take part; an image with itself must not.

    Returns:
        `[n]`, at least 0.

    References:
        Goldberger et al. 2004, "Neighbourhood Components Analysis", with the log of equation 2
        as in its section 2.2.
    """
    score = _score(output)
    alike = _log_sum_exp(score, mask & same)
    everything = _log_sum_exp(score, mask)
    counted = (mask & same).any(-1)
    return jnp.where(counted, everything - alike, 0.0)


@typed
def supervised_contrastive(
    output: PairOutput, same: Bool[Array, "n m"], mask: Bool[Array, "n m"]
) -> Float[Array, "n"]:
    """As `nca`, but every partner must be near: `mean_same(log(sum_all e^s) - s)`.

    `nca` is content with one near partner of several; this is its bound from above, and equal to it
    where an image has one partner (N-pair loss, InfoNCE).

    Args:
        output: `[n, m]`, as in `nca`.
        same: `[n, m]`, as in `nca`.
        mask: `[n, m]`, as in `nca`.

    Returns:
        `[n]`, at least 0.

    References:
        Khosla et al. 2020, "Supervised Contrastive Learning", equation 2; Sohn 2016, "Improved Deep
        Metric Learning with Multi-class N-pair Loss Objective", equation 6.
    """
    score = _score(output)
    counted = (mask & same).any(-1)
    return jnp.where(counted, _log_sum_exp(score, mask) - row_mean(score, mask & same), 0.0)


@typed
def prototypical(
    output: PairOutput, same: Bool[Array, "n m"], mask: Bool[Array, "n m"]
) -> Float[Array, "n"]:
    """Softmax over classes, each by the mean of its scores: `-log(e^S_own / sum_classes e^S)`.

    S is the mean score of an image with a class's images, itself left out. For a score linear in
    the other embedding, as the cosine head's on unit vectors is up to the prototype's length, the
    mean score is the score of the mean: the class's prototype.

    Args:
        output: `[n, m]`, as in `nca`; the rows of a group stand together, n is a multiple of m.
        same: `[n, m]`, as in `nca`.
        mask: `[n, m]`, as in `nca`.

    Returns:
        `[n]`, at least 0.

    References:
        Snell, Swersky, Zemel 2017, "Prototypical Networks for Few-shot Learning", equation 2.
    """
    m = same.shape[-1]
    score = jnp.where(mask, _score(output), 0.0).reshape(-1, m, m)
    there = mask.reshape(-1, m, m).astype(jnp.float32)
    classes = same.reshape(-1, m, m).astype(jnp.float32)  # of the columns, as they are the rows
    count = there @ classes
    mean = (score @ classes / jnp.maximum(count, 1)).reshape(-1, m)
    # A class stands in as many columns as it has images there: each counts its share.
    share = jnp.log(jnp.maximum(count.reshape(-1, m), 1))
    everything = _log_sum_exp(mean - share, mask)
    partners = mask & same
    return jnp.where(partners.any(-1), everything - row_mean(mean, partners), 0.0)


def _score(output: PairOutput) -> Array:
    """The logit, or minus the squared distance."""
    value = output.value.astype(jnp.float32)
    return value if isinstance(output, Logit) else -jnp.square(value)


def _log_sum_exp(score: Array, mask: Array) -> Array:
    """Over the last axis where `mask`; 0, with a zero gradient, where nothing is."""
    some = mask.any(-1)
    # -inf in every place would make the gradient NaN, even behind a where.
    safe = jnp.where(mask, score, jnp.where(some[..., None], -jnp.inf, 0.0))
    return jnp.where(some, jax.nn.logsumexp(safe, axis=-1), 0.0)


PAIR_LOSSES: dict[str, Callable] = {
    "bce": bce,
    "contrastive": contrastive,
    "contrastive_half": contrastive_half,
    "contrastive_squared": contrastive_squared,
}
SET_LOSSES: dict[str, Callable] = {
    "nca": nca,
    "prototypical": prototypical,
    "supervised_contrastive": supervised_contrastive,
    "triplet": triplet,
}
LOSSES: dict[str, Callable] = {**PAIR_LOSSES, **SET_LOSSES}
