"""The command export as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from untrained import untrained_run

import siamjax

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.export", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


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
