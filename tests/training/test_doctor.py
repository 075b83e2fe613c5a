"""Each disease planted and named; healthy runs of every recipe without a word."""

import dataclasses

import jax
import numpy as np
import pytest
from shrunk import CONFIGS, shrunk
from synthetic import labelled

from siamjax import config as configuration
from siamjax.data import load
from siamjax.recipe import assemble
from siamjax.training import doctor
from siamjax.training.features import use_features
from siamjax.types import DataSplits, PairTable

TRAIN, VALIDATION = labelled(classes=16, seed=0), labelled(classes=16, seed=1)
SPLITS = DataSplits(TRAIN, VALIDATION, None, "patches", "patches")


def recipe(**keys):
    c = configuration.base()
    c.data.size, c.batch_size = (12, 12), 32
    c.model.tower, c.model.tower_options = "mlp", configuration.options(features=(16, 16))
    c.model.head, c.objective.loss = "euclidean_dense", "bce"
    c.optimizer.learning_rate = 5e-3
    c.train.update(steps=200, devices=1)
    c.eval.update(way=5, trials=0, pairs=400)
    c.checkpoint.metric = "auc"
    for key, value in keys.items():
        section, _, name = key.partition("__")
        c[section][name] = value
    return c


def watched(config, splits=SPLITS, at=(0, 60, 100, 120), spoil=lambda state: state):
    """What the doctor says of a run, by step, and his last figures."""
    run = assemble(config, splits)
    use_features(run)
    state, data = run.devices.put(spoil(run.state)), run.feed.start(run.devices, 0)
    step, said = run.devices.compile(run.step), {}
    for number in range(max(at) + 1):
        if number in at:
            weights = {"params": state.params, "batch_stats": state.batch_stats}
            run.encoder.weights = weights
            auc = run.validation(run.encoder).figures["auc"] if number else None
            figures, said[number] = run.doctor.look(number, state, run.devices.get(data), auc)
        state, _ = step(state, data)
        data = run.feed.turn(data, run.devices, number + 1)
    return said, figures


def told(said):
    return " | ".join(text for texts in said.values() for text in texts)


def test_a_net_that_learns_hears_nothing():
    said, figures = watched(recipe())
    assert told(said) == ""
    assert figures["loss_over_constant"] < 0.75
    assert figures["relative_spread"] > 0.1
    assert figures["self_similarity"] > figures["other_similarity"]
    assert len(figures["modules"]) == len(figures["gradient_norms"]) == 3
    assert figures["findings"] == []


@pytest.mark.parametrize("loss", ["nca", "bce"])
def test_similarities_that_only_sets_compare_vary_around_their_mean(loss):
    c = recipe(model__head="cosine", objective__loss=loss, pairs__scheme="in-batch")
    run = assemble(c, SPLITS)
    data = run.feed.start(run.devices, 0)

    def spread(midpoint):
        head = {**run.state.params["head"], "midpoint": jax.numpy.float32(midpoint)}
        state = dataclasses.replace(run.state, params={**run.state.params, "head": head})
        return run.doctor.look(0, state, data)[0]["similarity_spread"]

    near, far = spread(0.5), spread(3.0)
    assert near > 0.01
    if loss == "nca":
        assert far == pytest.approx(near, rel=1e-3)  # no loss over sets feels an offset
    else:
        assert far < 1e-6


def test_a_start_that_is_almost_constant_is_named_with_its_remedy():
    c = recipe(model__tower="koch", model__init="seed")
    c.data.size = (65, 65)
    c.model.tower_options = configuration.options(features=(2, 2, 2, 2), embedding=8)
    c.model.head = "weighted_l1"
    splits = DataSplits(labelled(size=(65, 65)), labelled(size=(65, 65)), None, "patches", "")
    run = assemble(c, splits)
    said = [run.doctor.look(step, run.state, run.feed.host(0))[1] for step in (0, 100, 200)]
    assert said[:2] == [[], []]
    assert "the net can't tell images apart yet; use --config.model.init=he" in told({2: said[2]})


def test_a_collapse_is_named():
    keys = {"objective__loss": "contrastive", "model__head": "euclidean"}
    said, _ = watched(recipe(**keys, optimizer__learning_rate=1.0, optimizer__name="rmsprop"))
    assert "the net has collapsed to a constant answer" in told(said)
    assert "use --config.optimizer.learning_rate=0.1" in told(said)


def test_a_learning_rate_too_high_is_named():
    said, _ = watched(recipe(optimizer__learning_rate=30.0, optimizer__name="sgd"))
    assert "the learning rate (30) is too high" in told(said)


