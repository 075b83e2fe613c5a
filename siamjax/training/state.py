"""`TrainState`: everything a step changes, arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import optax
from jax import Array

from siamjax import backend
from siamjax.models import Siamese


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Attributes.

    step: `int32 []`, steps taken.
    params: the weights, float32.
    batch_stats: running statistics of batch norms; empty without any.
    opt_state: the optimiser's.
    rng: typed key; step t uses `fold_in(rng, t)`, so nothing else has to be remembered.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    rng: Array


def create_state(
    model: Siamese, optimizer: optax.GradientTransformation, image_shape: tuple[int, ...], seed: int
) -> TrainState:
    """Fresh weights for images of shape `[h, w, c]`, and a fresh optimiser."""

    def create() -> TrainState:
        key_init, key_train = jax.random.split(jax.random.key(seed))
        image = jax.numpy.zeros((1, *image_shape))
        variables = model.init(key_init, image, image)
        params = variables["params"]
        return TrainState(
            step=jax.numpy.zeros((), jax.numpy.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(params),
            rng=key_train,
        )

    # Compiled, the forward pass that shapes need is never run: half the time for a large tower.
    return backend.jit(create)()
