import json

import numpy as np
import pytest
from commands import command
from PIL import Image
from untrained import untrained_run


@pytest.fixture
def place(tmp_path):
    rng = np.random.default_rng(0)
    for c in range(6):
        (tmp_path / f"d/c{c}").mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (12, 12), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"d/c{c}/{i}.png")
    return tmp_path


def test_a_folder_and_a_run(place):
    untrained_run(place / "run")
    done = command(
        "experiments.inspect", place / "d", f"--workdir={place / 'run'}",
        f"--json={place / 'found.json'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "layout: class/image" in done.stdout
    assert "all: 6 classes, 18 images" in done.stdout
    assert "tells apart worst" in done.stdout
    found = json.loads((place / "found.json").read_text())
    assert found["splits"]["all"]["classes"] == 6
    assert set(found["hard_classes"][0]) == {"left", "right", "auc", "confused", "across"}


def test_a_mistake_ends_in_a_sentence(place):
    for path in (place / "d").rglob("[12].png"):
        path.unlink()
    for arguments, text in (
        ([], "error: give one folder, zip or table of pairs"),
        ([place / "nowhere"], "error: there is no "),
        ([place / "d"], "error: no run can start on this"),
    ):
        done = command("experiments.inspect", *arguments)
        assert done.returncode == 1
        assert text in done.stderr
        assert "Traceback" not in done.stderr
