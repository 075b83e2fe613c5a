from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from siamjax import config as configuration
from siamjax.training.average import averaged, keep_average, restarted
from siamjax.training.optimizer import create_optimizer
from siamjax.training.paths import split
from siamjax.training.state import TrainState

PARAMS = {"tower": {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}, "head": jnp.array(4.0)}


def test_the_mean_equals_a_slow_loop():
    optimizer = optax.chain(optax.sgd(0.1), keep_average(0.5))
    params, state, mean = PARAMS, optimizer.init(PARAMS), PARAMS
    for t in range(30):
        slope = jax.tree.map(lambda w, t=t: jnp.sin(w + t), params)
        updates, state = optimizer.update(slope, state, params)
        params = optax.apply_updates(params, updates)
        d = min(0.5, (1 + t) / (10 + t))
        mean = jax.tree.map(lambda m, w, d=d: d * m + (1 - d) * w, mean, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state[-1].mean, mean)


def made(frozen=(), **keys):
    config = configuration.base().optimizer
    config.update(keys)
    optimizer = create_optimizer(config, 10)
    trained, _ = split(PARAMS, frozen)
    state = optimizer.init(trained)
    _, state = optimizer.update(jax.tree.map(jnp.ones_like, trained), state, trained)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, PARAMS, {}, state, jax.random.key(0))


def test_a_state_without_a_mean_stays_as_it_is():
    state = made()
    assert averaged(state) is state


@pytest.mark.parametrize("keys", [{}, {"accumulate": 2}, {"clip_norm": 1.0}])
def test_the_mean_replaces_what_trains_and_nothing_else(keys):
    shown = averaged(made(("head", "tower/b"), average=0.9, learning_rate=0.5, **keys)).params
    assert shown["head"] == 4
    assert shown["tower"]["b"] == 3
    if "accumulate" in keys:  # no update was made yet
        np.testing.assert_array_equal(shown["tower"]["a"], [1, 2])
    else:  # Adam's first step is the learning rate, of which 9/10 count
        np.testing.assert_allclose(shown["tower"]["a"], [0.55, 1.55], rtol=1e-4)


@pytest.mark.parametrize(("decay", "text"), [(1.5, r"lie in 0\.\.1"), (1.0, "be below 1")])
def test_a_mean_that_never_moves_is_refused(decay, text):
    config = configuration.base()
    config.optimizer.average = decay
    with pytest.raises(ValueError, match=rf"config\.optimizer\.average must {text}"):
        configuration.validate(config)


def test_a_state_with_other_weights_starts_its_mean_there():
    state = made(("head", "tower/b"), average=0.9, learning_rate=0.5, accumulate=2)
    moved = replace(state, params=jax.tree.map(lambda w: w + 7, PARAMS))
    again = restarted(moved)
    jax.tree.map(np.testing.assert_array_equal, averaged(again).params, moved.params)
    assert averaged(again).params["tower"]["a"] is not moved.params["tower"]["a"]
    jax.tree.map(np.testing.assert_array_equal, restarted(made()).opt_state, made().opt_state)
