"""`Ensemble`: several nets of one architecture as one, whose score is the mean of theirs."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from siamjax.models.siamese import Siamese, mean
from siamjax.types import AnyArray, PairOutput, typed


class Ensemble(nn.Module):
    """Trained nets side by side; an embedding holds one of each, a comparison is their mean.

    Nets from several seeds err on different pairs, so the mean of their scores tends to err less
    than one of them alone. The mean is taken of logits, or of distances, after each member has
    compared its own embeddings by its own head: whatever a head does with them, it does as alone,
    and what is symmetric stays so. It is for use, not for training.

    Attributes:
        members: two or more, built alike; the parameters of the first are `members_0`, and so on.

    References:
        Hansen, Salamon 1990, "Neural network ensembles", IEEE PAMI 12(10).
        Lakshminarayanan, Pritzel, Blundell 2017, "Simple and scalable predictive uncertainty
        estimation using deep ensembles", NeurIPS (arXiv 1612.01474).
    """

    members: tuple[Siamese, ...]

    # One after the other in a plain loop: mapped over stacked weights (vmap), convolutions become
    # grouped ones, which XLA's CPU backend runs slowly and the quick paths of convolution.py are
    # not for; inside a scan they are slow as well (siamjax/backend.py).

    @typed
    def __call__(
        self, left: Num[AnyArray, "b h w c"], right: Num[AnyArray, "b h w c"]
    ) -> PairOutput:
        """Pairs of images to `b` comparisons."""
        return mean([member(left, right) for member in self.members])

    @typed
    def embed(self, images: Num[AnyArray, "n h w c"]) -> Float[Array, "n d"]:
        """Images, `uint8` or float in 0..1, to the embeddings of all members, side by side."""
        return jnp.concatenate([member.embed(images) for member in self.members], -1)

    @typed
    def compare(
        self, left: Float[AnyArray, "*#b d"], right: Float[AnyArray, "*#b d"]
    ) -> PairOutput:
        """Embeddings, broadcast against each other, to comparisons."""
        parts = (jnp.split(side, len(self.members), -1) for side in (left, right))
        each = zip(self.members, *parts, strict=True)
        return mean([member.compare(a, b) for member, a, b in each])
