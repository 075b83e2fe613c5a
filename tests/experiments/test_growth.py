"""Each kind of size gives a speed, and the picture has a panel for each."""

import json
from types import SimpleNamespace

import numpy as np
from commands import command
from PIL import Image

from experiments.peers import grow, sweep
from siamjax.benchmark.speed import WAYS


def test_trials_and_queries_have_a_speed():
    assert grow.trials(500, 0.0) > 0
    assert grow.queries(1000, 0.0) > 0


def test_a_step_is_measured_whatever_grows(monkeypatch):
    asked = []

    found = SimpleNamespace(speeds=dict.fromkeys(WAYS, SimpleNamespace(median=7)))

    def steady_state(config, splits, windows, seconds, ways):
        shape = len(splits.train), *splits.train.images.shape[1:3]
        asked.append((config.batch_size, config.train.devices, *shape, *ways))
        return found

    monkeypatch.setattr("siamjax.benchmark.steady_state", steady_state)
    for kind, size in (("batch", 16), ("pixels", 14), ("images", 60), ("streamed", 60)):
        assert grow.training(kind, size, 0.1) == 7
    grow.training("devices", 4, 0.1)
    assert asked == [
        (16, 1, 2000, 28, 28, "resident"), (64, 1, 2000, 14, 14, "resident"),
        (64, 1, 60, 28, 28, "resident"), (64, 1, 60, 28, 28, "streamed"),
        (256, 4, 2000, 28, 28, "resident"),
    ]  # fmt: skip


def test_the_picture_has_a_panel_for_each_kind(tmp_path, monkeypatch):
    rows = [{"kind": k, "size": 10**i, "speed": 50.0 / (i + 1), "peak_mb": 300.0 + i}
            for k in grow.KINDS for i in range(3)]  # fmt: skip
    grow.draw(rows, tmp_path / "all.png")
    grow.draw(rows[3:], tmp_path / "one_less.png")
    seen = [np.asarray(Image.open(tmp_path / f"{n}.png").convert("L")) for n in ("all", "one_less")]
    assert seen[0].shape == seen[1].shape
    panel = (slice(0, 350), slice(0, 380))  # the first of 2 x 4 in 1,540 x 715 pixels
    assert (seen[0][panel] < 200).sum() > (seen[1][panel] < 200).sum() + 100


def test_devices_are_simulated_in_a_process_of_their_own(monkeypatch, capsys):
    asked = {}

    def measured(line, environment):
        kind, size = line[3].removeprefix("--one=").split(":")
        asked[kind, int(size)] = environment
        return {"kind": kind, "size": int(size), "speed": 1.0, "peak_mb": 1.0}

    monkeypatch.setattr(grow, "measured", measured)
    assert len(grow.rows(8, 0.1)) == len(asked) == 5
    assert asked["devices", 4] == sweep.simulated(4)
    assert asked["way", 5] == {}
    said = capsys.readouterr().out
    assert "devices (small CNN, 256 pairs over all of them): 8: 1.0 pairs/s" in said


def test_one_case_is_measured_and_printed():
    done = command("experiments.growth", "--one=way:5", "--seconds=0.05")
    row = json.loads(done.stdout)
    assert (row["kind"], row["size"]) == ("way", 5)
    assert min(row["speed"], row["peak_mb"]) > 0
