import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import command

from experiments.peers import clock, compare, sweep
from experiments.peers.lines import table

ROOT = Path(__file__).resolve().parent.parent.parent

# A peer that needs nothing: what comes of its steps is not what is tested here.
PEER = """
import sys, time
sys.path.insert(0, "experiments/peers")
from clock import measure
measure("idle", "mnist_mlp", lambda n: time.sleep(0.001 * n), time.perf_counter(), 3, 0.05)
"""


def test_the_clock_counts_pairs():
    line = [sys.executable, "-c", PEER]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    row = json.loads(done.stdout)
    assert row["name"] == "idle"
    assert len(row["pairs_per_second"]) == 3
    # 128 pairs in a little more than a millisecond
    assert all(20_000 < speed < 128_000 for speed in row["pairs_per_second"])
    assert row["peak_mb"] > 5


@pytest.mark.slow
def test_this_library_stands_beside_whatever_peers_there_are(tmp_path):
    line = [sys.executable, "-m", "experiments.benchmark", "--config=configs/mnist_mlp.py"]
    line += [f"--peers={sys.executable}", "--rounds=1", "--windows=2", "--seconds=0.5"]
    line += ["--config.data.source=digits", f"--json={tmp_path / 'rows.json'}"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows[0]["name"] == "siamjax on cpu"
    assert rows[0]["pairs_per_second"] > 1000
    assert "siamjax on cpu" in done.stdout
    if len(rows) == 1:
        assert "not measured: Keras on tensorflow" in done.stdout


FIGURES = """
import json, sys
size = int(next(a for a in sys.argv if "batch_size" in a).split("=")[1])
if size > 8:
    sys.exit("error: a step does not fit")
devices = int(next(a for a in sys.argv if "devices" in a).split("=")[1])
print(json.dumps({
    "batch_size": size, "devices": devices, "dtype": "float32", "platform": "cpu",
    "pairs_per_second": [100.0 * devices ** 0.5] * 3, "first_step_s": 1.0, "peak_mb": 10.0,
    "device_peak_mb": None, "flop_per_second": 1.0, "ceiling_flop_per_second": 2.0,
}))
"""


def test_a_sweep_doubles_until_it_does_not_fit_and_tells_scaling(monkeypatch, capsys):
    monkeypatch.setattr(sweep, "ours", lambda *flags: [sys.executable, "-c", FIGURES, *flags])
    rows = sweep.sweep(sweep.Cases([4], True, [1, 4], ["float32"]), ["--config=x"], [])
    assert [(row["batch_size"], row["devices"]) for row in rows] == [(4, 1), (8, 1), (4, 4), (8, 4)]
    assert [row["scaling_efficiency"] for row in rows] == [1, 1, 0.5, 0.5]
    out = capsys.readouterr().out
    assert "batch 16, 1 device(s), float32: error: a step does not fit" in out
    assert "scaling 50% (simulated devices" in out


def test_simulated_devices_replace_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a=b --xla_force_host_platform_device_count=8")
    assert sweep.simulated(1) == {}
    flags = sweep.simulated(2)["XLA_FLAGS"].split()
    assert flags == ["--a=b", "--xla_force_host_platform_device_count=2"]


def test_the_table_has_a_column_for_each_peer_and_a_ratio():
    rows = [
        {"name": name, "pairs_per_second": speed, "first_step_s": 2.0, "peak_mb": 300.0}
        for name, speed in (
            ("siamjax on cpu", 60.0), ("Keras 3 on tensorflow", 20.0), ("PyTorch 2 bfloat16", 90.0),
        )
    ]  # fmt: skip
    lines = list(table({"omniglot": rows}))
    assert lines[2] == "| `omniglot` | 60.0 | 20.0 | - | - | - | 90.0 | 3.00 × |"
    assert lines[6] == "| `omniglot` | 2.0 | 2.0 | - | - | - | 2.0 |"


def test_every_peer_holds_as_many_images():
    what, line, _ = next(compare.processes("omniglot", ["--config=c.py"], [], ["--windows=1"]))
    left, right, _ = clock.pairs("mnist_mlp")
    assert (what, len(left) + len(right)) == ("siamjax", 2 * 8 * 128)
    assert line[-4:] == ["--config=c.py", "--config.batch_size=32", "--images=512", "--windows=1"]


def test_images_are_the_peers_choice_beside_peers():
    done = command(
        "experiments.benchmark", "--config=configs/omniglot.py", "--peers=x", "--images=5"
    )
    assert done.returncode == 1
    assert "with --peers it is as many as the peers hold" in done.stderr


@pytest.mark.slow
def test_one_measurement_says_everything(tmp_path):
    out = tmp_path / "figures.json"
    done = command(
        "experiments.benchmark", "--config=tests/experiments/tiny_config.py", "--windows=1",
        "--seconds=0.2", f"--json={out}", f"--config.data.cache_dir={tmp_path}", "--images=400",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert set(figures["start_s"]) == {"import", "data", "build", "compile", "first_dispatch"}
    assert sum(figures["start_s"].values()) <= figures["first_step_s"]
    assert 0 < figures["flop_per_second"] < figures["ceiling_flop_per_second"] * 2
    assert "of a product of float32 matrices here" in done.stdout
