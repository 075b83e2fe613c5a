import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest
from shrunk import CONFIGS, SMALL, recipe_file, shrunk

from siamjax import config as configuration
from siamjax import recipe, run
from siamjax.training.checkpoint import LATEST, CheckpointStore
from siamjax.training.loop import TrainingDivergedError
from siamjax.training.writer import MetricsLog

# mnist_best is built of what omniglot_fast and mnist_mlp are; omniglot_fast is what the fixture
# `trained_run` is; omniglot_vgg is taken three steps in tests/parity.
AS_OTHERS = ("mnist_best", "omniglot_fast", "omniglot_vgg")


def fast_config(cache):
    """A recipe with statistics, averaged weights and warps, and a tower that compiles quickly."""
    with shrunk(recipe_file("omniglot_fast"), cache).unlocked() as config:
        config.optimizer.schedule = "constant"
        config.model.tower = "small_cnn"
        config.model.tower_options = configuration.options(**SMALL["small_cnn"])
    return config


@pytest.fixture
def fast(tmp_path_factory):
    return fast_config(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run of `fast`."""
    folder = tmp_path_factory.mktemp("whole")
    run.train(fast_config(tmp_path_factory.getbasetemp()), folder, lambda _: None)
    return folder


@pytest.fixture
def no_pictures(monkeypatch):
    for name in ("curves", "pair_grid"):
        monkeypatch.setattr(run.plots, name, lambda *_, **__: None)


def latest(workdir):
    with CheckpointStore(workdir, read_only=True) as store:
        about = store.about(LATEST)
        config = recipe.configuration.from_json(about["config"])
        model = recipe.build_model(config)
        size = (*config.data.size, config.data.channels)
        optimizer = recipe.create_optimizer(config.optimizer, config.train.steps)
        return store.restore_state(recipe.create_state(model, optimizer, size, 0))


def assert_same_state(a, b):
    keys = [jax.random.key_data(s.rng) for s in (a, b)]
    np.testing.assert_array_equal(*keys)
    for x, y in zip(
        jax.tree.leaves((a.step, a.params, a.batch_stats, a.opt_state)),
        jax.tree.leaves((b.step, b.params, b.batch_stats, b.opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in AS_OTHERS)) for p in CONFIGS],
)
def test_every_recipe_runs_and_leaves_its_outputs(path, tmp_path, tmp_path_factory):
    with shrunk(path, tmp_path_factory.getbasetemp()).unlocked() as config:
        config.train.doctor = True
    said = []
    assert run.train(config, tmp_path, said.append)
    names = {p.name for p in tmp_path.iterdir()}
    assert names >= {"config.json", "metrics.jsonl", "train_curves.txt", "curves.png", "pairs.png"}
    assert ("plot.png" in names) == (config.train.mode == "epochs")
    with MetricsLog(tmp_path) as log:
        rows = log.rows()
    trained = [row for row in rows if row["split"] == "train"]
    assert trained[0]["step"] == 2
    assert all(np.isfinite(row["loss"]) for row in trained)
    validated = [row for row in rows if row["split"] == "validation"]
    assert validated
    assert all(0 <= row["pair_accuracy"] <= 1 for row in validated)
    assert ("protocol" in validated[0]) == (config.eval.trials > 0)
    first, second = (tmp_path / "train_curves.txt").read_text().split("\n[valid_accs]\n")
    losses = first.removeprefix("[train_loss]\n").rstrip(",").split(",")
    assert len(losses) == trained[-1]["step"]
    assert float(losses[1]) == pytest.approx(trained[0]["losses"][1], abs=1e-4)
    assert len(second.rstrip(",").split(",")) == len(validated)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["config"]["batch_size"] == config.batch_size
    used = json.loads((tmp_path / "about.json").read_text())["data"]["name"]
    assert used.startswith("pairs:" if config.pairs.scheme == "explicit" else "glyphs")
    assert {row["data"] for row in rows} == {used}


@pytest.mark.usefixtures("no_pictures")
def test_four_steps_equal_two_a_restart_and_two(fast, whole, tmp_path):
    with fast.copy_and_resolve_references().unlocked() as half:
        half.train.steps = 2
    run.train(half, tmp_path, lambda _: None)
    assert int(latest(tmp_path).step) == 2
    said = []
    run.train(fast, tmp_path, said.append)
    assert any("resuming at step 2 of 4" in line for line in said)
    assert_same_state(latest(whole), latest(tmp_path))

    def figures(folder):
        with MetricsLog(folder) as log:
            hidden = ("time", "pairs_per_second")
            return [{k: v for k, v in r.items() if k not in hidden} for r in log.rows()]

    assert figures(whole) == figures(tmp_path)


@pytest.mark.usefixtures("no_pictures")
def test_sigterm_saves_and_the_same_command_goes_on(fast, whole, tmp_path, monkeypatch):
    original = run.write_outputs

    def interrupt(state_of_run, workdir, log, validated=None):
        if validated is not None and log.rows()[-1]["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        original(state_of_run, workdir, log, validated)

    monkeypatch.setattr(run, "write_outputs", interrupt)
    said = []
    assert not run.train(fast, tmp_path, said.append)
    assert said[-1] == "stopped at step 2, saved; the same command goes on from there"
    monkeypatch.setattr(run, "write_outputs", original)
    assert run.train(fast, tmp_path, said.append)
    assert_same_state(latest(whole), latest(tmp_path))


def test_another_config_in_the_same_folder_is_refused_with_what_differs(fast, whole):
    with fast.copy_and_resolve_references().unlocked() as other:
        other.optimizer.learning_rate = 0.5
        other.eval.every = 4  # may change
    with pytest.raises(ValueError, match=r"optimizer\.learning_rate: 0\.003 then, 0\.5 now") as e:
        run.train(other, whole, lambda _: None)
    assert "eval.every" not in str(e.value)
    assert "Give another --workdir" in str(e.value)


@pytest.mark.usefixtures("no_pictures")
def test_a_best_without_a_latest_is_made_again_by_its_own_run_and_kept_from_others(
    fast, whole, tmp_path
):
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "latest")
    with fast.unlocked():
        fast.optimizer.learning_rate = 0.5
    with pytest.raises(ValueError, match=r"config\.optimizer\.learning_rate: .* then, 0\.5 now"):
        run.train(fast, tmp_path / "run", lambda _: None)
    assert list((tmp_path / "run" / "checkpoints" / "best").iterdir())


def about(config, **data):
    """What a checkpoint says of a run, as far as resuming asks."""
    data = {"fingerprint": "f", "summary": "so many images"} | data
    return {"config": json.loads(recipe.configuration.to_json(config)), "data": data}


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_length_may_change_but_not_that_of_a_cosine_schedule(fast, schedule):
    with fast.unlocked():
        fast.optimizer.schedule = schedule
    before = about(fast)
    with fast.unlocked():
        fast.train.steps = 8
    if schedule == "constant":
        run.check_resumable(before, about(fast))
        return
    with pytest.raises(ValueError, match=r"config\.train\.steps: 4 then, 8 now"):
        run.check_resumable(before, about(fast))


def test_other_data_are_refused(fast):
    with pytest.raises(ValueError, match="the data: so many images then, fewer images now"):
        run.check_resumable(about(fast), about(fast, fingerprint="g", summary="fewer images"))


def test_nan_stops_with_the_step_and_the_module(tmp_path, tmp_path_factory, monkeypatch):
    config = shrunk(recipe_file("omniglot_fast"), tmp_path_factory.getbasetemp())

    def poisoned(*arguments, create=recipe.create_state):
        state = create(*arguments)
        params = state.params
        params["tower"]["block2"]["conv1"]["kernel"] *= 1e30  # overflows in block2's norm1
        return state

    monkeypatch.setattr(recipe, "create_state", poisoned)
    expected = "step 1: the output of tower/block2/norm1"
    with pytest.raises(TrainingDivergedError, match=expected) as e:
        run.train(config, tmp_path, lambda _: None)
    assert "learning_rate" in str(e.value)
