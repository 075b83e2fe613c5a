"""Where a NaN began: repeats the bad step and looks at every module's output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from siamjax import backend
from siamjax.models import Siamese
from siamjax.training.objective import Objective
from siamjax.training.paths import named_leaves
from siamjax.training.state import TrainState
from siamjax.training.step import Data, comparing, forward, prepare


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
    if bad := _bad(state.params):
        return f"the parameters {', '.join(bad)} are not finite"
    paths: list[str] = []

    def look(state: TrainState, data: Data) -> list[jax.Array]:
        draw, images, key = prepare(state, data, scheme, augment, axis=None)
        output, captured = model.apply(
            {"params": state.params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
            rngs={"dropout": key},
            **comparing(draw),
        )
        outputs = _in_order(captured["intermediates"])
        paths[:] = [path for path, _ in outputs]  # in the order of calls, which a dict would lose
        measured = objective.measure(output, draw).loss
        return [_finite(value) for value in (images, *(v for _, v in outputs), measured)]

    findings = backend.jit_once(look)(state, data)
    names = [
        "the augmented images are not finite",
        *(f"the output of {path} is not finite" for path in paths),
        f"the loss {objective.name} is not finite, though the model's output is",
    ]
    for finite, sentence in zip(findings, names, strict=True):
        if not finite:
            return sentence

    def gradient(state: TrainState, data: Data) -> Any:
        draw, images, key = prepare(state, data, scheme, augment, axis=None)

        def loss(params: Any) -> jax.Array:
            output, _ = forward(model, params, state.batch_stats, images, draw, key)
            return objective.measure(output, draw).loss.mean() + objective.penalty(params)

        return jax.grad(loss)(state.params)

    bad = _bad(backend.jit_once(gradient)(state, data))
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


def _bad(tree: Any) -> list[str]:
    """The paths of arrays that are not finite."""
    return [path for path, leaf in named_leaves(tree) if not np.isfinite(leaf).all()]


def _finite(tree: Any) -> jax.Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]).all()
