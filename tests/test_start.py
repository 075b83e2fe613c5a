"""A run that starts from a file's weights, or from what another run has learned."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from tiny import get_config
from untrained import untrained_run

from siamjax import config as configuration
from siamjax import run, selfcheck, start
from siamjax.data import load as load_data
from siamjax.inference import load
from siamjax.models import Ensemble
from siamjax.recipe import assemble, build_model
from siamjax.training.average import averaged, restarted
from siamjax.training.checkpoint import BEST, CheckpointError, CheckpointStore
from siamjax.training.optimizer import create_optimizer
from siamjax.training.state import create_state


def small(**keys):
    """The tiny recipe with running statistics and a mean of the weights, and what `keys` change."""
    config = get_config()
    config.model.head, config.objective.loss = "euclidean_norm_dense", "contrastive"
    config.optimizer.average = 0.9
    config.train.update(steps=8, doctor=False)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in keys.items()})
    return config


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a run whose weights, their mean and statistics are all its own."""
    config = small(train__steps=8)
    state = fresh(config)
    state = restarted(replace(state, params=jax.tree.map(lambda w: w + 0.25, state.params)))
    params, batch_stats = (
        jax.tree.map(lambda w: w + 0.5, tree) for tree in (state.params, state.batch_stats)
    )
    state = replace(state, step=state.step + 8, params=params, batch_stats=batch_stats)
    return untrained_run(tmp_path_factory.mktemp("source"), config=config, state=state)


def fresh(config):
    size = (*config.data.size, config.data.channels)
    optimizer = create_optimizer(config.optimizer, config.train.steps)
    return create_state(build_model(config), optimizer, size, config.seed)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def differ(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any((np.asarray(x) != y).any() for x, y in pairs)


def test_weights_and_statistics_are_those_that_users_of_the_run_see(source):
    config = small(seed=5, model__weights=str(source))
    begun = assemble(config, load_data(config))
    before = begun.state
    start.begin(config, begun)
    with CheckpointStore(source, read_only=True) as store:
        template = {"params": before.params, "batch_stats": before.batch_stats}
        best = store.restore_weights(BEST, template)
    assert_equal({"params": begun.state.params, "batch_stats": begun.state.batch_stats}, best)
    # The other run's mean, and not its weights as they were after its last step.
    expected = jax.tree.map(lambda w: w + 0.25, fresh(small()).params)
    assert_equal(begun.state.params, expected)
    assert differ(begun.state.batch_stats, before.batch_stats)
    assert int(begun.state.step) == 0
    # The mean of the new run starts where its weights do; all else of the optimiser is fresh.
    assert_equal(averaged(begun.state).params, begun.state.params)
    assert_equal(begun.state.opt_state[0], before.opt_state[0])
    assert begun.about["start"] == {
        "from": f"tower and head of the run {load(source).origin}",
        "fingerprint": load(source).fingerprint,
        "notes": [],
    }


@pytest.fixture(scope="module")
def begun(source, tmp_path_factory):
    """The folder of a run that started from `source`, and what it said."""
    folder, said = tmp_path_factory.mktemp("begun"), []
    config = small(seed=1, model__weights=str(source), model__views=2, train__steps=4)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("curves", "pair_grid"):
            patch.setattr(run.plots, name, lambda *_, **__: None)
        assert run.train(config, folder, said.append)
    return folder, "\n".join(said)


def test_the_new_run_says_where_it_started(source, begun):
    folder, said = begun
    assert f"weights to start from: tower and head of the run {source}, best checkpoint" in said
    assert "NOTE: config.model.views: 1 in the run, 2 here" in said
    about = json.loads((folder / "about.json").read_text())
    assert about["start"]["from"].endswith(", trained on nothing")
    assert f"Started from</dt><dd>tower and head of the run {source}" in (
        folder / "report.html"
    ).read_text().replace("\n", "")


def test_it_resumes_without_the_other_run_and_still_says_so(begun, tmp_path, monkeypatch):
    for name in ("curves", "pair_grid"):
        monkeypatch.setattr(run.plots, name, lambda *_, **__: None)
    shutil.copytree(begun[0], tmp_path / "run")
    gone = str(tmp_path / "gone")
    config = small(seed=1, model__weights=gone, model__views=2, train__steps=5)
    assert run.train(config, tmp_path / "run", lambda _: None)
    then, now = (
        json.loads((folder / "about.json").read_text())["start"]
        for folder in (begun[0], tmp_path / "run")
    )
    assert then == now


def test_its_numbers_are_repeated_from_the_same_weights_only(begun, tmp_path):
    assert selfcheck.verify_run(begun[0], 2).first_difference is None
    shutil.copytree(begun[0], tmp_path / "run")
    path = tmp_path / "run" / "about.json"
    about = json.loads(path.read_text())
    about["start"]["fingerprint"] = "of before that run went on"
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"started from are not those of .* that run went on"):
        selfcheck.verify_run(tmp_path / "run", 2)


