"""Orbax as `checkpoint.py` uses it: for one process, in little memory, without its log."""

from __future__ import annotations

import logging
from typing import Any

import jax
import orbax.checkpoint as ocp


def checkpointer(items: dict[str, Any] | None = None) -> ocp.Checkpointer:
    """Orbax' part; for a save, of `items`, it holds about one array at a time in memory again."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )
    # Orbax would wait for all processes of a run, and only the first one saves.
    options = alone if jax.process_count() > 1 else ocp.options.MultiprocessingOptions()
    handlers = {name: _handler(args, options) for name, args in (items or {}).items()}
    return ocp.Checkpointer(
        ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(options), **handlers),
        multiprocessing_options=options,
    )


def _handler(args: Any, options: ocp.options.MultiprocessingOptions) -> Any:
    if not isinstance(args, ocp.args.StandardSave):
        return ocp.JsonCheckpointHandler(multiprocessing_options=options)
    at_once: Any = _largest(args.item) / 1e9
    return ocp.StandardCheckpointHandler(
        save_concurrent_gb=at_once, multiprocessing_options=options
    )


def _largest(tree: Any) -> int:
    """Bytes of the largest array and a little more, as Orbax takes a limit; 64 MB at least."""
    return max([2**26, *(x.nbytes + 2**10 for x in jax.tree.leaves(tree))])


def not_orbax(record: logging.LogRecord) -> bool:
    """Orbax reports each save in a dozen lines of INFO, and a failed one in tracebacks."""
    own = record.levelno > logging.INFO and not record.exc_info  # an error is raised as well
    return own or "orbax" not in record.pathname
