"""Features of a frozen tower, computed once an image instead of once a step.

A frozen backbone gives an image the same maps at every step, as long as nothing random comes
before it. Then training on those maps is the same training.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8

from siamjax import backend
from siamjax.models import Siamese
from siamjax.training.loop import Run
from siamjax.training.state import TrainState
from siamjax.types import typed

CHUNK = 64  # images in one call


def split_model(model: Siamese) -> tuple[Siamese, Siamese] | None:
    """The frozen part of a model and the rest, for a tower that has `frozen` and is.

    Returns:
        A model whose `embed` gives the frozen part's output, and one that takes that in place of
        images; None for a model that can't be split. Both read the parameters of the whole one.
    """
    tower = model.tower
    if not (getattr(tower, "frozen", False) and getattr(tower, "embedding", 0)):
        return None
    front = model.clone(tower=tower.clone(embedding=0, parent=None))
    rest = model.clone(tower=tower.clone(from_features=True, parent=None))
    return front, rest


@typed
def features(
    front: Siamese, params: Any, batch_stats: Any, images: UInt8[np.ndarray, "n h w c"]
) -> Float[np.ndarray, "n 1 1 d"]:
    """The frozen part's output for each image, shaped as images of one pixel.

    Args:
        front: of `split_model`.
        params: of the whole model.
        batch_stats: of the whole model.
        images: decoded.
    """
    embed = backend.jit(lambda w, x: front.apply(w, x, method="embed"))
    weights = {"params": params, "batch_stats": batch_stats}
    parts = []
    for start in range(0, len(images), CHUNK):
        part = np.asarray(images[start : start + CHUNK])
        size = len(part)
        part = np.pad(part, ((0, CHUNK - size), (0, 0), (0, 0), (0, 0)))
        values: Array = embed(weights, part)
        parts.append(np.asarray(values)[:size])
    return np.concatenate(parts)[:, None, None, :]


def features_like(front: Siamese, state: TrainState, images: Any) -> jax.ShapeDtypeStruct:
    """Shape and kind of what `features` gives for `images [n, h, w, c]`, without computing it."""
    weights = {"params": state.params, "batch_stats": state.batch_stats}
    embedded = jax.eval_shape(partial(front.apply, method="embed"), weights, images[:1])
    return jax.ShapeDtypeStruct((len(images), 1, 1, embedded.shape[-1]), jnp.float32)


def resident_bytes(front: Siamese | None, state: TrainState, images: np.ndarray) -> int:
    """What the images, or their features after a frozen front, take on the device."""
    if front is None:
        return images.nbytes
    kind = features_like(front, state, images)
    return kind.size * kind.dtype.itemsize


def use_features(run: Run) -> None:
    """Gives a run that has a frozen front its output in place of images."""
    if run.front is None:
        return
    state, validation = run.state, run.validation
    embed = partial(features, run.front, state.params, state.batch_stats)
    run.feed = replace(run.feed, images=embed(run.feed.images))
    run.validation = validation.over(embed(validation.images.images[validation.used]))
