import json
import subprocess
import sys
from pathlib import Path

import pytest

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
        assert "not measured: tensorflow" in done.stdout
