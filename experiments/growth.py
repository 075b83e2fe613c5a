"""How cost grows: speed and memory against one size at a time, each case in its own process.

    python -m experiments.growth --out=docs/growth.png [--json=growth.json]

Batch size, image size, number of images (resident and streamed), ways of a one-shot trial, rows of
a gallery, devices; random images and embeddings. `--most` bounds the sizes, for a quick look. Where
there are no accelerators the devices are simulated ones, which share the cores.
"""

import json
import sys
from pathlib import Path

from absl import flags

from experiments import command
from experiments.peers import grow

OUT = flags.DEFINE_string("out", None, "The picture.")
JSON = flags.DEFINE_string("json", None, "Write the figures here.")
MOST = flags.DEFINE_integer("most", 1_000_000, "No size above it.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 2.0, "Of each of three windows.", lower_bound=0.05)
ONE = flags.DEFINE_string("one", None, "Measure KIND:SIZE here and print it.")


def main(argv: list[str]) -> None:
    """Entry point."""
    if argv[1:]:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    if ONE.value:
        kind, size = ONE.value.split(":")
        print(json.dumps(grow.one(kind, int(size), SECONDS.value)))
        return
    if not OUT.value:
        sys.exit("error: --out=PICTURE says where to draw")
    rows = grow.rows(MOST.value, SECONDS.value)
    grow.draw(rows, OUT.value)
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    command.run(main)
