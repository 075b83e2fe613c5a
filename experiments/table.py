"""The table of docs/benchmarks.md: every recipe beside its peers, on one machine in one sitting.

    python -m experiments.table --peers=KERAS_PYTHON,TORCH_PYTHON [--out=table.md --json=table.json]

Each interpreter brings what it has of Keras on TensorFlow, Keras on JAX and PyTorch. Two rounds of
three windows of five seconds for five recipes take about an hour; let nothing else run meanwhile.
"""

import json
import sys
from pathlib import Path

from absl import flags

from experiments import command
from experiments.peers.clock import RECIPES
from experiments.peers.compare import compare
from experiments.peers.lines import table

PEERS = flags.DEFINE_list("peers", [], "Interpreters that have other frameworks.")
NAMES = flags.DEFINE_list("recipes", list(RECIPES), "Of the table.")
ROUNDS = flags.DEFINE_integer("rounds", 2, "Processes for each.", lower_bound=1)
WINDOWS = flags.DEFINE_integer("windows", 3, "Measured windows of each.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 5.0, "Length of a window.", lower_bound=0.1)
CHANGES = flags.DEFINE_list("changes", [], "Keys of this library's config: data.fallback=glyphs.")
OUT = flags.DEFINE_string("out", None, "Write the table here too.")
JSON = flags.DEFINE_string("json", None, "Write all figures here.")


def main(argv: list[str]) -> None:
    """Entry point."""
    if argv[1:]:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    if unknown := set(NAMES.value) - RECIPES.keys():
        sys.exit(f"error: no peer has {', '.join(unknown)}; they have {', '.join(RECIPES)}")
    timing = [f"--windows={WINDOWS.value}", f"--seconds={SECONDS.value}"]
    changes = [f"--config.{change}" for change in CHANGES.value]
    found = {}
    for name in NAMES.value:
        print(f"--- {name}", flush=True)
        config = [f"--config=configs/{name}.py", *changes]
        found[name] = compare(name, config, PEERS.value, ROUNDS.value, timing)
    text = "\n".join(table(found)) + "\n"
    print(text)
    if OUT.value:
        Path(OUT.value).write_text(text)
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    command.run(main)
