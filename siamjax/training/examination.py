"""What an examination of a net finds: one batch's share, on one device, in one compiled call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from siamjax import backend
from siamjax.models import Siamese
from siamjax.training.objective import Objective, comparisons
from siamjax.training.paths import merge, named_leaves, split
from siamjax.training.schemes import share
from siamjax.training.state import TrainState
from siamjax.training.step import Data, forward, norm, prepare
from siamjax.types import Distance, Logit, PairDraw, PairOutput, SetDraw

FEW = 12  # pairs of a kind; the scatter of fewer says too little


class Measures(NamedTuple):
    """What an examination finds; scalars, but for the last two.

    Attributes:
        embedding_spread: mean absolute difference of two images' embeddings, in their own unit.
        relative_spread: the same over the mean size of an embedding's entries.
        similarity_spread: standard deviation of the similarities of the pairs; of logits that a
            loss over sets compares only with each other, as if their mean were undecided.
        self_similarity: mean similarity of an image and itself.
        other_similarity: mean similarity of the pairs of two classes.
        separation: how much farther apart the embeddings of two classes lie than those of one, in
            standard errors; 0 for few pairs, and where every image is compared with every other.
        loss: of the batch, without penalties.
        loss_over_constant: that over the loss of the best constant answer.
        active: share of examples that cost anything.
        saturated: share of embedding entries at the ends of a sigmoid; 0 without one.
        gradient_norm: by module.
        dead: share of units without any gradient, by module.
        marks: three sums over each array of parameters, which change when it does.
    """

    embedding_spread: Any
    relative_spread: Any
    similarity_spread: Any
    self_similarity: Any
    other_similarity: Any
    separation: Any
    loss: Any
    loss_over_constant: Any
    active: Any
    saturated: Any
    gradient_norm: dict[str, Any]
    dead: dict[str, Any]
    marks: dict[str, Any]


def examiner(
    model: Siamese,
    scheme: Callable,
    augment: Callable,
    objective: Objective,
    frozen: tuple[str, ...] = (),
    parts: int = 1,
) -> Callable[[TrainState, Data], Measures]:
    """The compiled examination of one recipe, on one device: `(state, data) -> Measures`.

    Args:
        model: as the step has it.
        scheme: as the step has it.
        augment: as the step has it.
        objective: as the step has it.
        frozen: as the step has them.
        parts: shares of a batch: the first is examined. One device has room for no more, and is
            sent no more where batches are streamed.
    """
    model = model.clone(views=1)  # the net is the same in all of them

    def first(key: Array, step: Array, table: Any) -> PairDraw | SetDraw:
        return share(scheme(key, step, table), 0, parts)

    def examine(state: TrainState, data: Data) -> Measures:
        draw, images, key = prepare(state, data, first, augment, axis=None)
        weight = objective.weight(draw)
        total = jnp.maximum(weight.sum(), 1)
        trained, left_alone = split(state.params, frozen)

        def loss(trained: Any) -> tuple[Array, tuple[Array, Array]]:
            params = merge(trained, left_alone)
            output, _ = forward(model, params, state.batch_stats, images, draw, key)
            each = objective.measure(output, draw).loss
            constant = _constant_loss(objective, output, draw, weight)
            return (each * weight).sum() / total, (each, constant / total)

        gradients, (each, constant) = jax.grad(loss, has_aux=True)(trained)
        cost = (each * weight).sum() / total
        return Measures(
            **_look(model, state, images, draw, objective.over_sets),
            loss=cost,
            # A small share may hold pairs of one kind only, which one answer suits.
            loss_over_constant=jnp.where(
                _of_one_kind(draw), 1.0, cost / jnp.maximum(constant, 1e-12)
            ),
            active=((each > 1e-6) * weight).sum() / total,
            gradient_norm=_by_module(gradients, norm),
            dead=_by_module(gradients, _silent),
            marks={path: _marks(leaf) for path, leaf in named_leaves(trained)},
        )

    return backend.jit_once(examine)


def _look(
    model: Siamese, state: TrainState, images: Array, draw: PairDraw | SetDraw, over_sets: bool
) -> dict[str, Array]:
    """Spreads of embeddings and similarities, as they are in use: without dropout."""
    weights = {"params": state.params, "batch_stats": state.batch_stats}
    z = jnp.asarray(model.apply(weights, images, method="embed"))

    def compare(left: Array, right: Array) -> Any:
        return model.apply(weights, left, right, method="compare")

    if isinstance(draw, PairDraw):
        left, right = jnp.split(z, 2)
        output, same, counted = compare(left, right), draw.same, draw.weight > 0
        separation = _separation(jnp.abs(left - right).mean(-1), same, counted)
    else:
        groups = z.reshape(len(draw.weight), -1, z.shape[-1])
        output = compare(groups[:, :, None], groups[:, None])
        output = replace(output, value=output.value.reshape(len(z), -1))
        (same, counted), separation = comparisons(draw), jnp.zeros(())
    difference = jnp.abs(z - jnp.roll(z, 1, 0)).mean()
    ends = (z < 0.02) | (z > 0.98)
    sigmoid = (z.min() >= 0) & (z.max() <= 1) & ((z > 0.98).mean() > 0.05)
    varied = output.similarity
    if over_sets and isinstance(output, Logit):
        varied = Logit(output.value - _mean(output.value, counted)).similarity
    return {
        "embedding_spread": difference,
        "relative_spread": difference / jnp.maximum(jnp.abs(z).mean(), 1e-30),
        "similarity_spread": jnp.sqrt(_mean(jnp.square(varied - _mean(varied, counted)), counted)),
        "self_similarity": compare(z, z).similarity.mean(),
        "other_similarity": _mean(output.similarity, counted & ~same),
        "separation": separation,
        "saturated": jnp.where(sigmoid, ends.mean(), 0.0),
    }


def _mean(values: Array, mask: Array) -> Array:
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)


def _of_one_kind(draw: PairDraw | SetDraw) -> Array | bool:
    if isinstance(draw, SetDraw):
        return False
    same = _mean(draw.same, draw.weight > 0)
    return (same == 0) | (same == 1)


def _separation(distance: Array, same: Array, counted: Array) -> Array:
    """Welch's t of the distances of two classes against those of one."""
    parts = [counted & ~same, counted & same]
    means = [_mean(distance, part) for part in parts]
    errors = [
        _mean(jnp.square(distance - mean), part) / jnp.maximum(part.sum() - 1, 1)
        for mean, part in zip(means, parts, strict=True)
    ]
    enough = (parts[0].sum() >= FEW) & (parts[1].sum() >= FEW)
    return jnp.where(enough, (means[0] - means[1]) / jnp.sqrt(errors[0] + errors[1] + 1e-30), 0.0)