def inverted(images, seed):
    """Pairs whose `same` is the wrong way round."""
    generator = np.random.default_rng(seed)
    left = generator.integers(0, len(images), 400).astype(np.int32)
    near = generator.integers(0, 6, 400) + 6 * images.labels[left]
    far = generator.integers(0, len(images), 400)
    same = np.arange(400) % 2 == 0
    right = np.where(same, near, far).astype(np.int32)
    return PairTable(left, right, ~same)


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ({"nonnegative": True}, "pairs that are called same lie farther apart"),
        ({"nonnegative": False}, "pairs that are called same lie farther apart"),
    ],
)
def test_inverted_labels_are_named(head, text):
    c = recipe(pairs__scheme="explicit", model__head_options=configuration.options(**head))
    pairs = {"train": inverted(TRAIN, 0), "validation": inverted(TRAIN, 1)}
    splits = dataclasses.replace(SPLITS, validation=TRAIN, pairs=pairs)
    said, _ = watched(c, splits)
    assert text in told(said)
    assert "the labels are probably inverted; 1 has to mean same" in told(said)


def test_parameters_frozen_by_mistake_are_named():
    said, _ = watched(recipe(optimizer__groups=(("tower/dense1/.*", 0.0, None),)))
    assert "the parameters of tower/dense1 have not changed since step 100" in told(said)
    assert "a learning rate of 0 in config.optimizer.groups" in told(said)
    assert "dense2" not in told(said)


def test_dead_units_are_named():
    def kill(state):
        state.params["tower"]["dense1"]["bias"] -= 100.0
        return state

    said, figures = watched(recipe(), spoil=kill)
    assert "100% of the units of tower/dense1 get no gradient: they are dead" in told(said)
    assert figures["dead_units"] == 1.0


def test_a_low_auc_on_validation_pairs_means_inverted_labels():
    assert judged(0, 100, 200, auc=0.49) == {}
    assert "two (AUC 0.30): the labels" in judged(0, 100, 200, auc=0.3)["inverted"]


def measures(**changes):
    """Those of a net that learns."""
    healthy = dict.fromkeys(doctor.Measures._fields, 0.5) | {
        "saturated": 0.0, "gradient_norm": {"a": 1.0}, "dead": {"a": 0.0},
        "marks": {"a/kernel": np.ones(3)},
    }  # fmt: skip
    return doctor.Measures(**(healthy | changes))


def judged(*steps, auc=None, **changes):
    one = doctor.Doctor(lambda state, data: None, 1e-3, "use --config.model.init=he")
    for step in steps:
        marks = {"a/kernel": np.full(3, step)}
        found = one.judge(step, measures(marks=marks, **changes), auc)
    return found


def test_saturated_sigmoids_are_named():
    found = judged(0, 100, 200, saturated=0.95, loss_over_constant=1.0)
    assert "95% of the embeddings' entries lie at the ends of their sigmoid" in found["saturated"]


def test_a_finding_has_to_hold_twice_and_not_at_the_start():
    sick = {"saturated": 0.95, "loss_over_constant": 1.0}
    assert judged(0, 40, 80, 99, **sick) == {}
    assert judged(80, 100, **sick) == {}
    assert "saturated" in judged(100, 120, **sick)


def test_a_loss_that_still_falls_is_no_fault():
    one = doctor.Doctor(lambda state, data: None, 1e-3, "")
    for step, ratio in ((100, 9.0), (200, 7.0), (300, 5.0)):
        marks = {"a/kernel": np.full(3, step)}
        assert one.judge(step, measures(loss_over_constant=ratio, marks=marks)) == {}


def test_a_resumed_doctor_knows_what_the_first_one_knew():
    keys = recipe(optimizer__groups=(("tower/.*", 0.0, None),))
    run, again = assemble(keys, SPLITS), assemble(keys, SPLITS)
    data = run.feed.host(0)
    for step in (0, 100):
        run.doctor.look(step, run.state, data)
    again.doctor.restore(run.doctor.state())
    first, second = (r.doctor.look(200, r.state, data) for r in (run, again))
    assert first[1] == second[1]
    assert first[1]
    assert run.doctor.state() == again.doctor.state()
    again.doctor.restore(None)  # a checkpoint from before there was one
    assert again.doctor.look(300, run.state, data)[1] == []


HEAVY = (
    "image_pairs",
    "mnist_best",
    "mnist_cnn",
    "omniglot",
    "omniglot_best",
    "omniglot_fast",
    "omniglot_vgg",
)


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] * (p.stem in HEAVY)) for p in CONFIGS],
    ids=lambda p: p.stem,
)
def test_healthy_runs_of_every_recipe_hear_nothing(path, tmp_path_factory):
    config = shrunk(path, tmp_path_factory.getbasetemp())
    with config.unlocked():
        config.train.update(steps=160, epochs=20, doctor=True)
    said, figures = watched(config, load(config), at=(0, 60, 100, 130))
    assert told(said) == ""
    assert np.isfinite(figures["loss_over_constant"])
    assert jax.tree.all(jax.tree.map(np.isfinite, figures["gradient_norms"]))
