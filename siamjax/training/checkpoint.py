"""Checkpoints through Orbax: `latest` to go on from, `best` to use.

Each holds the weights and a JSON text that describes the run (config, preprocessing, data), so a
checkpoint can be used without the code or the flags that made it. `latest` also holds what only
training needs.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from siamjax import cluster
from siamjax.training.parallel import everywhere
from siamjax.training.state import TrainState

LATEST, BEST = "latest", "best"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or does not fit the model."""


class CheckpointStore:
    """The folder `checkpoints` of a run.

    Args:
        workdir: the run's folder.
        read_only: whether nothing will be saved.
    """

    def __init__(self, workdir: str | Path, read_only: bool = False):
        # Orbax fails late and noisily on a relative path.
        self.root = Path(workdir).absolute() / "checkpoints"
        self._read_only = read_only
        logging.getLogger("absl").addFilter(_not_orbax)
        self._managers: dict[str, ocp.CheckpointManager] = {}
        if not read_only and cluster.is_main():
            for leftover in self.root.glob("*/*.orbax-checkpoint-tmp*"):
                shutil.rmtree(leftover)  # a save that a kill cut short

    def _manager(self, kind: str) -> ocp.CheckpointManager:
        if kind not in self._managers:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=1,
                create=not self._read_only,
                multiprocessing_options=_processes(kind, alone=self._read_only),
            )
            self._managers[kind] = ocp.CheckpointManager(
                self.root / kind, options=options, item_names=("weights", "train", "about")
            )
        return self._managers[kind]

    def step(self, kind: str) -> int | None:
        """The step of the newest whole checkpoint of a kind, or None."""
        return self._manager(kind).latest_step() if (self.root / kind).is_dir() else None

    def save(self, kind: str, state: TrainState, about: dict[str, Any]) -> None:
        """Starts saving in the background; a save under way is waited for first.

        Every process of a run calls it; the first one writes.

        Args:
            kind: `LATEST` (everything) or `BEST` (the weights).
            state: one copy, not one per device.
            about: JSON values that describe the run.
        """
        state = everywhere(state)
        items: dict[str, Any] = {
            "weights": ocp.args.StandardSave(_weights(state)),
            "about": ocp.args.JsonSave(about),
        }
        if kind == LATEST:
            items["train"] = ocp.args.StandardSave(_train_only(state))
        self._manager(kind).save(int(state.step), args=ocp.args.Composite(**items))

    def about(self, kind: str) -> dict[str, Any]:
        """The JSON that was saved with the newest checkpoint of a kind."""
        return self._restore(kind, about=ocp.args.JsonRestore())["about"]

    def restore_state(self, template: TrainState) -> TrainState:
        """The latest state, bit for bit; `template` gives shapes and types."""
        restored = self._restore(
            LATEST,
            weights=_restore_args(_weights(template)),
            train=_restore_args(_train_only(template)),
        )
        return TrainState(**restored["weights"], **restored["train"])

    def restore_weights(self, kind: str, template: Any) -> Any:
        """`{"params", "batch_stats"}` of a checkpoint; `template` gives shapes and types."""
        return self._restore(kind, weights=_restore_args(template))["weights"]

    def _restore(self, kind: str, **items: Any) -> Any:
        step = self.step(kind)
        if step is None:
            raise CheckpointError(
                f"no checkpoint in {self.root / kind}: is this the folder of a run"
                " (--workdir), and has the run reached its first checkpoint?"
            )
        try:
            return self._manager(kind).restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax raises many types; the cause is kept
            raise CheckpointError(
                f"the checkpoint {self.root / kind / str(step)} cannot be read ({error}): it is"
                " damaged, or made by another model"
            ) from error

    def forget_after(self, kind: str, step: int) -> None:
        """Deletes checkpoints later than `step`: a resumed run will make them again."""
        newest = self.step(kind)
        if newest is not None and newest > step:
            self._manager(kind).wait_until_finished()
            self._manager(kind).delete(newest)

    def close(self) -> None:
        """Waits for saves under way."""
        for manager in self._managers.values():
            manager.wait_until_finished()
            manager.close()
        self._managers = {}

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _processes(kind: str, alone: bool) -> ocp.options.MultiprocessingOptions:
    """Who waits for whom: several processes save together, two kinds at a time; one reads alone."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    if not alone:
        return ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=kind)
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"{kind}-read-by-{me}"
    )


def _weights(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _train_only(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "opt_state": state.opt_state, "rng": state.rng}


def _restore_args(template: Any) -> ocp.args.StandardRestore:
    # Without a sharding in each leaf, a checkpoint of another number of devices is refused.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return ocp.args.StandardRestore(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), template)
    )


def _not_orbax(record: logging.LogRecord) -> bool:
    """Orbax reports each save in a dozen lines of INFO."""
    return record.levelno > logging.INFO or "orbax" not in record.pathname
