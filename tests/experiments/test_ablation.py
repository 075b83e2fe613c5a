import ast
import json
import subprocess
import sys

import pytest
from commands import ROOT, command
from shrunk import recipe_file, shrunk

from siamjax import recipe


def asked(expression):
    """What an expression in the command's module gives; in one process flags would clash."""
    code = f"import json; from experiments import ablation; print(json.dumps({expression}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_every_variant_is_a_valid_config_that_differs(tmp_path):
    original = shrunk(recipe_file("omniglot_best"), tmp_path)
    for changes in asked("ablation.VARIANTS").values():
        config = original.copy_and_resolve_references()
        with config.unlocked():
            for change in changes:
                path, value = change.split("=")
                *rooms, key = path.split(".")
                section = config
                for room in rooms:
                    section = section[room]
                assert key in section, path
                try:
                    section[key] = ast.literal_eval(value)
                except ValueError:
                    section[key] = value
        recipe.without_foreign_options(config, [change.split("=")[0] for change in changes])
        recipe.validate(config)
        assert (config.to_dict() == original.to_dict()) == (not changes)


def test_speed_is_the_median_in_steps(tmp_path):
    rows = [{"pairs_per_second": v} for v in (10.0, 30.0, 20.0)] + [{"auc": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "config.json").write_text(json.dumps({"config": {"batch_size": 5}}))
    speed = f"str(ablation.speed(ablation.Path({str(tmp_path)!r})))"
    assert asked(speed) == "4.0"
    (tmp_path / "metrics.jsonl").write_text("")
    assert asked(speed) == "nan"  # too few steps for a rate


def test_a_variant_of_the_same_time_keeps_the_steps_that_it_began_with(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"config": {"train": {"steps": 17}}}))
    assert asked(f"ablation.steps_of(ablation.Path({str(tmp_path)!r}), [])") == 17


@pytest.mark.parametrize("length", [[], ["--steps=2", "--seconds=3"]])
def test_one_length_has_to_be_said(tmp_path, length):
    done = command("experiments.ablation", f"--workdir={tmp_path}", *length)
    assert done.returncode
    assert "say how long: --seconds=120, or --steps=400" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("length", ["--steps=2", "--seconds=1"])
def test_a_variant_is_trained_and_measured(tmp_path, length):
    done = command(
        "experiments.ablation", f"--workdir={tmp_path}", length, "--trials=20",
        "--only=cosine head", "--changes=data.source=glyphs,eval.trials=20,train.devices=1,"
        "data.drawn_alphabets=0,model.views=1,train.doctor=False",
    )  # fmt: skip
    assert not done.returncode, done.stderr
    row = done.stdout.strip().splitlines()[-1]
    assert row.startswith("| cosine head | `model.head=cosine`, `model.tower_options.tokens=0` |")
    steps = int(row.split("|")[-3])
    assert steps == 2 if length == "--steps=2" else steps >= 1
