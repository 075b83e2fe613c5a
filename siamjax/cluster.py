"""Several processes as one run: joining them, and who writes."""

from __future__ import annotations

import hashlib

import jax
import numpy as np
from jax.experimental import multihost_utils

HEARTBEAT = 100  # seconds


class ClusterError(ValueError):
    """The processes of a run could not find each other, or were told so in part."""


def join(
    coordinator: str | None = None,
    process: int | None = None,
    processes: int | None = None,
    *,
    automatic: bool = False,
    heartbeat: int = HEARTBEAT,
) -> bool:
    """Joins the other processes of a run; call it before anything touches a device.

    Args:
        coordinator: HOST:PORT where process 0 listens.
        process: number of this process, from 0.
        processes: how many there are.
        automatic: let JAX read all this from what SLURM, Open MPI, Kubernetes or a Cloud TPU say.
        heartbeat: seconds after which a process that says nothing counts as dead, and the others
            end too.

    Returns:
        Whether there is anything to join: without arguments a process runs by itself.

    Raises:
        ClusterError: if only some of the three are given, or the others do not answer.
    """
    told = (coordinator, process, processes)
    if automatic and any(value is not None for value in told):
        raise ClusterError(
            "--distributed reads the coordinator and the processes from the environment: leave out"
            " --coordinator, --process and --processes, or --distributed"
        )
    if not automatic:
        if all(value is None for value in told):
            return False
        if coordinator is None or process is None or processes is None:
            raise ClusterError(
                "--coordinator=HOST:PORT, --process=I and --processes=N belong together; got"
                f" {coordinator}, {process} and {processes}"
            )
        if not 0 <= process < processes:
            raise ClusterError(
                f"--process counts from 0 to --processes - 1 = {processes - 1}; got {process}"
            )
    try:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=heartbeat
        )
    except (RuntimeError, ValueError) as error:
        raise ClusterError(
            f"the processes of this run did not find each other ({error}); --distributed needs an"
            " environment that JAX knows (SLURM, Open MPI, Kubernetes, Cloud TPU), else give"
            " --coordinator=HOST:PORT --process=I --processes=N to each"
        ) from error
    return True


def alone() -> bool:
    """Whether this process is the only one of its run."""
    return jax.process_count() == 1


def is_main() -> bool:
    """Whether this process is the one that writes files and talks: number 0, or the only one."""
    return jax.process_index() == 0


def all_ready(ready: bool) -> bool:
    """Whether every process is ready; each one calls it at the same place, and waits there."""
    if alone():
        return ready
    return bool(np.all(multihost_utils.process_allgather(np.array(ready))))


def all_same(text: str) -> bool:
    """Whether every process calls it with the same text."""
    if alone():
        return True
    mark = np.frombuffer(hashlib.sha256(text.encode()).digest()[:4], np.int32)
    marks = np.asarray(multihost_utils.process_allgather(mark))
    return bool((marks == mark[0]).all())
