"""When memory does not suffice: how much a step needs, and the batch that would fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax


class OutOfMemoryError(ValueError):
    """The device, or the machine, has not enough memory for a run."""


def exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    return isinstance(error, jax.errors.JaxRuntimeError) and (
        "RESOURCE_EXHAUSTED" in text or "ut of memory" in text
    )


def available(device: Any, beside: bool = False) -> int | None:
    """Bytes that a device has for us: its limit, or on a CPU what the machine has to spare.

    Args:
        device: of JAX.
        beside: only what is left beside that which is held now.
    """
    stats = device.memory_stats() or {}
    if limit := stats.get("bytes_limit"):
        return int(limit) - int(stats.get("bytes_in_use", 0) if beside else 0)
    if device.platform != "cpu":
        return None  # the machine's memory is not the device's
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return _free_pages()


def _free_pages() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None  # a system that does not tell


def needed(compiled: Any, beside: bool = False) -> int | None:
    """Bytes that a compiled step holds at once, by the compiler's own account; None without one.

    Args:
        compiled: the step.
        beside: only those beside its arguments.
    """
    try:
        account = compiled.memory_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    if account is None:
        return None
    made = account.output_size_in_bytes - account.alias_size_in_bytes + account.temp_size_in_bytes
    return made if beside else account.argument_size_in_bytes + made


def largest_batch(
    cost: Callable[[int], int | None], batch: int, limit: int | None
) -> tuple[int, int] | None:
    """The first of batch/2, batch/4, ... whose step fits.

    Args:
        cost: bytes that a step of so many pairs needs; None where that is not known; a ValueError
            means that the recipe can't have this batch.
        batch: the one that did not fit.
        limit: bytes there are.

    Returns:
        The batch and its bytes, or None where no batch fits or nothing is known.

    Example:
        >>> largest_batch(lambda b: 10 * b, batch=100, limit=300)
        (25, 250)
    """
    while limit and (batch := batch // 2):
        try:
            size = cost(batch)
        except ValueError:
            continue
        if size is None:
            return None
        if size <= limit:
            return batch, size
    return None


def advice(batch: int, fits: tuple[int, int] | None, error: BaseException) -> str:
    """The sentence for the user."""
    lines = str(error).strip().splitlines() or ["no more was said"]
    if fits is None:
        remedy = f"try --config.batch_size={max(1, batch // 2)}, or less"
    else:
        remedy = (
            f"by the compiler's account the largest of its halves that fits is"
            f" --config.batch_size={fits[0]} ({fits[1] / 2**30:.2f} GiB a step)"
        )
    return (
        f"out of memory with config.batch_size = {batch} ({lines[0][:200]}): {remedy}. The latest"
        " checkpoint is whole, but a run can't change its batch: give another --workdir. Smaller"
        " images (config.data.size) or config.dtype=bfloat16 help too"
    )
