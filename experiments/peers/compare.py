"""This library beside other frameworks: a process for each measurement, in turn."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.peers.children import FailedError, measured, ours
from experiments.peers.clock import BATCHES, RECIPES

HERE = Path(__file__).parent
KERAS = ("tensorflow", "jax")
TORCH = ("eager", "channels_last", "bfloat16")


def compare(
    recipe: str, flags: list[str], peers: Sequence[str], rounds: int, timing: list[str]
) -> list[dict]:
    """Medians of processes, the quickest first.

    Args:
        recipe: its name.
        flags: that name it for this library, and change it.
        peers: interpreters that have other frameworks.
        rounds: processes for each.
        timing: the flags of windows and their length.
    """
    if recipe not in RECIPES:
        sys.exit(f"error: no peer has {recipe}; they have {', '.join(RECIPES)}")
    found: dict[str, list[dict]] = {}
    for number in range(rounds):
        for what, line, environment in processes(recipe, flags, peers, timing):
            try:
                row = measured(line, environment)
            except FailedError as error:
                if not number:
                    print(f"not measured: {what}: {error}", flush=True)
                continue
            found.setdefault(row["name"], []).append(row)
    rows = sorted((together(runs) for runs in found.values()), key=lambda r: -r["pairs_per_second"])
    for row in rows:
        print(
            f"{row['name']:<32} {row['pairs_per_second']:>12,.1f} pairs/s [{row['least']:,.1f} to"
            f" {row['most']:,.1f}], first step {row['first_step_s']:.1f} s,"
            f" {row['peak_mb']:,.0f} MB",
            flush=True,
        )
    return rows


def together(runs: list[dict]) -> dict:
    """One row of several processes: the median of all windows, best start, highest memory."""
    speeds = [x for run in runs for x in run["pairs_per_second"]]
    return {
        "name": runs[0]["name"],
        "recipe": runs[0]["recipe"],
        "pairs_per_second": statistics.median(speeds),
        "least": min(speeds),
        "most": max(speeds),
        "first_step_s": min(run["first_step_s"] for run in runs),
        "peak_mb": max(run["peak_mb"] for run in runs),
        "processes": runs,
    }


def processes(
    recipe: str, flags: list[str], peers: Sequence[str], timing: list[str]
) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Name, command line and environment of each measurement of a round."""
    batch = RECIPES[recipe][0]
    same = [f"--config.batch_size={batch}"]
    if recipe != "image_pairs":  # whose fixed pairs are few, and need all of their images
        same.append(f"--images={2 * BATCHES * batch}")
    yield "siamjax", ours(*flags, *same, *timing), {}
    for python in peers:
        for framework in KERAS:
            line = [python, str(HERE / "keras_peer.py"), recipe, *timing]
            yield f"Keras on {framework} ({python})", line, {"KERAS_BACKEND": framework}
        for variant in TORCH:
            line = [python, str(HERE / "torch_peer.py"), recipe, *timing, f"--variant={variant}"]
            yield f"PyTorch {variant} ({python})", line, {}
