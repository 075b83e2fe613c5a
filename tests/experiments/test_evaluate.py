"""The command, in this process on a tiny run, and as a user starts it where it ends in an error."""

import json
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from commands import command
from lake_layout import random_runs
from shrunk import pair_folder

import siamjax
from experiments import evaluate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workdir(trained_run):
    return trained_run


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lake")
    random_runs(folder / "all_runs")
    return folder / "all_runs"


@pytest.fixture
def measure(tmp_path, capsys):
    """Runs the command; gives what it printed and its results."""

    def command(*arguments):
        out = tmp_path / "out.json"
        for flag in flags.FLAGS.get_key_flags_for_module(evaluate):
            flag.unparse()
        flags.FLAGS(["evaluate", *map(str, arguments), f"--json={out}"])
        evaluate.main(["evaluate"])
        return capsys.readouterr().out, json.loads(out.read_text())

    return command


def test_every_protocol_on_the_runs_own_data(workdir, measure):
    text, out = measure(
        f"--workdir={workdir}", "--way=3", "--trials=15", "--num_pairs=80", "--queries=20",
        "--protocol=within-alphabet,random-class,verification,retrieval,open-set",
    )  # fmt: skip
    first, second, *rest = text.splitlines()
    assert first == out["of"]
    assert "trained on glyphs" in first
    assert second.startswith("data: glyphs, split validation: ")
    assert "classes: not seen in training; they also chose the checkpoint" in second
    assert sum(line.startswith("data:") for line in rest) == 0
    for name, found in zip(
        ("within-alphabet", "random-class", "verification", "retrieval", "open-set"),
        out["results"],
        strict=True,
    ):
        assert found["protocol"] == name
        assert f"data: {found['data']}" == second
        assert any(line.startswith(name) for line in rest)
    one_shot, _, verification, retrieval, open_set = out["results"]
    assert (one_shot["way"], one_shot["shot"], one_shot["trials"]) == (3, 1, 15)
    assert verification["same"] == verification["different"] == 40
    assert retrieval["queries"] == 20
    card = siamjax.load(workdir).card
    assert {n: d["threshold"] for n, d in verification["thresholds"].items()} == card.thresholds
    assert {n: d["threshold"] for n, d in open_set["at"].items()} == card.thresholds


def test_the_same_command_gives_the_same_figures(workdir, measure):
    arguments = f"--workdir={workdir}", "--protocol=random-class", "--way=5", "--trials=40"
    one, two = measure(*arguments)[1], measure(*arguments)[1]
    assert one == two
    assert measure(*arguments, "--seed=1")[1] != one


def test_lakes_runs_go_through_the_runs_preprocessing(workdir, lake, measure):
    text, out = measure(
        f"--workdir={workdir}", f"--data={lake}", "--protocol=lake-20runs,random-class", "--way=3"
    )
    lines = text.splitlines()
    assert lines[1] == "data: Lake's runs: 20, 800 images"
    assert lines[2].startswith("lake-20runs 20-way 1-shot: ")
    assert lines[3].startswith("  error per run: mean ")
    assert lines[4].startswith("data: glyphs, split validation")
    errors = out["results"][0]["error_per_run"]
    assert len(errors) == 20
    assert np.mean(errors) == pytest.approx(1 - out["results"][0]["accuracy"])


def test_a_baseline_needs_no_run(lake, measure):
    text, out = measure(
        "--baseline=hausdorff", "--size=12", f"--data={lake}", "--protocol=lake-20runs"
    )
    assert text.startswith("baseline hausdorff, 12x12 pixels\ndata: Lake's runs: 20, 800 images\n")
    assert 0 < out["results"][0]["accuracy"] < 1


def test_pairs_are_verified_and_nothing_else(tmp_path, measure):
    data = pair_folder(tmp_path / "pairs")
    arguments = "--baseline=pixel-cosine", "--source=pair_table", "--size=16", f"--data={data}"
    text, out = measure(*arguments, "--protocol=verification")
    assert "split test: 12 pairs of 24 images; nothing was trained" in text
    assert (out["results"][0]["same"], out["results"][0]["pairs"]) == (
        6,
        "the pairs that the data state",
    )
    with pytest.raises(ValueError, match="retrieval needs images with classes"):
        measure(*arguments, "--protocol=retrieval")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (["--protocol=verification"], SystemExit, r"a run \(--workdir\) or a baseline \(--base"),
        (["--baseline=pixel", "--protocol=retrieval"], SystemExit, "no baseline 'pixel'; there"),
        (["--baseline=pixel-l2", "--protocol=retreival"], ValueError, "did you mean retrieval"),
        (["--baseline=pixel-l2", "--protocol=lake-20runs", "--data=tests"], ValueError, "20 runs"),
    ],
)
def test_a_mistake_is_named(arguments, error, text, measure, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(error, match=text):
        measure(*arguments)


def test_a_mistake_ends_in_a_sentence():
    arguments = ["--baseline=pixel-l2", "--protocol=retrieval", "--data=/gone"]
    done = command("experiments.evaluate", *arguments)
    assert done.returncode == 1
    assert "error: there is no /gone (--data)" in done.stderr
    assert "Traceback" not in done.stderr
