import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from siamjax.config import base
from siamjax.training import optimizer as opt
from siamjax.training.checkpoint import LATEST, CheckpointStore
from siamjax.training.parallel import Devices
from siamjax.training.state import TrainState

PARAMS = {
    "tower": {"conv1": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])}},
    "head": {"kernel": jnp.array([3.0])},
}
GRADIENTS = [
    jax.tree.map(lambda p, s=s: jnp.asarray(np.random.default_rng(s).normal(size=p.shape)), PARAMS)
    for s in range(6)
]


def section(**keys):
    c = base()
    c.optimizer.update(keys)
    return c.optimizer


def run(config, gradients=GRADIENTS, total=6, epoch=1, params=PARAMS):
    """The parameters after each step."""
    optimizer = opt.create_optimizer(config, total, epoch)
    state, update, seen = optimizer.init(params), jax.jit(optimizer.update), []
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen


def kernel(seen):
    return np.array([params["tower"]["conv1"]["kernel"] for params in seen])


def by_loops(update):
    """conv1's kernel after each step of `update(w, g, t, memory) -> w`, in float64."""
    w, memory, seen = np.array([1.0, -2.0]), SimpleNamespace(m=0.0, v=0.0), []
    for t, gradient in enumerate(GRADIENTS, 1):
        w = update(w, np.asarray(gradient["tower"]["conv1"]["kernel"], np.float64), t, memory)
        seen.append(w)
    return np.array(seen)


def keras_adam(w, g, t, memory):
    memory.m = 0.9 * memory.m + 0.1 * g
    memory.v = 0.999 * memory.v + 0.001 * g * g
    alpha = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return w - alpha * memory.m / (np.sqrt(memory.v) + 1e-3)


def adam(w, g, t, memory):
    memory.m = 0.9 * memory.m + 0.1 * g
    memory.v = 0.999 * memory.v + 0.001 * g * g
    m, v = memory.m / (1 - 0.9**t), memory.v / (1 - 0.999**t)
    return w - 0.01 * m / (np.sqrt(v) + 1e-3)


def adamw(w, g, t, memory):
    return adam(w, g, t, memory) - 0.01 * 0.3 * w


def rmsprop(w, g, t, memory):
    memory.v = 0.8 * memory.v + 0.2 * g * g
    return w - 0.01 * g / np.sqrt(memory.v + 1e-3)


def rate(t):
    return 0.01 * 0.5 ** ((t - 1) // 2)


def sgd(w, g, t, memory):
    memory.m = 0.7 * memory.m + g
    return w - rate(t) * memory.m


def keras_sgd(w, g, t, memory):
    memory.m = 0.7 * memory.m + rate(t) * g
    return w - memory.m


@pytest.mark.parametrize(
    ("oracle", "keys"),
    [
        (keras_adam, {}),
        (adam, {}),
        (adamw, {"weight_decay": 0.3}),
        (rmsprop, {"decay": 0.8}),
        (sgd, {"momentum": 0.7, "schedule": "exponential", "schedule_factor": 0.5}),
        (keras_sgd, {"momentum": 0.7, "schedule": "exponential", "schedule_factor": 0.5}),
    ],
)
def test_every_optimiser_equals_a_slow_loop(oracle, keys):
    config = section(name=oracle.__name__, learning_rate=0.01, epsilon=1e-3, **keys)
    np.testing.assert_allclose(kernel(run(config, epoch=2)), by_loops(oracle), rtol=2e-6)


def test_keras_epsilon_weighs_more_by_the_root_of_1000_at_the_first_step():
    tiny = [jax.tree.map(lambda p: jnp.full_like(p, 1e-9), PARAMS)]
    steps = {}
    for name in ("adam", "keras_adam"):
        config = section(name=name, learning_rate=1.0, epsilon=1e-7)
        steps[name] = float(1.0 - kernel(run(config, tiny))[0, 0])
    assert steps["adam"] / steps["keras_adam"] == pytest.approx(1000**0.5, rel=0.02)


def test_sgd_without_momentum_has_no_memory():
    config = section(name="sgd", learning_rate=0.1, momentum=0.0)
    np.testing.assert_allclose(
        kernel(run(config, GRADIENTS[:1]))[0],
        PARAMS["tower"]["conv1"]["kernel"] - 0.1 * GRADIENTS[0]["tower"]["conv1"]["kernel"],
    )
    assert len(jax.tree.leaves(opt.create_optimizer(config, 6).init(PARAMS))) == 2


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [2, 2, 2, 2, 2, 2, 2]),
        ({"schedule": "exponential", "schedule_factor": 0.5}, [2, 2, 1, 1, 0.5, 0.5, 0.25]),
        (
            {"schedule": "step", "schedule_every": 3, "schedule_factor": 0.1},
            [2, 2, 2, 0.2, 0.2, 0.2, 0.02],
        ),
        ({"schedule": "cosine"}, [1 + np.cos(np.pi * i / 6) for i in range(7)]),
        (
            {"schedule": "cosine", "warmup_steps": 2, "schedule_end": 0.5},
            [0, 1, *(1 + 0.5 * (1 + np.cos(np.pi * i / 4)) for i in range(5))],
        ),
        ({"warmup_steps": 4}, [0, 0.5, 1, 1.5, 2, 2, 2]),
    ],
)
def test_schedules_by_hand(keys, expected):
    rate = opt.schedule(section(learning_rate=2.0, **keys), total_steps=6, steps_per_epoch=2)
    np.testing.assert_allclose([rate(step) for step in range(7)], expected, rtol=1e-5, atol=1e-6)
    beyond = {"cosine": expected[-1]}.get(keys.get("schedule"))
    if beyond is not None:
        assert float(rate(100)) == pytest.approx(beyond, abs=1e-6)


