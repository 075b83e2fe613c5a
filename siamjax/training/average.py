"""A running mean of the weights, which validates better than the weights while they still move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from siamjax.training.state import TrainState


class AverageState(NamedTuple):
    """Updates made, `int32 []`, and the mean of the parameters that train."""

    count: Array
    mean: Any


def keep_average(decay: float) -> optax.GradientTransformation:
    """Leaves the updates alone and keeps `mean = d mean + (1 - d) params` after each.

    d rises to `decay` as `(1 + t) / (10 + t)`, so that the start is soon forgotten. It goes last in
    a chain, where the updates are what is added to the parameters.

    Args:
        decay: in 0..1, 1 left out; 0.999 looks back about 1,000 updates.

    References:
        Polyak, Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging", for the
        idea; the exponential form and its warm-up are TensorFlow's ExponentialMovingAverage.
    """

    def init(params: Any) -> AverageState:
        return AverageState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.array, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        d = jnp.minimum(decay, (1 + state.count) / (10 + state.count))
        new = optax.apply_updates(params, updates)
        mean = jax.tree.map(lambda m, w: d * m + (1 - d) * w, state.mean, new)
        return updates, AverageState(state.count + 1, mean)

    return optax.GradientTransformation(init, update)


def averaged(state: TrainState) -> TrainState:
    """The state with the mean in place of the weights, where the optimiser keeps one."""
    nodes = jax.tree.leaves(state.opt_state, is_leaf=lambda n: isinstance(n, AverageState))
    means = [node.mean for node in nodes if isinstance(node, AverageState)]
    if not means:
        return state
    return replace(state, params=_laid_over(state.params, means[0]))


def restarted(state: TrainState) -> TrainState:
    """A fresh state whose mean, where the optimiser keeps one, starts at the weights it has now."""

    def anew(node: Any) -> Any:
        if not isinstance(node, AverageState):
            return node
        # Copies: a step gives the memory of its state away, of each array once.
        return node._replace(mean=jax.tree.map(jnp.array, _taken(state.params, node.mean)))

    opt_state = jax.tree.map(anew, state.opt_state, is_leaf=lambda n: isinstance(n, AverageState))
    return replace(state, opt_state=opt_state)


def _taken(params: dict[str, Any], means: dict[str, Any]) -> dict[str, Any]:
    """The parameters that there are means of: those that train."""
    return {
        name: _taken(params[name], mean) if isinstance(mean, dict) else params[name]
        for name, mean in means.items()
    }


def _laid_over(params: dict[str, Any], means: dict[str, Any]) -> dict[str, Any]:
    """The parameters, those that train replaced by their mean."""
    return {
        name: _laid_over(value, means.get(name, {}))
        if isinstance(value, dict)
        else means.get(name, value)
        for name, value in params.items()
    }