def test_overfitting_one_batch_begins_there_too(source, monkeypatch):
    def begin(config, begun):
        start.begin(config, begun)
        raise InterruptedError(begun.about["start"]["from"])  # the rest is any run's

    monkeypatch.setattr(selfcheck, "begin", begin)
    with pytest.raises(InterruptedError, match="tower and head of the run"):
        selfcheck.overfit_one_batch(small(model__weights=str(source)), 1)


@pytest.mark.parametrize("kind", ["auto", "run"])
def test_another_head_is_refused_unless_the_tower_alone_is_asked_for(source, kind):
    keys = {"model__weights": str(source), "model__head": "weighted_l1"}
    config = small(**keys, model__weights_kind=kind)
    with pytest.raises(ValueError, match="does not fit this model") as error:
        start.with_weights(config, fresh(config))
    lines = str(error.value).splitlines()
    assert " ".join(lines[1].split()) == "only in the run (5) only in the model (2)"
    assert " ".join(lines[2].split()) == "batch_stats/head/norm/mean [1] head/bias [1]"
    assert " ".join(lines[3].split()) == "batch_stats/head/norm/var [1] head/kernel [8, 1]"
    assert lines[-3:-1] == [
        "settings that differ",
        "  config.model.head: 'euclidean_norm_dense' in the run, 'weighted_l1' here",
    ]
    assert lines[-1].startswith("config.model.weights_kind=run-tower takes the tower alone")
    config.model.weights_kind = "run-tower"
    before = fresh(config)
    state, origin = start.with_weights(config, before)
    assert_equal(state.params["head"], before.params["head"])
    assert_equal(state.params["tower"], load(source).encoder.weights["params"]["tower"])
    assert_equal(averaged(state).params, state.params)
    assert origin["from"].startswith(f"the tower of the run {source}")
    assert origin["notes"] == []


@pytest.mark.parametrize("kind", ["run", "run-tower"])
def test_other_sizes_are_listed_with_the_settings_that_differ(source, kind):
    config = small(model__weights=str(source), model__weights_kind=kind, data__size=(16, 12))
    config.model.tower_options = configuration.options(features=(16, 9, 8))
    with pytest.raises(ValueError, match="does not fit this model") as error:
        start.with_weights(config, fresh(config))
    text = str(error.value)
    assert "only in the run (0)   only in the model (2)" in text
    assert "tower/dense3/kernel [9, 8]" in text
    assert "in both, with other shapes (3), run -> model" in text
    assert "  tower/dense1/kernel [144, 16] -> [192, 16]" in text
    assert "config.model.tower_options.features: (16, 8) in the run, (16, 9, 8) here" in text
    assert "config.data.size: (12, 12) in the run, (16, 12) here" in text
    assert "takes the tower alone" not in text


def test_a_kernel_that_means_something_else_is_refused_though_it_fits(tmp_path):
    config = configuration.base()
    config.data.size = (12, 12)
    config.model.update(tower="mlp", head="weighted_l1", weights=str(tmp_path))
    config.model.tower_options = configuration.options(features=(8, 8))
    untrained_run(tmp_path, config=config)
    config.model.head_options = configuration.options(nonnegative=False)
    sentence = r"config\.model\.head_options\.nonnegative: True in the run, False here"
    with pytest.raises(ValueError, match=sentence):
        start.with_weights(config, fresh(config))
    config.model.weights_kind, config.data.invert = "run-tower", True
    _, origin = start.with_weights(config, fresh(config))
    assert origin["notes"] == ["config.data.invert: False in the run, True here"]


