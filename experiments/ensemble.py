"""Makes several runs of one recipe into one, whose score of a pair is the mean of theirs.

    python -m experiments.main --config=configs/omniglot_fast.py --workdir=runs/a --config.seed=0
    python -m experiments.main --config=configs/omniglot_fast.py --workdir=runs/b --config.seed=1
    python -m experiments.ensemble --runs=runs/a,runs/b --workdir=runs/ab

The new folder is a run as any other: evaluate, predict, gallery, embed, explain, export, report and
`siamjax.load` take it. It holds the best weights of each, so an answer takes as long as those of
all together. Calibration and thresholds are fitted anew, to the validation pairs; the validation
figures of each run and of the whole are printed, on the trials of the first run's seed.
"""

import sys

from absl import flags

from experiments import command

RUNS = flags.DEFINE_list("runs", None, "The folders of two trained runs or more.")
WORKDIR = flags.DEFINE_string("workdir", None, "The folder to make.")


def main(argv: list[str]) -> None:
    """Entry point."""
    from siamjax import backend
    from siamjax.ensemble import make_ensemble

    if argv[1:]:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    backend.enable_compilation_cache()
    make_ensemble(RUNS.value or [], str(WORKDIR.value))
    print(f"done: {WORKDIR.value}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["runs", "workdir"])
    command.run(main)
