"""The values that pass between the parts of siamjax, and `typed`, which checks shapes in tests.

Letters for shapes, everywhere: `n` images, `b` pairs, `h w c` rows, columns and channels,
`d` embedding size, `t` trials, `k` support images per class.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, UInt8, jaxtyped

F = TypeVar("F", bound=Callable)
AnyArray = Array | np.ndarray  # of JAX or of NumPy


def typed(function: F) -> F:
    """Checks a function's jaxtyping annotations at each call when `SIAMJAX_TYPECHECK=1`.

    The tests set that variable. Without it the function is returned as it is, so shape
    annotations cost a user nothing.
    """
    if os.environ.get("SIAMJAX_TYPECHECK") != "1":
        return function
    from beartype import beartype

    return cast(F, jaxtyped(function, typechecker=beartype))


# ------------------------------------------------------------------------------ images on the host


@dataclass(frozen=True)
class LabelledImages:
    """Decoded images with their classes: what every data source gives.

    Attributes:
        images: `uint8 [n, h, w, c]`, preprocessed; often a read-only memory map.
        labels: `int32 [n]`, the class of each image, `0 .. classes - 1`.
        groups: `int32 [n]`, the coarser label above the class (Omniglot's alphabet);
            all zero where the data has none.
        drawers: `int32 [n]`, who drew it (Omniglot), or all -1 where unknown.
        class_names: one name per label.
        group_names: one name per group.
        paths: where each image came from (inside its zip or folder), for reports.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, "n"]
    groups: Int32[np.ndarray, "n"]
    drawers: Int32[np.ndarray, "n"]
    class_names: tuple[str, ...]
    group_names: tuple[str, ...] = ("all",)
    paths: tuple[str, ...] = ()

    def __post_init__(self):
        n = len(self.images)
        for name in ("labels", "groups", "drawers"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{n} images but {len(getattr(self, name))} {name}")
        if n and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise ValueError(f"labels must lie in 0..{len(self.class_names) - 1}")

    def __len__(self) -> int:
        return len(self.images)

    def select(self, keep: np.ndarray) -> LabelledImages:
        """The images at `keep` (indices or a mask), classes and groups renumbered from 0."""
        keep = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep)
        classes, labels = np.unique(self.labels[keep], return_inverse=True)
        group_ids, groups = np.unique(self.groups[keep], return_inverse=True)
        return LabelledImages(
            images=self.images[keep],
            labels=labels.astype(np.int32),
            groups=groups.astype(np.int32),
            drawers=self.drawers[keep],
            class_names=tuple(self.class_names[i] for i in classes),
            group_names=tuple(self.group_names[i] for i in group_ids),
            paths=tuple(self.paths[i] for i in keep) if self.paths else (),
        )


class PairTable(NamedTuple):
    """`p` fixed pairs as indices into a `LabelledImages`.

    Attributes:
        left, right: `int32 [p]`.
        same: `bool [p]`, True where both show one class.
    """

    left: Int32[np.ndarray, "p"]
    right: Int32[np.ndarray, "p"]
    same: Bool[np.ndarray, "p"]


