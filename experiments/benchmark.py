"""Measures a recipe's training step here: `python -m experiments.benchmark --config=configs/X.py`.

Prints pairs per second of the step as the trainer runs it (images on the device, pairs drawn and
warped inside) beside the same step fed from host batches by a Python loop, seconds to the first
step and peak memory.

    python -m experiments.benchmark --config=configs/omniglot.py --peers=/other/venv/bin/python

runs the same recipe in Keras (TensorFlow and JAX) and PyTorch, in whichever of them each
interpreter has (`pip install 'siamjax[bench]'`), a process for each measurement, in turn.
"""

import time

STARTED = time.perf_counter()

import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from experiments import command  # noqa: E402
from experiments.peers.clock import RECIPES  # noqa: E402

CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe.", lock_config=True)
WINDOWS = flags.DEFINE_integer("windows", 5, "Measured windows of each way.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 5.0, "Length of a window.", lower_bound=0.1)
WAYS = flags.DEFINE_list("ways", ["resident", "host"], "What is measured.")
JSON = flags.DEFINE_string("json", None, "Write the figures here; -: print them.")
PEERS = flags.DEFINE_list("peers", None, "Interpreters that have other frameworks.")
ROUNDS = flags.DEFINE_integer("rounds", 2, "With --peers: processes for each.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Entry point."""
    if argv[1:]:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    figures = compare() if PEERS.value else measure()
    if JSON.value == "-":
        print(json.dumps(figures))
    elif JSON.value:
        Path(JSON.value).write_text(json.dumps(figures, indent=1) + "\n")


def measure() -> dict:
    """This library's step: pairs per second of every window of the first way, and the rest."""
    import jax

    from siamjax import backend, benchmark
    from siamjax.data import load
    from siamjax.recipe import validate

    backend.keep_memory()
    backend.enable_compilation_cache()
    config = CONFIG.value
    with config.unlocked():
        config.train.devices = 1
    validate(config)
    splits = load(config)
    device = jax.devices()[0].device_kind
    print(f"{splits.name} on 1 x {device}, batch {config.batch_size}, {config.dtype}")
    measured = benchmark.steady_state(config, splits, WINDOWS.value, SECONDS.value, WAYS.value)
    for name, speed in measured.speeds.items():
        print(f"{name:>9}: {speed.median:,.1f} pairs/s [{speed.least:,.1f} to {speed.most:,.1f}]")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    first = measured.first_step - STARTED
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(f"first step after {first:.1f} s, peak memory {peak:,.0f} MB")
    if len(measured.speeds) == 2:
        resident, host = (measured.speeds[way].median for way in ("resident", "host"))
        print(f"    ratio: {resident / host:.2f}")
    return {
        "name": f"siamjax on {jax.default_backend()}",
        "pairs_per_second": next(iter(measured.speeds.values())).windows,
        "first_step_s": first,
        "peak_mb": peak,
    }


def compare() -> list[dict]:
    """This library beside every peer that the interpreters have, in turn: medians of processes."""
    recipe = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    if recipe not in RECIPES:
        sys.exit(f"error: no peer has {recipe}; they have {', '.join(RECIPES)}")
    found: dict[str, list[dict]] = {}
    for number in range(ROUNDS.value):
        for line, environment in processes(recipe):
            done = subprocess.run(
                line, capture_output=True, text=True, env=os.environ | environment
            )
            if done.returncode and not number:
                what = " ".join([*environment.values(), *line[:3]])
                print(f"not measured: {what}: {(done.stderr.strip() or '?').splitlines()[-1]}")
            if not done.returncode:
                row = json.loads(done.stdout.splitlines()[-1])
                found.setdefault(row["name"], []).append(row)
    rows = [
        {
            "name": name,
            "recipe": recipe,
            "pairs_per_second": statistics.median(x for r in runs for x in r["pairs_per_second"]),
            "first_step_s": min(r["first_step_s"] for r in runs),
            "peak_mb": max(r["peak_mb"] for r in runs),
        }
        for name, runs in found.items()
    ]
    for row in sorted(rows, key=lambda r: -r["pairs_per_second"]):
        print(
            f"{row['name']:<32} {row['pairs_per_second']:>12,.1f} pairs/s, first step"
            f" {row['first_step_s']:.1f} s, {row['peak_mb']:,.0f} MB"
        )
    return rows


def processes(recipe: str) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The command lines to be run in turn, each with what its environment needs."""
    options = [f"--windows={WINDOWS.value}", f"--seconds={SECONDS.value}"]
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    ours = [f"--config={file}", *(a for a in sys.argv[1:] if a.startswith("--config."))]
    ours += [f"--config.batch_size={RECIPES[recipe][0]}", "--ways=resident", "--json=-", *options]
    yield [sys.executable, "-m", "experiments.benchmark", *ours], {}
    peers = Path(__file__).parent / "peers"
    for python in PEERS.value or ():
        for framework in ("tensorflow", "jax"):
            line = [python, str(peers / "keras_peer.py"), recipe, *options]
            yield line, {"KERAS_BACKEND": framework}
        for variant in ("eager", "channels_last", "bfloat16"):
            line = [python, str(peers / "torch_peer.py"), recipe, *options]
            yield [*line, f"--variant={variant}"], {}


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    command.run(main)
