"""One step, four ways: jit, scan and pmap here; two processes in test_parallel.py."""

import re
from contextlib import nullcontext
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from synthetic import labelled

from siamjax import backend, losses
from siamjax.augment import from_config
from siamjax.config import base
from siamjax.data.pairs import class_table
from siamjax.models import HEADS, Siamese
from siamjax.training.objective import Objective
from siamjax.training.parallel import Devices
from siamjax.training.schemes import balanced, in_batch
from siamjax.training.state import create_state
from siamjax.training.step import Data, make_train_step

IMAGES = labelled(classes=16, each=5, groups=8)
DATA = Data(IMAGES.images, class_table(IMAGES))
ONE = Devices((jax.devices()[0],), mapped=False)
EIGHT = Devices(tuple(jax.devices()[:8]), mapped=True)
SCHEMES = {
    "pairs": (partial(balanced, pairs=16), "bce"),
    "sets": (partial(in_batch, pairs=16, groups=8, images_per_class=2, turned=0.5), "nca"),
}


class Tiny(nn.Module):
    """A convolution, a batch norm over all devices, a dense layer: quick to compile."""

    axis: str | None = None
    norm: bool = True

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(4, (3, 3), strides=(2, 2))(x)
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis, name="norm")(x)
        return nn.Dense(8, name="dense")(nn.tanh(x).reshape(len(x), -1))


def augmentation():
    config = base().augment
    config.name = "affine"
    return from_config(config, fill=0.0)


def no_augmentation(keys, images, turns, shared_keys):
    return images


def build(kind, axis=None):
    scheme, loss = SCHEMES[kind]
    model = Siamese(Tiny(axis), HEADS["cosine"]())
    objective = Objective(loss, losses.LOSSES[loss], kind == "sets", (("tower/.*/kernel", 1e-3),))
    optimizer = optax.sgd(3e-2, momentum=0.9)
    step = make_train_step(model, scheme, augmentation(), objective, optimizer, axis)
    return step, create_state(model, optimizer, (12, 12, 1), seed=0)


