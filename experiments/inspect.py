"""Is my folder all right? What a run would make of it, before it is trained on.

    python -m experiments.inspect photos
    python -m experiments.inspect pairs.csv --json=found.json
    python -m experiments.inspect photos --workdir=runs/photos

Prints the layout found, the images of each class, files that cannot be read and why, sizes and
modes, images that are the same picture or nearly so (also across classes and splits), and what
leaks from training into validation. With a run: the classes that it tells apart worst. DIR may be
a folder, a zip or a table of pairs. The exit status is 1 if no run could start on it.
"""

import json
import sys
import time
from pathlib import Path

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run: name the classes it cannot split.")
JSON = flags.DEFINE_string("json", None, "Write everything found here, nothing cut short.")
HOLDOUT = flags.DEFINE_float("holdout", 0.2, "As config.data.holdout of the run to come.")
SEED = flags.DEFINE_integer("seed", 0, "As config.seed of the run to come.", lower_bound=0)


def main(argv: list[str]) -> None:
    """Entry point."""
    from siamjax.config import base, validate
    from siamjax.data.inspection import inspect
    from siamjax.data.inspection_text import as_text

    if len(argv) != 2:
        sys.exit("error: give one folder, zip or table of pairs")
    config = base()
    config.data.holdout, config.seed = HOLDOUT.value, SEED.value
    validate(config)
    found = inspect(Path(argv[1]), config, Told())
    print(as_text(found))
    everything = found.to_dict()
    if WORKDIR.value:
        everything["hard_classes"] = hard_classes(Path(argv[1]), str(WORKDIR.value))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(everything, indent=1) + "\n")
        print(f"{JSON.value}: all of it")
    if found.cannot_start:
        sys.exit("error: no run can start on this, see PROBLEM above")


def hard_classes(place: Path, workdir: str) -> list[dict]:
    """Prints the classes that a run tells apart worst."""
    import siamjax
    from siamjax import backend
    from siamjax.data.splits import printable
    from siamjax.hard_classes import find_hard_classes

    backend.enable_compilation_cache()
    comparator = siamjax.load(workdir)
    found = find_hard_classes(comparator, place)
    print(f"classes that {comparator.origin} tells apart worst ({found.compared}):")
    for pair in found.pairs[:20]:
        print(
            f"  AUC {pair.auc:.3f}, {pair.confused:.0%} taken for the same:"
            f" {printable(pair.left)} | {printable(pair.right)}"
        )
    return [pair._asdict() for pair in found.pairs]


class Told:
    """Tells how far it is, on the standard error, every few seconds."""

    def __init__(self, seconds: float = 5.0):
        self._seconds, self._last = seconds, time.monotonic()

    def __call__(self, done: int, images: int) -> None:
        """`done` of `images` files."""
        if time.monotonic() - self._last > self._seconds:
            self._last = time.monotonic()
            print(f"{done:,} of {images:,} files", file=sys.stderr)


if __name__ == "__main__":
    command.run(main)
