"""The table of docs/benchmarks.md: every recipe beside its peers, on one machine in one sitting.

    python -m experiments.table --peers=KERAS_PYTHON,TORCH_PYTHON [--out=table.md --json=table.json]

Each interpreter brings what it has of Keras on TensorFlow, Keras on JAX and PyTorch. Two rounds of
three windows of five seconds for five recipes take about an hour; let nothing else run meanwhile.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from experiments import command
from experiments.peers.clock import RECIPES
from experiments.peers.compare import compare

PEERS = flags.DEFINE_list("peers", [], "Interpreters that have other frameworks.")
NAMES = flags.DEFINE_list("recipes", list(RECIPES), "Of the table.")
ROUNDS = flags.DEFINE_integer("rounds", 2, "Processes for each.", lower_bound=1)
WINDOWS = flags.DEFINE_integer("windows", 3, "Measured windows of each.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 5.0, "Length of a window.", lower_bound=0.1)
CHANGES = flags.DEFINE_list("changes", [], "Keys of this library's config: data.fallback=glyphs.")
OUT = flags.DEFINE_string("out", None, "Write the table here too.")
JSON = flags.DEFINE_string("json", None, "Write all figures here.")

COLUMNS = {
    "siamjax": "siamjax",
    "Keras-TensorFlow": "on tensorflow",
    "Keras-JAX": "on jax",
    "PyTorch eager": " eager",
    "PyTorch channels-last": " channels_last",
    "PyTorch bfloat16": " bfloat16",
}


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


def table(found: dict[str, list[dict]]) -> Iterator[str]:
    """Lines of Markdown: pairs a second, then seconds to the first step, then memory.

    Args:
        found: by recipe, the rows of `compare`.
    """
    heads = list(COLUMNS)
    for title, key, digits in (
        ("pairs per second", "pairs_per_second", 1),
        ("seconds to the first step", "first_step_s", 1),
        ("peak memory, MB", "peak_mb", 0),
    ):
        more = ["best float32 peer"] if key == "pairs_per_second" else []
        yield f"| {title} | {' | '.join([*heads, *more])} |"
        yield "| --- |" + " --- |" * len([*heads, *more])
        for recipe, rows in found.items():
            values = {head: _value(rows, mark, key) for head, mark in COLUMNS.items()}
            cells = ["-" if v is None else f"{v:,.{digits}f}" for v in values.values()]
            yield f"| `{recipe}` | {' | '.join([*cells, *([ratio(values)] if more else [])])} |"
        yield ""


def _value(rows: list[dict], mark: str, key: str) -> float | None:
    return next((row[key] for row in rows if mark in row["name"]), None)


def ratio(speeds: dict[str, float | None]) -> str:
    """This library over the best peer that computes in float32, as "1.5 ×"."""
    peers = [v for k, v in speeds.items() if v and k not in ("siamjax", "PyTorch bfloat16")]
    return f"{speeds['siamjax'] / max(peers):.2f} ×" if speeds["siamjax"] and peers else "-"


if __name__ == "__main__":
    command.run(main)
