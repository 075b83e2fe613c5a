"""Trains a recipe: `python -m experiments.main --config=configs/omniglot.py --workdir=runs/mine`.

Any key of the config can be overridden: `--config.batch_size=64`. Run again with the same
--workdir, a stopped run goes on from its latest checkpoint. On several hosts start it on each, with
--distributed or with --coordinator, --process and --processes (docs/scaling.md).

With --overfit-one-batch it only checks that the recipe can learn a single batch by heart: it writes
nothing, and ends with status 1 if not.
"""

from __future__ import annotations

import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments import command

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The recipe: a file of configs/.", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; made if need be.")
OVERFIT = flags.DEFINE_bool(
    "overfit_one_batch", False, "Only see whether one batch can be learned by heart."
)
flags.DEFINE_alias("overfit-one-batch", "overfit_one_batch")
OVERFIT_STEPS = flags.DEFINE_integer("overfit_steps", 300, "At most so many.", lower_bound=1)
COMPILE_CACHE = flags.DEFINE_bool("compile_cache", True, "Keep compiled programs between starts.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, for several.")
PROCESS = flags.DEFINE_integer("process", None, "Number of this process, from 0.")
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes run this together.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Read these three from SLURM, Kubernetes...")
HEARTBEAT = flags.DEFINE_integer(
    "heartbeat", None, "Seconds without a sign of a process until the others end.", lower_bound=10
)


def main(argv: list[str]) -> None:
    """Entry point."""
    from siamjax import backend, cluster, run, selfcheck

    if len(argv) > 1:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    cluster.join(
        COORDINATOR.value, PROCESS.value, PROCESSES.value,
        automatic=DISTRIBUTED.value, heartbeat=HEARTBEAT.value or cluster.HEARTBEAT,
    )  # fmt: skip
    backend.keep_memory()
    if COMPILE_CACHE.value:
        backend.enable_compilation_cache()
    command.leave_out_foreign_options(CONFIG.value, silent=not cluster.is_main())
    if OVERFIT.value:
        if not selfcheck.overfit_one_batch(CONFIG.value, OVERFIT_STEPS.value):
            sys.exit(1)
        return
    try:
        run.train(CONFIG.value, str(WORKDIR.value))
    except BaseException as error:
        if cluster.alone():
            raise
        command.end_now(error)


@flags.multi_flags_validator(
    ["workdir", "overfit_one_batch"], "Flag --workdir must have a value other than None."
)
def _has_a_folder(values: dict[str, Any]) -> bool:
    return bool(values["workdir"]) or values["overfit_one_batch"]


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    command.run(main)
