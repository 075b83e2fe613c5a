"""Where a NaN began: repeats the bad step and looks at every module's output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from siamjax.models import Siamese
from siamjax.training.objective import Objective
from siamjax.training.paths import named_leaves
from siamjax.training.state import TrainState
from siamjax.training.step import Data, forward, prepare
from siamjax.types import PairDraw


def first_bad_module(
    model: Siamese,
    scheme: Callable,
    augment: Callable,
    objective: Objective,
    state: TrainState,
    data: Data,
) -> str:
    """A sentence that names the first place where the step's numbers stop being finite.

    The step is drawn again from `state`, whose key and number decide everything in it.
    """
    bad = [path for path, leaf in named_leaves(state.params) if not _finite(leaf)]
    if bad:
        return f"the parameters {', '.join(bad)} are not finite"
    draw, images, key = prepare(state, jax.device_put(data), scheme, augment, axis=None)
    if not _finite(images):
        return "the augmented images are not finite"
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    output, captured = model.apply(
        variables,
        images,
        train=True,
        method="pairs" if isinstance(draw, PairDraw) else "all_pairs",
        mutable=["batch_stats", "intermediates"],
        capture_intermediates=True,
        rngs={"dropout": key},
    )
    for path, value in _in_order(captured["intermediates"]):
        if not _finite(value):
            return f"the output of {path} is not finite"
    if not _finite(objective.measure(output, draw).loss):
        return f"the loss {objective.name} is not finite, though the model's output is"

    def loss(params: Any) -> jax.Array:
        output, _ = forward(model, params, state.batch_stats, images, draw, key)
        return objective.measure(output, draw).loss.mean() + objective.penalty(params)

    bad = [path for path, leaf in named_leaves(jax.grad(loss)(state.params)) if not _finite(leaf)]
    where = ", ".join(bad) or "no parameter when repeated on one device"
    return f"the loss is finite but the gradient is not, in {where}"


def _in_order(intermediates: Any) -> list[tuple[str, Any]]:
    """Module outputs, tower before head, inner modules before the ones that hold them."""
    found: list[tuple[str, Any]] = []

    def walk(path: str, node: Any) -> None:
        for key in sorted(node, key=lambda k: (not isinstance(node[k], dict), k == "head")):
            if isinstance(node[key], dict):
                walk(f"{path}/{key}" if path else key, node[key])
            else:
                found.append((path or "siamese", node[key]))

    walk("", intermediates)
    return found


def _finite(tree: Any) -> bool:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)