def test_momentum_rises_epoch_by_epoch():
    config = section(
        name="keras_sgd", learning_rate=0.1, momentum=0.9, momentum_start=0.5, momentum_epochs=2
    )
    memory, w, seen = 0.0, np.array([1.0, -2.0]), []
    for gradient, momentum in zip(GRADIENTS, [0.5, 0.5, 0.7, 0.7, 0.9, 0.9], strict=True):
        memory = momentum * memory + 0.1 * np.asarray(gradient["tower"]["conv1"]["kernel"])
        w = w - memory
        seen.append(w)
    np.testing.assert_allclose(kernel(run(config, epoch=2)), seen, rtol=2e-6)


def test_groups_have_their_own_rate_and_momentum_and_the_first_match_wins():
    groups = (("tower/conv1/kernel", 0.5, 0.0), ("tower/.*", None, 0.5), ("head/.*", 0.25, None))
    config = section(name="sgd", learning_rate=0.1, momentum=0.9, groups=groups)
    ones = [jax.tree.map(jnp.ones_like, PARAMS)] * 2
    last = run(config, ones)[-1]
    np.testing.assert_allclose(last["tower"]["conv1"]["kernel"], [1 - 1.0, -2 - 1.0])
    np.testing.assert_allclose(last["tower"]["conv1"]["bias"], 0.5 - 0.1 * (1 + 1.5))
    np.testing.assert_allclose(last["head"]["kernel"], 3 - 0.25 * (1 + 1.9))


def test_a_group_follows_the_schedule():
    config = section(
        name="sgd", learning_rate=0.1, momentum=0.0, groups=(("head/.*", 0.5, None),),
        schedule="exponential", schedule_factor=0.1,
    )  # fmt: skip
    ones = [jax.tree.map(jnp.ones_like, PARAMS)] * 2
    np.testing.assert_allclose(run(config, ones)[-1]["head"]["kernel"], 3 - 0.5 - 0.05, rtol=1e-6)


def test_clipping_bounds_the_norm_over_all_groups():
    config = section(
        name="sgd", learning_rate=1.0, momentum=0.0, clip_norm=1.0, groups=(("head/.*", 1.0, None),)
    )
    gradient = jax.tree.map(lambda p: jnp.full_like(p, 5.0), PARAMS)  # norm 10
    moved = jax.tree.map(lambda a, b: a - b, PARAMS, run(config, [gradient])[0])
    np.testing.assert_allclose([x for leaf in jax.tree.leaves(moved) for x in leaf], [0.5] * 4)


def test_accumulated_steps_equal_one_of_their_mean_and_schedules_count_steps():
    keys = {"name": "keras_adam", "schedule": "step", "schedule_every": 4, "schedule_factor": 0.1}
    many = run(section(accumulate=2, **keys))
    means = [
        jax.tree.map(lambda a, b: (a + b) / 2, *GRADIENTS[2 * i : 2 * i + 2]) for i in range(3)
    ]
    few = run(section(**{**keys, "schedule_every": 2}), means)
    np.testing.assert_allclose(kernel(many)[1::2], kernel(few), rtol=1e-6)
    np.testing.assert_array_equal(kernel(many)[0], PARAMS["tower"]["conv1"]["kernel"])


EVERYTHING = {
    "groups": (("tower/conv1/bias", 0.5, None),),
    "accumulate": 2,
    "clip_norm": 1.0,
}


