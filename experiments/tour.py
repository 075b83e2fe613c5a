"""Everything that can be done with a run, one command after the other, with times and memory.

    python -m experiments.tour --workdir=runs/tour

Trains configs/omniglot_fast.py (ten minutes on two cores; a finished run is used as it is),
evaluates it and the baselines on every protocol that needs no other data, builds a gallery of
10,000 images and asks it, answers a table of 100,000 pairs, draws the map of a folder and an
explanation, exports the run and writes its report. Each line shows the command, so that any of
them can be repeated by itself.
"""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run; made if need be.")
CONFIG_FILE = flags.DEFINE_string("recipe", "configs/omniglot_fast.py", "What to train.")
IMAGES = flags.DEFINE_integer("images", 10_000, "In the gallery.", lower_bound=40)
PAIRS = flags.DEFINE_integer("pairs", 100_000, "In the table.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", None, "Of training; default: the recipe's.")
FORMATS = flags.DEFINE_string("formats", "stablehlo,npz", "To export; onnx needs its extra.")


def main(argv: list[str]) -> None:
    """Entry point."""
    if argv[1:]:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    run = Path(str(WORKDIR.value))
    out = run / "tour"
    recipe = [f"--config={CONFIG_FILE.value}"]
    recipe += [] if STEPS.value is None else [f"--config.train.steps={STEPS.value}"]
    rows = [timed("main", *recipe, f"--workdir={run}")]
    out.mkdir(exist_ok=True)
    files = write_images(run, out / "images")
    table = write_table(files, out / "pairs.csv")
    of_run = f"--workdir={run}"
    one_shot = "within-alphabet,random-class,koch-within"
    rows += [
        timed("evaluate", of_run, f"--protocol={one_shot}", "--trials=4000"),
        timed("evaluate", of_run, "--protocol=verification,retrieval,open-set",
              f"--json={out / 'evaluation.json'}"),
        *(timed("evaluate", f"--baseline={name}", "--protocol=koch-within")
          for name in ("pixel-cosine", "pixel-l2", "hausdorff")),
        timed("gallery", "build", str(out / "images"), of_run, f"--index={out / 'gallery'}"),
        timed("gallery", "query", *map(str, files[:3]), of_run, f"--index={out / 'gallery'}"),
        timed("predict", of_run, str(files[0]), str(files[1]), f"--picture={out / 'pair.png'}"),
        timed("predict", of_run, f"--pairs={table}", f"--out={out / 'result.csv'}"),
        timed("embed", str(files[0].parent.parent), of_run, f"--out={out / 'embeddings.npz'}",
              f"--map={out / 'map.png'}"),
        timed("explain", str(files[0]), str(files[1]), of_run, f"--out={out / 'why.png'}"),
        timed("export", of_run, f"--out={out / 'export'}", f"--format={FORMATS.value}"),
        timed("report", of_run),
    ]  # fmt: skip
    print(f"\n{'command':<10} {'seconds':>8} {'peak MB':>8}")
    for name, seconds, peak in rows:
        print(f"{name:<10} {seconds:>8.1f} {peak:>8,.0f}")


def timed(name: str, *arguments: str) -> tuple[str, float, float]:
    """Runs `python -m experiments.<name>`: its name, seconds, and peak memory in MB.

    Ends the tour where the command fails.
    """
    line = [sys.executable, "-m", f"experiments.{name}", *arguments]
    print(f"\n$ python -m experiments.{name} {' '.join(arguments)}", flush=True)
    start = time.monotonic()
    process = subprocess.Popen(line)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"error: that ended with status {process.returncode}")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there
    return name, time.monotonic() - start, usage.ru_maxrss / unit


def write_images(run: Path, folder: Path) -> list[Path]:
    """Images of the run's data as PNG files in a folder for each class: the tour's gallery."""
    from PIL import Image

    from siamjax import config as configuration
    from siamjax import data

    config = configuration.from_json((run / "config.json").read_text())
    splits = data.load(config)
    files = []
    for images in (splits.validation, splits.train):
        for i in range(min(len(images), IMAGES.value - len(files))):
            place = folder / f"{images.class_names[images.labels[i]]}".replace(os.sep, "-")
            place.mkdir(parents=True, exist_ok=True)
            files.append(place / f"{len(files):06}.png")
            if not files[-1].exists():
                pixels = images.images[i].squeeze()
                # The run will turn paper and ink round again.
                Image.fromarray(255 - pixels if config.data.invert else pixels).save(files[-1])
    return files


def write_table(files: list[Path], path: Path) -> Path:
    """A CSV of pairs of those files: every second one of two neighbours, mostly of one class."""
    import numpy as np

    rng = np.random.default_rng(0)
    left = rng.integers(0, len(files), PAIRS.value)
    near = (left + 1) % len(files)
    right = np.where(np.arange(PAIRS.value) % 2, rng.integers(0, len(files), PAIRS.value), near)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["left", "right", "same"])
        for a, b in zip(left, right, strict=True):
            one, other = files[a].absolute(), files[b].absolute()
            writer.writerow([one, other, int(one.parent == other.parent)])
    return path


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    command.run(main)
