"""What each part of a recipe is worth: trains it with and without, and measures each alike.

    python -m experiments.ablation --workdir=runs/ablation --seconds=120 --out=table.md

Every variant is `configs/omniglot_best.py` with a few keys changed, trained for the same time (or,
with --steps, the same steps) from the same seed in a process of its own, and measured by
`experiments.evaluate` on the validation alphabets. For the same time, each variant's step is timed
by `experiments.benchmark` first: a schedule has to know its end. Nothing else should run meanwhile.
The line of each can be repeated by itself; a variant that is done is not trained again.
"""

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "A folder for the variants' runs.")
RECIPE = flags.DEFINE_string("recipe", "configs/omniglot_best.py", "What is varied.")
STEPS = flags.DEFINE_integer("steps", None, "Of each training.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", None, "Or: of each training's steps.", lower_bound=1)
TRIALS = flags.DEFINE_integer("trials", 4000, "Of each measurement.", lower_bound=1)
SEEDS = flags.DEFINE_integer("seeds", 1, "Trainings of each variant.", lower_bound=1)
ONLY = flags.DEFINE_list("only", None, "Names of variants; default: all.")
CHANGES = flags.DEFINE_list("changes", [], "Keys for all of them: data.fallback=glyphs.")
OUT = flags.DEFINE_string("out", None, "Write the table here too.")

COSINE = ["model.head=cosine", "model.tower_options.tokens=0"]
VARIANTS: dict[str, list[str]] = {
    "the recipe": [],
    "cosine head": COSINE,
    "one view": ["model.views=1"],
    "four views": ["model.views=4"],
    "cosine head, one view": [*COSINE, "model.views=1"],
    "no shared maps": ["augment.shared=0.0"],
    "no turned alphabets": ["pairs.turned_groups=0.0"],
    "affine warps only": ["augment.name=affine"],
    "no drawn alphabets": ["data.drawn_alphabets=0"],
    "the whole image": ["data.fit=resize"],
    "twice each warp": [
        "augment.rotation=15", "augment.shear=0.3", "augment.scale=(0.8,1.25)",
        "augment.translation=4", "augment.elastic=1.6",
    ],
    "35x35 pixels": [
        "data.size=(35,35)", "model.head_options.grid=4",
        "augment.translation=1.5", "augment.elastic=0.6",
    ],
    "self-attention": ["model.tower_options.attention=4"],
    "pool last": ["model.tower_options.pool_first=False"],
    "stroke width": ["augment.stroke=0.5"],
    "the weights, not their mean": ["optimizer.average=0.0"],
    "supervised_contrastive": ["objective.loss=supervised_contrastive"],
    "prototypical": ["objective.loss=prototypical"],
    "all pairs, cross-entropy": ["objective.loss=bce"],
    "group norm, standardised": [
        "model.tower_options.norm=group", "model.tower_options.standardise=True",
    ],
    "twice the tokens": ["model.tower_options.tokens=64", "model.head_options.channels=64"],
    "three images a class": ["pairs.images_per_class=3", "pairs.groups_per_batch=2"],
}  # fmt: skip


def main(argv: list[str]) -> None:
    """Entry point."""
    if argv[1:]:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    names = ONLY.value or list(VARIANTS)
    if unknown := [name for name in names if name not in VARIANTS]:
        sys.exit(f"error: no variant {unknown[0]!r}; there are {', '.join(VARIANTS)}")
    root = Path(str(WORKDIR.value))
    lines = [
        "| variant | changed keys | 20-way 1-shot error | steps | steps a second |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in names:
        for seed in range(SEEDS.value):
            lines.append(measured(name, seed, root / f"{name.replace(' ', '_')}-{seed}"))
            print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    print(f"\n{text}")
    if OUT.value:
        Path(OUT.value).write_text(text)


def measured(name: str, seed: int, run: Path) -> str:
    """Trains and measures one variant: its row of the table."""
    keys = [*CHANGES.value, *VARIANTS[name], f"seed={seed}"]
    options = [f"--config={RECIPE.value}", *(f"--config.{key}" for key in keys)]
    steps = STEPS.value or steps_of(run, options)
    options += [
        f"--config.{key}={steps}" for key in ("train.steps", "eval.every", "checkpoint.every")
    ]
    run_command("main", *options, f"--workdir={run}")
    found = run / "evaluation.json"
    run_command(
        "evaluate", f"--workdir={run}", "--protocol=within-alphabet", f"--trials={TRIALS.value}",
        f"--json={found}",
    )  # fmt: skip
    result = json.loads(found.read_text())["results"][0]
    low, high = (100 * (1 - x) for x in reversed(result["interval"]))
    changed = ", ".join(f"`{key}`" for key in VARIANTS[name]) or "-"
    error = f"{100 * (1 - result['accuracy']):.1f} % [{low:.1f}, {high:.1f}]"
    title = f"{name}{f', seed {seed}' if seed else ''}"
    return f"| {title} | {changed} | {error} | {steps:,} | {speed(run):.2f} |"


def steps_of(run: Path, options: list[str]) -> int:
    """As many as fit into the asked seconds; of a run that has begun, what it began with."""
    saved = run / "config.json"
    if saved.exists():
        return json.loads(saved.read_text())["config"]["train"]["steps"]
    run.parent.mkdir(parents=True, exist_ok=True)
    found = run.with_suffix(".speed.json")
    run_command(
        "benchmark", *options, "--ways=resident", "--windows=3", "--seconds=3", f"--json={found}"
    )
    figures = json.loads(found.read_text())
    rate = statistics.median(figures["pairs_per_second"]) / figures["batch_size"]
    return max(1, round(rate * SECONDS.value))


def run_command(name: str, *arguments: str) -> None:
    """Runs `python -m experiments.<name>`, and ends where it fails."""
    print(f"$ python -m experiments.{name} {' '.join(arguments)}", flush=True)
    status = subprocess.run([sys.executable, "-m", f"experiments.{name}", *arguments]).returncode
    if status:
        sys.exit(f"error: that ended with status {status}")


def speed(run: Path) -> float:
    """Steps per second of a run, the median over its lines of metrics; NaN of very few steps."""
    from siamjax.training.writer import read_rows

    rows = read_rows(run / "metrics.jsonl")
    pairs = [row["pairs_per_second"] for row in rows if "pairs_per_second" in row]
    config = json.loads((run / "config.json").read_text())["config"]
    return statistics.median(pairs or [math.nan]) / config["batch_size"]


@flags.multi_flags_validator(["steps", "seconds"], "say how long: --seconds=120, or --steps=400")
def _one_length(values: dict[str, Any]) -> bool:
    return (values["steps"] is None) != (values["seconds"] is None)


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    command.run(main)