@pytest.mark.parametrize("name", opt.OPTIMIZERS)
def test_the_rate_scale_reaches_every_group_through_a_compiled_update(name):
    config = section(name=name, learning_rate=0.1, **EVERYTHING)
    optimizer = opt.create_optimizer(config, 6)
    update = jax.jit(optimizer.update)
    _, state = update(GRADIENTS[0], optimizer.init(PARAMS), PARAMS)
    whole, _ = update(GRADIENTS[1], state, PARAMS)
    tenth, after = update(GRADIENTS[1], opt.with_rate_scale(state, 0.1), PARAMS)
    for a, b in zip(jax.tree.leaves(tenth), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, 0.1 * np.asarray(b), rtol=1e-5)
    assert np.abs(whole["tower"]["conv1"]["kernel"]).max() > 0
    again = opt.with_rate_scale(after, 1.0)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert update._cache_size() == 1


def test_the_rate_scale_on_several_devices_keeps_its_place():
    devices = Devices(tuple(jax.devices()[:4]), mapped=True)
    state = devices.put(opt.create_optimizer(section(), 6).init(PARAMS))
    scaled = opt.with_rate_scale(state, 0.25)
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(scaled), strict=True):
        assert before.sharding == after.sharding
        assert before.shape == after.shape
    assert float(devices.get(scaled)[1].scale) == 0.25


def test_a_saved_and_restored_optimiser_goes_on_bit_for_bit(tmp_path):
    optimizer = opt.create_optimizer(section(name="keras_adam", **EVERYTHING), 6)
    update = jax.jit(optimizer.update)

    def go(params, state, gradients):
        for gradient in gradients:
            updates, state = update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    params, state = go(PARAMS, optimizer.init(PARAMS), GRADIENTS[:3])
    state = opt.with_rate_scale(state, 0.3)
    key = jax.random.key(0)
    with CheckpointStore(tmp_path) as store:
        store.save(LATEST, TrainState(jnp.int32(3), params, {}, state, key), {})
    fresh = TrainState(jnp.int32(0), PARAMS, {}, optimizer.init(PARAMS), key)
    with CheckpointStore(tmp_path) as store:
        restored = store.restore_state(fresh)
    expected = go(params, state, GRADIENTS[3:])
    got = go(restored.params, restored.opt_state, GRADIENTS[3:])
    jax.tree.map(np.testing.assert_array_equal, got, expected)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            {"groups": (("tower/x", 1.0, None),)},
            "groups: 'tower/x' matches no parameter.*\n  head/k",
        ),
        ({"groups": (("head/.*", None, 0.5),)}, "a momentum \\(0.5\\), which adam does not have"),
    ],
)
def test_faults_are_told(keys, text):
    with pytest.raises(ValueError, match=text):
        opt.create_optimizer(section(name="adam", **keys), 6).init(PARAMS)


def test_plateau_lowers_the_scale_after_patience_as_keras_does():
    plateau = opt.Plateau(patience=2, factor=0.1, minimum=0.02)
    figures = [1.0, 0.9, 0.90005, 0.8999, 0.9, float("nan"), 0.5, 0.6, 0.6, 0.6, 0.6]
    changed = [plateau.update(figure) for figure in figures]
    # 0.90005 and 0.8999 are no better than 0.9 by more than 1e-4.
    assert changed == [False, False, False, True, False, True, False, False, False, False, False]
    assert plateau.scale == 0.02
    assert plateau.best == 0.5


def test_patience_ends_and_zero_never_does():
    patience = opt.Patience(patience=2)
    assert [patience.update(x) for x in (0.1, 0.2, 0.2, 0.3, 0.1, 0.1)] == [False] * 5 + [True]
    started_badly = opt.Patience(patience=3)
    assert [started_badly.update(x) for x in (float("nan"), 0.1, 0.2)] == [False] * 3
    assert started_badly.best == 0.2
    never = opt.Patience(patience=0)
    assert not any(never.update(0.0) for _ in range(50))


@pytest.mark.parametrize("watch", [opt.Patience(3, "min"), opt.Plateau(2, "max", factor=0.5)])
def test_what_watches_goes_on_from_json(watch):
    figures = [0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.3, 0.3, 0.3, 0.3, 0.2]
    fresh = type(watch)(**{k: getattr(watch, k) for k in ("patience", "mode", "delta")})
    if isinstance(watch, opt.Plateau):
        fresh.factor = watch.factor
    for figure in figures[:4]:
        watch.update(figure)
    assert watch.waited > 0
    fresh.restore(json.loads(json.dumps(watch.state())))
    assert [fresh.update(f) for f in figures[4:]] == [watch.update(f) for f in figures[4:]]
    assert fresh == watch