def test_a_damaged_run_is_not_started_from(source, tmp_path):
    shutil.copytree(source, tmp_path / "run")
    config = small(model__weights=str(tmp_path / "run"))
    about = next((tmp_path / "run").glob("checkpoints/best/*/about/metadata"))
    about.write_bytes(about.read_bytes().replace(b"nothing", b"else", 1))
    with pytest.raises(CheckpointError, match=r"about/metadata has .* bytes, and had"):
        start.with_weights(config, fresh(config))
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(CheckpointError, match="is this the folder of a run"):
        start.with_weights(config, fresh(config))


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("run", "file", r"weights_kind run takes the folder of a run .* is no folder"),
        ("run-tower", "nowhere", r"weights_kind run-tower takes the folder of a run"),
        ("auto", "nowhere", r"nowhere is not there: config\.model\.weights is the folder of a run"),
        ("torchvision-vgg", ".", r"is a folder: .*weights_kind is torchvision-vgg"),
    ],
)
def test_what_is_no_run_is_named(tmp_path, kind, name, text):
    (tmp_path / "file").write_text("no weights")
    config = configuration.base()
    config.model.update(weights=str(tmp_path / name), weights_kind=kind)
    with pytest.raises(ValueError, match=text):
        start.with_weights(config, None)


def test_a_run_does_not_start_from_its_own_folder(source):
    config = small(model__weights=str(source), train__steps=6)
    with pytest.raises(ValueError, match=r"own folder .* give another --workdir"):
        run.train(config, source, lambda _: None)


def vgg(folder, name, depth, **options):
    """A config that starts from a file of the parity tests, a state for it, and its SHA-256."""
    path = folder / f"weights.{name.rpartition('_')[2]}"
    with np.load(Path(__file__).parent / "parity" / "vgg.npz") as file:
        path.write_bytes(file[name].tobytes())
    config = configuration.base()
    config.model.update(tower="vgg", head="l1_mlp", init="kaiming", weights=str(path))
    config.model.tower_options = configuration.options(depth=depth, **options)
    config.model.head_options = configuration.options(hidden=8, nonnegative=False)
    state = create_state(build_model(config), optax.sgd(1.0), (64, 96, 3), seed=0)
    return config, state, path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "depth", "normed"), [("siamese_pth", 11, False), ("normed_legacy_pth", 13, True)]
)
def test_a_head_from_a_file_may_not_be_bent_to_one_sign(tmp_path, name, depth, normed):
    config, state, _, _ = vgg(tmp_path, name, depth, divide=64 if normed else 32, batch_norm=normed)
    del config.model.head_options.nonnegative
    if normed:  # the tower alone
        kernel = start.with_weights(config, state)[0].params["head"]["hidden"]["kernel"]
        np.testing.assert_array_equal(kernel, state.params["head"]["hidden"]["kernel"])
        return
    with pytest.raises(ValueError, match=r"may have any sign: set config.model.head_options"):
        start.with_weights(config, state)
    config.model.head_options.nonnegative = False
    moved = start.with_weights(config, state)[0].params["head"]["hidden"]["kernel"]
    assert (moved != state.params["head"]["hidden"]["kernel"]).any()


def test_a_file_is_remembered_by_its_checksum_and_another_is_refused(tmp_path):
    config, state, _, digest = vgg(tmp_path, "siamese_pth", 11, divide=32)
    for expected in (None, digest, digest[:8].upper()):
        config.model.weights_sha256 = expected
        origin = start.with_weights(config, state)[1]
        assert origin["fingerprint"] == digest
        assert origin["from"].endswith(f"weights.pth, SHA-256 {digest}")
    other = "0" if digest[-1] != "0" else "1"
    config.model.weights_sha256 = digest[:-1] + other
    with pytest.raises(ValueError, match=f"its SHA-256 is {digest}, expected .*{other}[.]{{3}}"):
        start.with_weights(config, state)


def test_a_flipped_bit_in_a_safetensors_file_is_found_by_its_checksum(tmp_path):
    options = {"divide": 64, "batch_norm": True}
    config, state, path, digest = vgg(tmp_path, "normed_safetensors", 13, **options)
    config.model.weights_sha256 = digest
    start.with_weights(config, state)
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"is not the file that config\.model\.weights_sha256"):
        start.with_weights(config, state)
    config.model.weights_sha256 = None
    start.with_weights(config, state)  # the file itself can't tell


def test_a_run_has_no_checksum_of_a_file(source):
    config = small(model__weights=str(source), model__weights_sha256="0" * 8)
    with pytest.raises(ValueError, match=r"is a folder, and config\.model\.weights_sha256"):
        start.with_weights(config, fresh(config))


def test_an_ensemble_is_not_started_from(source, monkeypatch):
    several = load(source)
    several.encoder.model = Ensemble((several.encoder.model,) * 3)
    monkeypatch.setattr(start, "load", lambda folder: several)
    config = small(model__weights=str(source))
    with pytest.raises(ValueError, match="is an ensemble of 3 nets: start from one of the runs"):
        start.with_weights(config, fresh(config))
