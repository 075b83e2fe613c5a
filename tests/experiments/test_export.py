"""The command export as a user runs it."""

import json
from functools import partial

import commands
import pytest
from untrained import untrained_run

import siamjax

command = partial(commands.command, "experiments.export")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("export") / "run")


def test_a_run_becomes_a_folder(run, tmp_path):
    out = tmp_path / "out"
    done = command(f"--workdir={run}", f"--out={out}", "--format=stablehlo,npz")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{out}: 1,232 weights ({run}, best checkpoint of step ")
    assert lines[1] == (
        "stablehlo: largest difference from the run, random images, batches of 1, 3 and 8:"
    )
    assert [line.split(":")[0].strip() for line in lines[2:6]] == [
        "tower embedding", "head similarity", "head score", "pair similarity"
    ]  # fmt: skip
    assert lines[6:] == ["npz: read again, equal"]
    about = json.loads((out / "about.json").read_text())
    assert about["fingerprint"] == siamjax.load(run).fingerprint


def test_mistakes_end_in_a_sentence(run, tmp_path):
    done = command(f"--workdir={run}", f"--out={run}", "--format=npz")
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        f"{run} is there and is not an export: choose another folder"
    )
    assert "Traceback" not in done.stderr
