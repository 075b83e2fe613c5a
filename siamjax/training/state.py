"""`TrainState`: everything a step changes, arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from siamjax import backend
from siamjax.models import Siamese
from siamjax.training.paths import split


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of a run.

    Attributes:
        step: `int32 []`, steps taken.
        params: the weights, float32.
        batch_stats: running statistics of batch norms; empty without any.
        opt_state: the optimiser's, of the weights that train.
        rng: typed key; step t uses `fold_in(rng, t)`, so nothing else has to be remembered.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    rng: Array


def create_state(
    model: Siamese,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    seed: int,
    frozen: tuple[str, ...] = (),
) -> TrainState:
    """Fresh weights for images of shape `[h, w, c]`, and a fresh optimiser of those that train.

    Args:
        model: tower and head.
        optimizer: of optax.
        image_shape: `(h, w, c)`.
        seed: of weights and training.
        frozen: patterns of parameter paths that training leaves alone.
    """

    def create() -> TrainState:
        key_init, key_train = jax.random.split(jax.random.key(seed))
        image = jnp.zeros((1, *image_shape))
        # Several views are of one set of weights: one shapes them, and less is traced.
        variables = model.clone(views=1).init(key_init, image, image)
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(split(params, frozen)[0]),
            rng=key_train,
        )

    # Compiled, the forward pass that shapes need is never run: half the time for a large tower.
    return backend.jit_once(create)()
