"""The train step: one pure function, the same under jit, scan and pmap.

    draw pairs -> gather images -> warp -> tower -> head -> loss -> gradients -> update

Devices, files and logging are outside. State is arrays only, and the randomness of step t is
`fold_in(state.rng, t)`: a run that stops and resumes draws what it would have drawn.

To add a loss: write it in `losses.py`. To add a pair scheme: `schemes.py`. Neither touches this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from siamjax import backend
from siamjax.models import Siamese
from siamjax.training.objective import Objective
from siamjax.training.paths import merge, split
from siamjax.training.schemes import share
from siamjax.training.state import TrainState
from siamjax.types import PairDraw, SetDraw


class Data(NamedTuple):
    """What a step reads: on the device for the whole run, or streamed there for this step.

    Attributes:
        images: `uint8 [n, h, w, c]`, or `float32` features of a frozen tower as they are.
        table: what the pair scheme draws from; or, where batches are gathered on the host, this
            device's share of a draw, and `images` are its images.
    """

    images: Any
    table: Any


SHARED = 2**31  # no image's slot: the number of the key that compared images share
Sums = dict[str, Array]
Step = Callable[[TrainState, Data], tuple[TrainState, Sums]]


def make_train_step(
    model: Siamese,
    scheme: Callable[[Array, Array, Any], PairDraw | SetDraw],
    augment: Callable[..., Array],
    objective: Objective,
    optimizer: optax.GradientTransformation,
    axis: str | None = None,
    frozen: tuple[str, ...] = (),
) -> Step:
    """The step for one recipe.

    Args:
        model: tower and head.
        scheme: `(key, step, table) -> draw` of the whole batch.
        augment: `(keys [n], images [n, h, w, c], turns [n] or None, shared_keys [n]) -> images`.
        objective: loss and penalties.
        optimizer: of optax.
        axis: name of the device axis the step is mapped over, or None on one device.
        frozen: patterns of parameter paths that training leaves alone.

    Returns:
        `(state, data) -> (state, figures)`, figures being scalars of this step over all devices:
        `loss` (with penalties), the loss by its own name, `pair_accuracy` of pairs or
        `nearest_accuracy` of sets, `gradient_norm`. A step whose loss or gradient is not finite
        reports it and leaves the state as it was.
    """

    def train_step(state: TrainState, data: Data) -> tuple[TrainState, Sums]:
        draw, images, key_dropout = prepare(state, data, scheme, augment, axis)
        weight = objective.weight(draw)
        total_weight = jnp.maximum(_sum(weight.sum(), axis), 1)
        trained, left_alone = split(state.params, frozen)

        def loss(trained: Any) -> tuple[Array, tuple[Any, Sums]]:
            params = merge(trained, left_alone)
            output, batch_stats = forward(
                model, params, state.batch_stats, images, draw, key_dropout
            )
            measured = objective.measure(output, draw)
            mean_loss = (measured.loss * weight).sum() / total_weight
            accuracy = (measured.accuracy * weight).sum() / total_weight
            penalty = objective.penalty(params) / (lax.axis_size(axis) if axis else 1)
            figures = {"loss": mean_loss + penalty, objective.name: mean_loss}
            figures["pair_accuracy" if isinstance(draw, PairDraw) else "nearest_accuracy"] = (
                accuracy
            )
            return mean_loss + penalty, (batch_stats, figures)

        gradients, (batch_stats, figures) = jax.grad(loss, has_aux=True)(trained)
        # Each device holds its share of one mean, so shares are added, not averaged.
        gradients, figures = _sum((gradients, figures), axis)
        figures["gradient_norm"] = norm(gradients)

        def updated() -> TrainState:
            updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
            return TrainState(
                step=state.step + 1,
                params=merge(optax.apply_updates(trained, updates), left_alone),
                batch_stats=batch_stats,
                opt_state=opt_state,
                rng=state.rng,
            )

        good = jnp.isfinite(figures["loss"] + figures["gradient_norm"])
        return _choose(good, updated, state), figures

    return train_step


def prepare(
    state: TrainState, data: Data, scheme: Callable, augment: Callable, axis: str | None
) -> tuple[PairDraw | SetDraw, Array, Array]:
    """This device's share of the draw, its images in 0..1 `[n, h, w, c]`, and a dropout key."""
    key_draw, key_warp, key_dropout = step_keys(state.rng, state.step)
    drawn = isinstance(data.table, PairDraw | SetDraw)
    draw = data.table if drawn else scheme(key_draw, state.step, data.table)
    if axis:
        part = lax.axis_index(axis)
        draw = draw if drawn else share(draw, part, lax.axis_size(axis))
        key_dropout = jax.random.fold_in(key_dropout, part)
    # One key per image of the whole batch: the warps do not depend on the number of devices.
    fold_each = jax.vmap(jax.random.fold_in, (None, 0))
    keys = fold_each(key_warp, draw.image_slot)
    shared_keys = fold_each(jax.random.fold_in(key_warp, SHARED), draw.shared_slot)
    images = data.images[draw.image_index]
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    turns = draw.turns.reshape(-1) if isinstance(draw, SetDraw) else None
    return draw, augment(keys, images, turns, shared_keys), key_dropout


def step_keys(rng: Array, step: Array | int) -> tuple[Array, Array, Array]:
    """The keys of a step: for its draw, its warps and its dropout."""
    draw, warp, dropout = jax.random.split(jax.random.fold_in(rng, step), 3)
    return draw, warp, dropout


def forward(
    model: Siamese,
    params: Any,
    batch_stats: Any,
    images: Array,
    draw: PairDraw | SetDraw,
    key_dropout: Array,
) -> tuple[Any, Any]:
    """The model's output for a draw in training mode, and the new batch statistics."""
    output, updated = model.apply(
        {"params": params, "batch_stats": batch_stats},
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": key_dropout},
        **comparing(draw),
    )
    return output, updated.get("batch_stats", {})


def comparing(draw: PairDraw | SetDraw) -> dict[str, Any]:
    """The method of `Siamese` that compares what a draw wants compared, with its arguments."""
    if isinstance(draw, PairDraw):
        return {"method": "pairs"}
    return {"method": "all_pairs", "groups": len(draw.weight)}


def _sum(tree: Any, axis: str | None) -> Any:
    return lax.psum(tree, axis) if axis else tree


def norm(tree: Any) -> Array:
    """The Euclidean norm of all leaves."""
    squares = (backend.sum_of_squares(x) for x in jax.tree.leaves(tree))
    return jnp.sqrt(sum(squares, jnp.zeros(())))


def _choose(good: Array, new: Callable[[], TrainState], old: TrainState) -> TrainState:
    """`new()` where `good`, else `old`.

    By a branch on a CPU, where XLA copies weights and moments before it selects between them; by a
    selection elsewhere, since for a branch a GPU waits.
    """
    if backend.on_cpu():
        return lax.cond(good, new, lambda: old)
    return jax.tree.map(partial(jnp.where, good), new(), old)
