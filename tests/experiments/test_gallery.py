"""The gallery as a user runs it."""

import json
from functools import partial

import commands
import numpy as np
import pytest
from PIL import Image
from untrained import untrained_run

command = partial(commands.command, "experiments.gallery")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    untrained_run(folder / "run")
    rng = np.random.default_rng(0)
    for name in ("anna/1.png", "anna/2.png", "ben/1.png"):
        path = folder / "people" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).save(path)
    (folder / "people/bad.png").write_text("no")
    return folder


def test_build_and_query(place):
    people, index = place / "people", place / "people.gallery"
    flags = f"--workdir={place / 'run'}", f"--index={index}"
    done = command("build", people, *flags)
    assert done.returncode == 1  # one of the four could not be read; the three are in
    assert "3 added, 3 images of 2 labels" in done.stdout
    assert "bad.png cannot be read as an image" in done.stderr
    assert done.stderr.endswith("error: 1 images could not be read\n")

    out = place / "out.json"
    done = command("query", people / "ben/1.png", people / "gone.png", *flags, "--top=2",
                   f"--json={out}")  # fmt: skip
    assert done.returncode == 1
    assert "gone.png cannot be read" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{people}/ben/1.png: ben (ben/1.png at 1.00)"
    assert lines[1] == "    1  1.0000  ben  ben/1.png"
    assert len(lines) == 3
    (answer,) = json.loads(out.read_text())
    assert answer["known"] is True
    assert answer["threshold"] == 0.5
    assert answer["matches"][0] == {
        "name": "ben/1.png", "label": "ben", "similarity": pytest.approx(1, abs=1e-5), "same": True,
    }  # fmt: skip

    white = place / "white.png"
    Image.new("L", (12, 12), 255).save(white)
    done = command("query", white, *flags, "--top=1", "--threshold=0.999")
    assert done.returncode == 0
    assert ": unknown (best " in done.stdout
    assert " < 0.999)" in done.stdout


def test_add_remove_list(place):
    people, index, white = place / "people", place / "more.gallery", place / "grey.png"
    flags = f"--workdir={place / 'run'}", f"--index={index}"
    command("build", people, *flags)
    Image.new("L", (12, 12), 200).save(white)
    done = command("add", people / "ben", white, "--label=new", *flags)
    assert done.returncode == 0
    assert "skipped ben/1.png: already in\n" in done.stdout
    assert "1 added, 4 images of 3 labels" in done.stdout
    done = command("remove", "anna/1.png", *flags)
    assert "1 removed, 3 images" in done.stdout
    done = command("list", f"--index={index}")
    assert done.stdout.startswith("3 images, 3 labels")
    assert f"new\t{white}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["find", "--index=g"], "say what to do: gallery build DIR |"),
        (["build", "--index=g"], "build needs one folder: gallery build DIR |"),
        (["query", "a.png", "--index=g"], "query needs the run: --workdir=RUN"),
        (["list", "--index=/no/gallery"], "there is no gallery /no/gallery"),
    ],
)
def test_a_mistake_ends_in_a_sentence(arguments, text):
    done = command(*arguments)
    assert done.returncode == 1
    assert f"error: {text}" in done.stderr
    assert "Traceback" not in done.stderr