def _constant_loss(
    objective: Objective, output: PairOutput, draw: PairDraw | SetDraw, weight: Array
) -> Array:
    """The summed loss of the best answer that is the same for every pair."""
    if objective.over_sets:
        answers = jnp.ones(1)  # only differences count
    elif isinstance(output, Distance):
        answers = jnp.linspace(0.0, 4.0, 33) * output.midpoint
    else:
        answers = jnp.linspace(-6.0, 6.0, 49)

    def cost(answer: Array) -> Array:
        constant = replace(output, value=jnp.full_like(output.value, answer))
        return (objective.measure(constant, draw).loss * weight).sum()

    return jnp.min(jax.lax.map(cost, answers))


def _by_module(tree: Any, measure: Callable[[list[Array]], Array | None]) -> dict[str, Array]:
    modules: dict[str, list[Array]] = {}
    for path, leaf in named_leaves(tree):
        modules.setdefault(path.rpartition("/")[0], []).append(leaf)
    found = {name: measure(leaves) for name, leaves in modules.items()}
    return {name: value for name, value in found.items() if value is not None}


def _silent(leaves: list[Array]) -> Array | None:
    """Share of a layer's units that no gradient reaches; None for what is not a layer."""
    kernels = [leaf for leaf in leaves if leaf.ndim >= 2 and leaf.shape[-1] > 1]
    if not kernels:
        return None
    return jnp.concatenate(
        [(kernel.reshape(-1, kernel.shape[-1]) == 0).all(0) for kernel in kernels]
    ).mean()


def _marks(leaf: Array) -> Array:
    flat = leaf.reshape(-1).astype(jnp.float32)
    wave = jnp.cos(jnp.arange(flat.size, dtype=jnp.float32))
    return jnp.stack([flat.sum(), jnp.abs(flat).sum(), (flat * wave).sum()])
