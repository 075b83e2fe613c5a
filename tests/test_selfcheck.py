"""Overfitting one batch, and repeating a run's first steps."""

import json
import shlex
import shutil
import sys

import numpy as np
import pytest
from shrunk import CONFIGS, shrunk
from tiny import get_config

from siamjax import recipe, run, selfcheck


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of the tiny recipe."""
    folder = tmp_path_factory.mktemp("finished")
    run.train(get_config(), folder, lambda _: None)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_recipe_learns_one_batch_by_heart_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, said = get_config(), []
    config.optimizer.learning_rate = 3e-2
    assert selfcheck.overfit_one_batch(config, 300, said.append)
    assert "learns one batch by heart" in said[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_sets_and_dropout_and_warps_are_held_still(path, tmp_path):
    with shrunk(path, tmp_path).unlocked() as config:
        config.augment.name = "affine"
        config.pairs.augment_singletons = config.pairs.scheme == "balanced"
    still = recipe.without_chance(config, 7)
    recipe.validate(still)
    recipe.build_augmentation(still)
    assert (still.augment.name, still.pairs.turned_groups, still.train.steps) == ("none", 0.0, 7)
    assert still.model.tower_options.get("dropout", 0.0) == 0.0


def test_one_that_cannot_learn_says_so():
    config, said = get_config(), []
    config.optimizer.learning_rate = 1e-9
    assert not selfcheck.overfit_one_batch(config, 10, said.append)
    assert "can't learn even one batch within 10 steps" in said[-1]


def test_the_same_machine_gives_the_same_numbers(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    found = selfcheck.verify_run(finished, 12)
    assert found.exact
    assert found.sentence == (
        "this machine gives the same numbers: 12 losses are equal bit for bit"
    )
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*")}


def change_losses(folder, change):
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["split"] == "train":
            row["losses"] = [change(row["step"], i, x) for i, x in enumerate(row["losses"])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_another_number_is_named_with_its_step(folder):
    change_losses(folder, lambda step, i, x: x + 1e-6 * (step == 8 and i == 1))
    found = selfcheck.verify_run(folder, 12)
    assert found.first_difference == 6
    assert "agree before step 6" in found.sentence
    assert np.abs(found.again - found.recorded).max() < 2e-6


def test_an_older_record_is_compared_to_its_four_decimals(folder):
    change_losses(folder, lambda step, i, x: round(x, 4))
    found = selfcheck.verify_run(folder, 1000)
    assert not found.exact
    assert "24 losses are equal to the 4 decimals that were recorded" in found.sentence


def test_other_data_and_other_versions_are_said(folder):
    path = folder / "about.json"
    about = json.loads(path.read_text())
    about["versions"]["jax"] = "0.0.1"
    path.write_text(json.dumps(about))
    said = []
    selfcheck.verify_run(folder, 2, said.append)
    assert said[0].startswith("NOTE: jax 0.0.1 then")
    about["data"]["fingerprint"] = "other"
    path.write_text(json.dumps(about))
    with pytest.raises(ValueError, match="the data are not those of the run"):
        selfcheck.verify_run(folder, 2)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"about\.json is not JSON"):
        selfcheck.verify_run(folder, 2)


def test_a_folder_without_a_run_or_without_losses_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="is this the folder of a run"):
        selfcheck.verify_run(tmp_path)
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match="no losses yet"):
        selfcheck.verify_run(folder)


def test_about_says_where_the_numbers_come_from(finished):
    about = json.loads((finished / "about.json").read_text())
    assert about["seed"] == 0
    assert about["command"] == shlex.join(sys.orig_argv)
    assert set(about["versions"]) == set(recipe.PACKAGES)
    assert set(about["machine"]) == {"python", "platform", "processor", "device"}
    assert about["data"]["fingerprint"]
