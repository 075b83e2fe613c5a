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
    assert asked(f"ablation.speed(ablation.Path({str(tmp_path)!r}))") == 4


@pytest.mark.slow
def test_a_variant_is_trained_and_measured(tmp_path):
    done = command(
        "experiments.ablation", f"--workdir={tmp_path}", "--steps=2", "--trials=20",
        "--only=cosine head", "--changes=data.source=glyphs,eval.trials=20,train.devices=1",
    )  # fmt: skip
    assert "| cosine head | `model.head=cosine`, `model.tower_options.tokens=0` |" in done.stdout