def run(kind, devices, steps, dispatch):
    step, state = build(kind, devices.axis)
    program = devices.compile(step, dispatch)
    state, data = devices.put(state), devices.put(DATA)
    collected = []
    for _ in range(steps // dispatch):
        state, figures = program(state, data)
        collected.append(jax.device_get(devices.get(figures)))
    figures = {k: np.concatenate([c[k] for c in collected]) for k in collected[0]}
    return devices.get(state), figures


@pytest.fixture(scope="module", params=["pairs", "sets"])
def reference(request):
    return request.param, *run(request.param, ONE, steps=4, dispatch=1)


@pytest.mark.parametrize(
    ("devices", "dispatch"), [(ONE, 2), (EIGHT, 1), pytest.param(EIGHT, 2, marks=pytest.mark.slow)]
)
def test_scan_and_pmap_equal_jit(reference, devices, dispatch):
    kind, expected, expected_figures = reference
    state, figures = run(kind, devices, steps=4, dispatch=dispatch)
    assert int(state.step) == 4
    for a, b in zip(
        jax.tree.leaves((state.params, state.batch_stats)),
        jax.tree.leaves((expected.params, expected.batch_stats)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name, values in expected_figures.items():
        np.testing.assert_allclose(figures[name], values, rtol=2e-4, atol=1e-6)


def test_loss_falls(reference):
    kind, _, _ = reference
    _, figures = run(kind, ONE, steps=40, dispatch=1)
    assert np.mean(figures["loss"][-5:]) < 0.8 * np.mean(figures["loss"][:5])


def test_figures_are_named_after_what_they_measure(reference):
    kind, _, figures = reference
    own = {"pairs": {"bce", "pair_accuracy"}, "sets": {"nca", "nearest_accuracy"}}[kind]
    assert set(figures) == {"loss", "gradient_norm"} | own
    penalty = figures["loss"] - figures["bce" if kind == "pairs" else "nca"]
    assert (penalty > 0).all()


def test_the_same_seed_gives_the_same_numbers_and_steps_differ(reference):
    kind, state, figures = reference
    again, figures_again = run(kind, ONE, steps=4, dispatch=1)
    jax.tree.map(np.testing.assert_array_equal, again.params, state.params)
    np.testing.assert_array_equal(figures_again["loss"], figures["loss"])
    assert len(set(figures["loss"].tolist())) == 4


def test_padding_changes_nothing():
    """A pair of weight 0 has no part in loss, figures or gradient."""

    def padded(key, step, table):
        draw = balanced(key, step, table, pairs=8)
        extra = balanced(jax.random.fold_in(key, 1), step, table, pairs=4)
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), draw, extra)
        return both._replace(weight=jnp.r_[draw.weight, jnp.zeros(4)], slot=jnp.arange(12))

    results = []
    for scheme in (partial(balanced, pairs=8), padded):
        # A batch norm would see the padding, as it sees every image.
        model = Siamese(Tiny(norm=False), HEADS["weighted_l1"]())
        optimizer = optax.sgd(1.0)
        objective = Objective("bce", losses.bce)
        step = make_train_step(model, scheme, no_augmentation, objective, optimizer)
        state = create_state(model, optimizer, (12, 12, 1), seed=0)
        results.append(jax.jit(step)(state, DATA))
    (state, figures), (state_padded, figures_padded) = results
    for a, b in zip(
        jax.tree.leaves((state.params, figures)),
        jax.tree.leaves((state_padded.params, figures_padded)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gpu", [False, True])
def test_a_step_that_is_not_finite_leaves_the_state_and_reports(gpu):
    step, state = build("pairs")
    head = state.params["head"] | {"log_scale": jnp.asarray(1e4)}  # e^10000
    bad = type(state)(
        state.step, state.params | {"head": head}, state.batch_stats, state.opt_state, state.rng
    )
    before = jax.device_get((bad.params, bad.batch_stats, bad.opt_state))
    # Not on a GPU: the reference's program, compiled already.
    with backend.as_on_gpu() if gpu else nullcontext():
        after, figures = ONE.compile(step)(ONE.put(bad), ONE.put(DATA))
    assert not np.isfinite(figures["loss"][0])
    assert int(after.step) == 0
    kept = after.params, after.batch_stats, after.opt_state
    jax.tree.map(np.testing.assert_array_equal, kept, before)


def test_a_cpus_branch_and_a_gpus_selection_are_the_same_step(reference):
    kind, expected, expected_figures = reference
    with backend.as_on_gpu():
        state, figures = run(kind, ONE, steps=4, dispatch=1)
    arrays, wanted = (jax.tree.leaves((x.params, x.batch_stats)) for x in (state, expected))
    for a, b in zip(arrays, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name, values in expected_figures.items():
        np.testing.assert_allclose(figures[name], values, rtol=2e-4, atol=1e-6)


def test_a_cpu_writes_weights_and_moments_where_they_are():
    """If the selection copies nothing either, a newer XLA has made the branch needless."""

    def copied():
        step, state = build("pairs")
        program = backend.jit(step, donate_argnums=0).lower(state, DATA).compile().as_text()
        return re.findall(r" copy\(%state_\w*kernel", program)

    assert not copied()
    with backend.as_on_gpu():
        assert copied()


def test_frozen_parameters_stay_and_cost_no_optimiser_memory():
    frozen = ("tower/Conv_0/.*",)
    model = Siamese(Tiny(), HEADS["cosine"]())
    optimizer = optax.adam(0.1)
    scheme, objective = partial(balanced, pairs=8), Objective("bce", losses.bce)
    step = make_train_step(model, scheme, no_augmentation, objective, optimizer, frozen=frozen)
    state = create_state(model, optimizer, (12, 12, 1), seed=0, frozen=frozen)
    assert "Conv_0" not in state.opt_state[0].mu["tower"]
    after, _ = jax.jit(step)(state, DATA)
    old, new = state.params["tower"], after.params["tower"]
    jax.tree.map(np.testing.assert_array_equal, new["Conv_0"], old["Conv_0"])
    assert float(jnp.abs(new["dense"]["kernel"] - old["dense"]["kernel"]).min()) > 0
