"""Does this machine give a run's numbers again? `python -m experiments.verify_run --workdir=RUN`.

Rebuilds the run from its own config, repeats the first steps and compares their losses with those
that the run recorded. Nothing is written. Status 0: equal, 1: they differ.
"""

from __future__ import annotations

import sys

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
STEPS = flags.DEFINE_integer("steps", 20, "So many steps, from the first.", lower_bound=1)
COMPILE_CACHE = flags.DEFINE_bool("compile_cache", True, "Keep compiled programs between starts.")


def main(argv: list[str]) -> None:
    """Entry point."""
    from siamjax import backend, selfcheck

    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    backend.keep_memory()
    if COMPILE_CACHE.value:
        backend.enable_compilation_cache()
    found = selfcheck.verify_run(str(WORKDIR.value), STEPS.value)
    print(found.sentence)
    if found.first_difference is not None:
        sys.exit(1)


if __name__ == "__main__":
    command.run(main)
