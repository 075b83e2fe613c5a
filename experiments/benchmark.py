"""Measures a recipe's training step here: `python -m experiments.benchmark --config=configs/X.py`.

Prints pairs per second of the step as the trainer runs it (images on the device, pairs drawn and
warped inside) beside the same step with streamed batches, seconds to the first step and where they
went, the share of the device's measured matrix product that the step reaches, and memory.

    --batch_sizes=32,64  --sweep  --devices=1,2,4  --dtypes=float32,bfloat16

each measure in a process for every case; `--sweep` doubles the batch until it does not fit.

    python -m experiments.benchmark --config=configs/omniglot.py --peers=/other/venv/bin/python

runs the same recipe in Keras (TensorFlow and JAX) and PyTorch, in whichever of them each
interpreter has (`pip install 'siamjax[bench]'`), a process for each measurement, in turn. Each
holds the same few images (`--images`), so that memory is compared with memory.
"""

import time

STARTED = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402

from absl import flags  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from experiments import command  # noqa: E402
from experiments.peers import compare  # noqa: E402
from experiments.peers.sweep import Cases, sweep  # noqa: E402

CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe.", lock_config=True)
WINDOWS = flags.DEFINE_integer("windows", 5, "Measured windows of each way.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 5.0, "Length of a window.", lower_bound=0.1)
WAYS = flags.DEFINE_list("ways", ["resident", "streamed"], "What is measured.")
JSON = flags.DEFINE_string("json", None, "Write the figures here; -: print them.")
PROFILE = flags.DEFINE_string("profile", None, "A folder for a trace of five dispatches.")
COMPILE_CACHE = flags.DEFINE_bool("compile_cache", True, "Keep compiled programs between starts.")
IMAGES = flags.DEFINE_integer("images", None, "Train on the first so many images.", lower_bound=1)
BATCH_SIZES = flags.DEFINE_list("batch_sizes", None, "Measure each; the recipe's by default.")
SWEEP = flags.DEFINE_bool("sweep", False, "Double the batch size until it does not fit.")
DEVICES = flags.DEFINE_list("devices", None, "Measure with so many devices each.")
DTYPES = flags.DEFINE_list("dtypes", None, "Measure each: float32, bfloat16.")
PEERS = flags.DEFINE_list("peers", None, "Interpreters that have other frameworks.")
ROUNDS = flags.DEFINE_integer("rounds", 2, "With --peers: processes for each.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Entry point."""
    if argv[1:]:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    file = config_flags.get_config_filename(flags.FLAGS["config"])
    timing = [f"--windows={WINDOWS.value}", f"--seconds={SECONDS.value}"]
    recipe = [f"--config={file}", *(a for a in sys.argv[1:] if a.startswith("--config."))]
    if PEERS.value and IMAGES.value:
        sys.exit("error: --images: with --peers it is as many as the peers hold; leave it out")
    if PEERS.value:
        figures = compare.compare(Path(file).stem, recipe, PEERS.value, ROUNDS.value, timing)
    elif BATCH_SIZES.value or SWEEP.value or DEVICES.value or DTYPES.value:
        if not COMPILE_CACHE.value:
            timing.append("--nocompile_cache")
        if IMAGES.value:
            timing.append(f"--images={IMAGES.value}")
        cases = Cases(
            [int(b) for b in BATCH_SIZES.value or [CONFIG.value.batch_size]],
            SWEEP.value,
            [int(d) for d in DEVICES.value or [max(1, CONFIG.value.train.devices)]],
            DTYPES.value or [CONFIG.value.dtype],
        )
        figures = sweep(cases, recipe, timing)
    else:
        command.leave_out_foreign_options(CONFIG.value, silent=JSON.value == "-")
        figures = measure(Path(file).stem)
    if JSON.value == "-":
        print(json.dumps(figures))
    elif JSON.value:
        Path(JSON.value).write_text(json.dumps(figures, indent=1) + "\n")


def measure(recipe: str) -> dict:
    """This library's step: everything that can be measured in one process."""
    import jax
    import numpy as np

    from siamjax import backend, benchmark
    from siamjax.data import load
    from siamjax.recipe import validate

    imported = time.perf_counter() - STARTED
    backend.keep_memory()
    if COMPILE_CACHE.value:
        backend.enable_compilation_cache()
    config = CONFIG.value
    with config.unlocked():
        config.train.devices = max(1, config.train.devices)
    validate(config)
    loaded = time.perf_counter()
    splits = load(config)
    if IMAGES.value:
        if splits.pairs:
            sys.exit("error: --images: these data are fixed pairs, which need all of their images")
        few = splits.train.select(np.arange(min(IMAGES.value, len(splits.train))))
        splits = replace(splits, train=few)
    loaded = time.perf_counter() - loaded
    profile = None if PROFILE.value is None else Path(PROFILE.value)
    measured = benchmark.steady_state(
        config, splits, WINDOWS.value, SECONDS.value, WAYS.value, profile
    )
    device, peak = measured.run.devices.local[0], benchmark.process_peak()
    flop = benchmark.flop_per_step(config, splits) / config.batch_size
    ways = {
        name: {
            "pairs_per_second": speed.median, "least": speed.least, "most": speed.most,
            "windows": speed.windows, "waiting_for_data": speed.waiting,
        }
        for name, speed in measured.speeds.items()
    }  # fmt: skip
    first = next(iter(measured.speeds.values()))
    figures = {
        "name": f"siamjax on {jax.default_backend()}",
        "recipe": recipe,
        "data": splits.name,
        "images": len(splits.train),
        "device": device.device_kind,
        "platform": device.platform,
        "devices": measured.run.devices.count,
        "versions": benchmark.versions(),
        "batch_size": config.batch_size,
        "dtype": config.dtype,
        "steps_per_dispatch": measured.run.plan.dispatch,
        "pairs_per_second": first.windows,
        "ways": ways,
        "first_step_s": measured.first_step - STARTED,
        "start_s": {
            "import": imported, "data": loaded, "build": measured.build,
            "compile": measured.compile, "first_dispatch": measured.first,
        },
        "from_compile_cache": measured.cached,
        "peak_mb": peak,
        "device_peak_mb": benchmark.device_peak(device),
        "step_mb": measured.compiled_mib,
        "flop_per_pair": flop,
        "flop_per_second": flop * first.median,
        # Simulated devices share one machine's cores.
        "ceiling_flop_per_second": benchmark.matmul_ceiling(config.dtype, device)
        * (1 if device.platform == "cpu" else measured.run.devices.count),
    }  # fmt: skip
    show(figures)
    if profile is not None:
        print(
            f"trace: pip install xprof && xprof --logdir={profile}, or open its"
            " perfetto_trace.json.gz in https://ui.perfetto.dev"
        )
    return figures


def show(figures: dict) -> None:
    """The figures of `measure`, in words."""
    print(
        f"{figures['data']} on {figures['devices']} x {figures['device']}, batch"
        f" {figures['batch_size']}, {figures['dtype']}, {figures['steps_per_dispatch']} step(s) a"
        " dispatch"
    )
    for name, way in figures["ways"].items():
        side = "the host" if way["waiting_for_data"] > 0.1 else "the device"
        waits = f"waits for data {way['waiting_for_data']:.0%}: {side} decides"
        print(
            f"{name:>9}: {way['pairs_per_second']:,.1f} pairs/s [{way['least']:,.1f} to"
            f" {way['most']:,.1f}]; {waits}"
        )
    if {"resident", "streamed"} <= figures["ways"].keys():
        both = [figures["ways"][n]["pairs_per_second"] for n in ("resident", "streamed")]
        print(f"    ratio: {both[0] / both[1]:.2f}")
    parts = ", ".join(f"{name} {s:.1f}" for name, s in figures["start_s"].items())
    cache = "from the cache" if figures["from_compile_cache"] else "not from the cache"
    print(f"first step after {figures['first_step_s']:.1f} s: {parts}; compiled step {cache}")
    reached, ceiling = figures["flop_per_second"], figures["ceiling_flop_per_second"]
    print(
        f"{figures['flop_per_pair'] / 1e9:,.3g} GFLOP a pair in the plain model:"
        f" {reached / 1e9:,.1f} GFLOP/s, {reached / ceiling:.0%} of the {ceiling / 1e9:,.0f} of a"
        f" product of {figures['dtype']} matrices here"
    )
    on_device = figures["device_peak_mb"]
    device = "" if on_device is None else f", device {on_device:,.0f} MB"
    print(
        f"peak memory {figures['peak_mb']:,.0f} MB{device}; the step by itself"
        f" {figures['step_mb']:,.0f} MB"
    )


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    command.run(main)
