"""How close is close, and a recipe's own training step on recorded batches."""

import runpy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from shrunk import recipe_file

from siamjax import backend
from siamjax.recipe import build_augmentation, build_objective
from siamjax.training.optimizer import create_optimizer
from siamjax.training.paths import split
from siamjax.training.state import TrainState
from siamjax.training.step import Data, make_train_step
from siamjax.types import PairDraw


def part(recorded, name):
    """The arrays of a group, by their path in it."""
    return {k.removeprefix(name + "/"): v for k, v in recorded.items() if k.startswith(name + "/")}


def close(got, expected, what):
    """Within 1e-4 of the largest value of an array (single values may be 0); the worst."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape, what
    worst = np.abs(got - expected).max() / np.abs(expected).max()
    assert worst < 1e-4, f"{what}: {worst:.1e}"
    return worst


def moved_alike(got, expected, initial, gradient, rate, tiny=1e-6, tolerance=1e-4):
    """Weights by path after up to three steps of Adam; the worst error and movement, in one layer.

    Each is within 1e-4 of its layer's largest, and all of an array moved by the same, to
    `tolerance`: of a ReLU or a pool near a tie, rounding decides.

    Adam's step is as long where a gradient is rounding only (a bias that cancels in a - b, the
    weight of a feature that is hardly above 0), and its direction then is rounding. So a weight
    whose first `gradient` is less than `tiny` of the array's largest only has to stay within what
    three steps at this `rate` can do.
    """
    assert got.keys() == expected.keys()
    worst = worst_move = 0.0
    for path, leaf in got.items():
        layer = path.rpartition("/")[0]
        scale = max(np.abs(v).max() for k, v in expected.items() if k.startswith(layer + "/"))
        slope = np.abs(gradient[path])
        error = np.abs(leaf - expected[path])
        assert error.max() < 6 * rate, f"{path} after the steps"
        error = np.where(slope > tiny * slope.max(), error, 0)
        move = np.linalg.norm(error) / np.linalg.norm(expected[path] - initial[path])
        assert error.max() / scale < 1e-4, f"{path} after the steps: {error.max() / scale:.1e}"
        assert move < tolerance, f"{path} moved otherwise by {move:.1e}"
        worst, worst_move = max(worst, error.max() / scale), max(worst_move, move)
    return worst, worst_move


def recipe(name, **tower_options):
    """The config of `configs/<name>.py`, with another tower."""
    config = runpy.run_path(str(recipe_file(name)))["get_config"]()
    config.model.tower_options.update(tower_options)
    return config


class Trained(NamedTuple):
    """What the steps made: losses by step, the first gradients of what trains, the new state."""

    losses: list[float]
    gradients: Any
    state: TrainState


def train(config, model, params, batch_stats, images, same):
    """As many steps as `same [steps, b]` has rows, on images `[steps, 2, b, h, w, c]`."""
    steps, pairs = same.shape
    row = jnp.arange(pairs)

    def recorded_pairs(key, step, table):
        first = step * 2 * pairs
        weight = jnp.ones(pairs)
        return PairDraw(first + row, first + pairs + row, table[step], weight, row)

    frozen = tuple(config.optimizer.frozen)
    optimizer = remembering(create_optimizer(config.optimizer, total_steps=steps))
    step = backend.jit(
        make_train_step(
            model,
            recorded_pairs,
            build_augmentation(config),
            build_objective(config),
            optimizer,
            frozen=frozen,
        )
    )
    opt_state = optimizer.init(split(params, frozen)[0])
    state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, opt_state, jax.random.key(0))
    data = Data(jnp.asarray(images.reshape(-1, *images.shape[3:])), jnp.asarray(same))
    losses, gradients = [], []
    for _ in range(steps):
        state, figures = step(state, data)
        losses.append(float(figures["loss"]))
        gradients.append(state.opt_state[0])
    return Trained(losses, gradients[0], state)


def remembering(optimizer):
    """The optimiser, with the gradients it was given last in its state."""

    def init(params):
        return jax.tree.map(jnp.zeros_like, params), optimizer.init(params)

    def update(gradients, state, params=None):
        updates, inner = optimizer.update(gradients, state[1], params)
        return updates, (gradients, inner)

    return optax.GradientTransformation(init, update)