@dataclass(frozen=True)
class DataSplits:
    """What a source hands to the trainer.

    Attributes:
        train: images the weights learn from.
        validation: images that choose the checkpoint and the threshold.
        test: images touched by neither, or None where the data has none.
        name: the data set really used ("omniglot", "glyphs", ...), printed beside every result.
        summary: one line of what was found ("30 alphabets, 964 classes, 19,280 images, ...").
        notes: sentences the user must see: what was held out, skipped, or replaced.
        fingerprint: a digest of the source files and the preprocessing.
        pairs: fixed pairs of a split ("train", "validation", "test"), where the source states
            pairs rather than classes.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages | None
    name: str
    summary: str
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    pairs: Mapping[str, PairTable] = field(default_factory=dict)


@dataclass(frozen=True)
class Episodes:
    """One-shot trials as indices into a `LabelledImages`.

    Attributes:
        query: `int32 [t]`, the image to be recognised.
        support: `int32 [t, way, k]`, the images it is compared with.
        answer: `int32 [t]`, which of the `way` classes is the query's.
        protocol: the exact name of the evaluation; no accuracy is printed without it.
    """

    query: Int32[np.ndarray, "t"]
    support: Int32[np.ndarray, "t way k"]
    answer: Int32[np.ndarray, "t"]
    protocol: str


# ---------------------------------------------------------------------------- values in the step


class PairDraw(NamedTuple):
    """`b` pairs as indices into the images: what a pair scheme draws.

    Attributes:
        left, right: `int32 [b]`.
        same: `bool [b]`, True where both show one class.
        weight: `float32 [b]`, 0 for padding.
        slot: `int32 [b]`, each pair's place in the whole batch over all devices.
    """

    left: Int32[Array, "b"]
    right: Int32[Array, "b"]
    same: Bool[Array, "b"]
    weight: Float[Array, "b"]
    slot: Int32[Array, "b"]

    @property
    def image_index(self) -> Int32[Array, "n"]:
        """All left images, then all right ones."""
        return jnp.concatenate([self.left, self.right])

    @property
    def image_slot(self) -> Int32[Array, "n"]:
        """A number for each image of the whole batch, wherever it is computed."""
        return jnp.concatenate([2 * self.slot, 2 * self.slot + 1])

    @property
    def shared_slot(self) -> Int32[Array, "n"]:
        """A number for each image, equal for those that are compared with each other."""
        return jnp.concatenate([self.slot, self.slot])


class SetDraw(NamedTuple):
    """`g` groups of `m` images, each image to be compared with every other one of its group.

    Attributes:
        index: `int32 [g, m]`, into the images.
        label: `int32 [g, m]`, equal for images of one class.
        turns: `int32 [g, m]`, quarter turns to rotate each image by.
        weight: `float32 [g, m]`, 0 for padding.
        slot: `int32 [g, m]`, each image's place in the whole batch over all devices.
    """

    index: Int32[Array, "g m"]
    label: Int32[Array, "g m"]
    turns: Int32[Array, "g m"]
    weight: Float[Array, "g m"]
    slot: Int32[Array, "g m"]

    @property
    def image_index(self) -> Int32[Array, "n"]:
        """All images, group after group."""
        return self.index.reshape(-1)

    @property
    def image_slot(self) -> Int32[Array, "n"]:
        """The slots of `image_index`."""
        return self.slot.reshape(-1)

    @property
    def shared_slot(self) -> Int32[Array, "n"]:
        """A number for each image, equal for those of a group: the slot of its first."""
        return jnp.broadcast_to(self.slot[:, :1], self.slot.shape).reshape(-1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Distance:
    """A head's output where small means alike: `value >= 0`, any shape.

    Attributes:
        value: the distances.
        midpoint: the distance that counts as undecided, by default half of margin 1.
    """

    value: Float[Array, "..."]
    midpoint: float = field(default=0.5, metadata={"static": True})

    @property
    def similarity(self) -> Float[Array, "..."]:
        """`2 ** (-value / midpoint)`: 1 at distance 0, 1/2 at the midpoint."""
        return jnp.exp2(-self.value / self.midpoint)

    @property
    def same(self) -> Bool[Array, "..."]:
        """The decision at similarity 1/2."""
        return self.value < self.midpoint


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Logit:
    """A head's output where large means alike: any shape.

    Attributes:
        value: the logits.
    """

    value: Float[Array, "..."]

    @property
    def similarity(self) -> Float[Array, "..."]:
        """`sigmoid(value)`."""
        return jax.nn.sigmoid(self.value)

    @property
    def same(self) -> Bool[Array, "..."]:
        """The decision at similarity 1/2."""
        return self.value > 0


PairOutput = Distance | Logit
