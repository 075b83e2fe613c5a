"""`Siamese`: one tower for both sides, and a head that compares."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from siamjax.types import AnyArray, PairOutput, typed


class Siamese(nn.Module):
    """A tower and a head.

    Left and right go through the tower in one stacked call: the weights are shared by
    construction, batch statistics are those of both sides, and one large batch is faster than two.

    Attributes:
        tower: `(images [n, h, w, c], train=) -> [n, d]`.
        head: `(left [..., d], right [..., d], train=) -> Distance | Logit`.
        views: outside training, turned and mirrored copies of each image whose comparisons are
            averaged: up to 4 quarter turns, up to 8 with those of the mirror image. An embedding
            then holds those of all views, `[n, views * d]`. A net that was trained on turned
            classes judges each turn anew, for as many runs of the tower.
    """

    tower: nn.Module
    head: nn.Module
    views: int = 1

    @typed
    def __call__(
        self,
        left: Num[AnyArray, "b h w c"],
        right: Num[AnyArray, "b h w c"],
        *,
        train: bool = False,
    ) -> PairOutput:
        """Pairs of images to `b` comparisons."""
        return self.pairs(jnp.concatenate([left, right]), train=train)

    @typed
    def pairs(self, images: Num[AnyArray, "n h w c"], *, train: bool = False) -> PairOutput:
        """All left images, then all right ones, to `n / 2` comparisons."""
        both = self.embed(images, train=train)
        b = len(both) // 2
        return self.compare(both[:b], both[b:], train=train)

    @typed
    def all_pairs(
        self, images: Num[AnyArray, "n h w c"], *, groups: int = 1, train: bool = False
    ) -> PairOutput:
        """Every image with the m of its group: `[n, m]` comparisons for `n` runs of the tower.

        Args:
            images: group after group, `n = groups * m`.
            groups: of equal size.
            train: as for the tower.
        """
        z = self.embed(images, train=train).reshape(groups, len(images) // groups, -1)
        among = getattr(self.head, "among", None)  # of a head that has a quicker way for one set
        if among is not None and (train or self.views == 1):
            output = among(z, train=train)
        else:
            output = self.compare(z[:, :, None], z[:, None, :], train=train)
        return jax.tree.map(lambda value: value.reshape(len(images), -1), output)

    @typed
    def embed(
        self, images: Num[AnyArray, "n h w c"], *, train: bool = False
    ) -> Float[Array, "n d"]:
        """Images, `uint8` or float in 0..1, to embeddings."""
        if images.dtype == jnp.uint8:
            images = images.astype(jnp.float32) / 255
        if train or self.views == 1:
            return self.tower(images, train=train)  # pyright: ignore[reportCallIssue]
        sides = [images, images[:, :, ::-1]]
        seen = [jnp.rot90(sides[k // 4], k % 4, (1, 2)) for k in range(self.views)]
        z = self.tower(jnp.concatenate(seen), train=train)  # pyright: ignore[reportCallIssue]
        return jnp.moveaxis(z.reshape(self.views, len(images), -1), 0, 1).reshape(len(images), -1)

    @typed
    def compare(
        self,
        left: Float[AnyArray, "*#b d"],
        right: Float[AnyArray, "*#b d"],
        *,
        train: bool = False,
    ) -> PairOutput:
        """Embeddings, broadcast against each other, to comparisons."""
        if train or self.views == 1:
            return self.head(left, right, train=train)  # pyright: ignore[reportCallIssue]
        sides = (jnp.split(side, self.views, -1) for side in (left, right))
        outputs = [
            self.head(a, b, train=train)  # pyright: ignore[reportCallIssue]
            for a, b in zip(*sides, strict=True)
        ]
        return mean(outputs)


def mean(outputs: Sequence[PairOutput]) -> PairOutput:
    """The mean of comparisons of one kind and shape."""
    return jax.tree.map(lambda *values: sum(values) / len(values), *outputs)
