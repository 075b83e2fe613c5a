"""What `experiments.growth` measures: one kind of size at a time, all else as usual."""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Callable

from experiments.peers.children import FailedError, measured
from experiments.peers.sweep import simulated

KINDS = {
    "batch": ("pairs in a step (small CNN, 28×28)", "pairs/s", (16, 64, 256, 1024)),
    "pixels": ("rows and columns of an image (small CNN, 64 pairs)", "pairs/s", (14, 28, 56, 112)),
    "images": ("images on the device (MLP, 28×28)", "pairs/s", (1000, 10_000, 100_000, 1_000_000)),
    "streamed": ("images on the host (MLP, 28×28)", "pairs/s", (1000, 10_000, 100_000, 1_000_000)),
    "way": ("ways of a one-shot trial", "trials/s", (5, 20, 100, 500)),
    "gallery": (
        "rows of a gallery, 128 numbers each",
        "queries/s",
        (1000, 10_000, 100_000, 1_000_000),
    ),
    "devices": ("devices (small CNN, 256 pairs over all of them)", "pairs/s", (1, 2, 4, 8)),
}


def rows(most: int, seconds: float) -> list[dict]:
    """Every kind at every size up to `most`, each case in its own process, printed as it comes.

    Args:
        most: no size above it.
        seconds: of each of three windows.
    """
    found = []
    for kind, (title, unit, sizes) in KINDS.items():
        for size in (s for s in sizes if s <= most):
            line = [sys.executable, "-m", "experiments.growth", f"--one={kind}:{size}"]
            try:
                environment = simulated(size) if kind == "devices" else {}
                row = measured([*line, f"--seconds={seconds}"], environment)
            except FailedError as error:
                print(f"{kind} {size}: {error}", flush=True)
                continue
            found.append(row)
            print(
                f"{title}: {size:,}: {row['speed']:,.1f} {unit}, {row['peak_mb']:,.0f} MB",
                flush=True,
            )
    return found


def one(kind: str, size: int, seconds: float) -> dict:
    """Speed and this process's peak memory at one size."""
    from siamjax import backend, benchmark

    backend.keep_memory()
    backend.enable_compilation_cache()
    speed = {"way": trials, "gallery": queries}.get(kind)
    rate = speed(size, seconds) if speed else training(kind, size, seconds)
    return {"kind": kind, "size": size, "speed": rate, "peak_mb": benchmark.process_peak()}


def training(kind: str, size: int, seconds: float) -> float:
    """Pairs a second of a small recipe's step, all else as usual."""
    from siamjax import benchmark
    from siamjax import config as configuration

    pixels = size if kind == "pixels" else 28
    count = size if kind in ("images", "streamed") else 2000
    config = configuration.base()
    config.batch_size = {"batch": size, "devices": 256}.get(kind, 64)
    config.data.size = (pixels, pixels)
    config.model.tower = "mlp" if kind in ("images", "streamed") else "small_cnn"
    config.model.init = "glorot"
    config.eval.trials = 0
    config.checkpoint.metric = "auc"
    config.train.devices = size if kind == "devices" else 1
    way = "streamed" if kind == "streamed" else "resident"
    found = benchmark.steady_state(config, splits(count, pixels), 3, seconds, [way])
    return found.speeds[way].median


def splits(count: int, pixels: int):
    """Random images, twenty of a class."""
    import numpy as np

    from siamjax.types import DataSplits, LabelledImages

    def some(count: int, seed: int) -> LabelledImages:
        rng = np.random.default_rng(seed)
        labels = np.arange(count, dtype=np.int32) // 20
        nothing = np.zeros(count, np.int32)
        names = tuple(map(str, range(int(labels[-1]) + 1)))
        images = rng.integers(0, 256, (count, pixels, pixels, 1), np.uint8)
        return LabelledImages(images, labels, nothing, nothing - 1, names)

    return DataSplits(some(count, 0), some(200, 1), None, "random", f"{count} random images")


def timed(call: Callable[[], object], seconds: float) -> float:
    """Seconds of a call, the median of those of three windows."""
    call()
    times, begun = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < 3 * seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def trials(way: int, seconds: float) -> float:
    """One-shot trials a second, of embeddings that are there already."""
    import numpy as np

    from siamjax.evaluation.one_shot import evaluate
    from siamjax.types import Episodes

    rng, count = np.random.default_rng(0), max(20, 20_000 // way)
    z = rng.standard_normal((2000, 128), np.float32)
    support = np.argsort(rng.random((count, 2000)), 1)[:, :way, None].astype(np.int32)
    answer = rng.integers(0, way, count).astype(np.int32)
    episodes = Episodes(rng.integers(0, 2000, count).astype(np.int32), support, answer, "random")
    return count / timed(
        lambda: evaluate(z, lambda a, b: -np.square(a - b).sum(1), episodes), seconds
    )


def queries(rows: int, seconds: float) -> float:
    """Queries a second, 32 at a time, for the five nearest of so many embeddings."""
    import numpy as np

    from siamjax.evaluation.nearest import Nearest

    rng = np.random.default_rng(0)
    nearest = Nearest(rng.standard_normal((rows, 128), np.float32))
    asked = rng.standard_normal((32, 128), np.float32)
    return 32 / timed(lambda: nearest.candidates(asked, 5), seconds)


def draw(rows: list[dict], path: str | os.PathLike[str]) -> None:
    """A panel a kind: speed on the left axis in whole decades, memory on the right one from 0."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    *panels, rest = figure.subplots(2, 4).flat
    rest.set_axis_off()
    for axes, (kind, (title, unit, _)) in zip(panels, KINDS.items(), strict=True):
        mine = [row for row in rows if row["kind"] == kind]
        sizes = [row["size"] for row in mine]
        axes.loglog(sizes, [row["speed"] for row in mine], "o-", color="tab:blue")
        decades = [math.log10(row["speed"]) for row in mine] or [0]
        axes.set_ylim(10 ** math.floor(min(decades)), 10 ** math.ceil(max(decades) + 1e-9))
        axes.set_title(title, fontsize=9)
        axes.set_ylabel(unit, color="tab:blue")
        axes.set_xticks(
            sizes, [f"{s:,}" if s < 10_000 else f"$10^{math.log10(s):.0f}$" for s in sizes]
        )
        axes.minorticks_off()
        memory = axes.twinx()
        memory.plot(sizes, [row["peak_mb"] for row in mine], "s--", color="tab:orange")
        memory.set_ylim(bottom=0)
        memory.set_ylabel("peak memory, MB", color="tab:orange")
    figure.savefig(path, dpi=110)
