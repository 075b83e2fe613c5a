"""Measures a recipe's step here: `python -m experiments.benchmark --config=configs/X.py`.

Prints pairs per second of the step as the trainer runs it (images on the device, pairs drawn and
warped inside) beside the same step fed from host batches by a Python loop.
"""

from absl import flags
from ml_collections import config_flags

from experiments import command

CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe.", lock_config=True)
WINDOWS = flags.DEFINE_integer("windows", 5, "Measured windows of each way.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 5.0, "Length of a window.", lower_bound=0.1)


def main(argv: list[str]) -> None:
    """Entry point."""
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
    speeds = benchmark.steady_state(config, splits, WINDOWS.value, SECONDS.value)
    for name, speed in speeds.items():
        print(f"{name:>9}: {speed.median:,.1f} pairs/s [{speed.least:,.1f} to {speed.most:,.1f}]")
    print(f"    ratio: {speeds['resident'].median / speeds['host'].median:.2f}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config"])
    command.run(main)
