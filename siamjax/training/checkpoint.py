"""Checkpoints through Orbax: `latest` to go on from, `best` to use.

Each holds the weights and a JSON text that describes the run (config, preprocessing, data), so a
checkpoint can be used without the code or the flags that made it. `latest` also holds what only
training needs.

A checkpoint is written in the background under another name, gets a digest of its files, and only
then its own name: what has a number for a name is whole. Before it is read, the digest is checked;
where that fails, the one before it is taken, and `notes` says so.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from siamjax import backend, cluster
from siamjax.training import digest
from siamjax.training.average import averaged
from siamjax.training.checkpointer import checkpointer, not_orbax
from siamjax.training.state import TrainState

LATEST, BEST = "latest", "best"
# Orbax refuses a typed key that is one of several processes' own: these save its bare words.
KEY, WORDS = 1, 2
FORMAT = WORDS  # raised when a checkpoint needs translating; those without a number have no digest
KEPT = 2  # of `latest`: one to go on from, and one where that is damaged
UNFINISHED, DELETED, DAMAGED = ".unfinished", ".deleted", ".damaged"
LEFTOVERS = (f"*/*{UNFINISHED}*", f"*/*{DELETED}", "*/*.orbax-checkpoint-tmp*")
MAX_ABOUT = 1 << 26  # bytes of the JSON of a checkpoint; a real one has some ten thousand


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or does not fit the model."""


class CheckpointStore:
    """The folder `checkpoints` of a run.

    Args:
        workdir: the run's folder.
        read_only: whether nothing will be saved.

    Attributes:
        notes: sentences on what was found damaged or can't be checked, for the user.
    """

    def __init__(self, workdir: str | Path, read_only: bool = False):
        # Orbax fails late and noisily on a relative path.
        self.root = Path(workdir).absolute() / "checkpoints"
        self.notes: list[str] = []
        self._good: dict[str, int] = {}
        self._newest: dict[str, int | None] = {}
        self._saves: dict[str, Future[None]] = {}
        self._unsaved_best: str | None = None
        # One thread: `best` of a step is whole before `latest` of that step, which counts on it.
        self._background = ThreadPoolExecutor(1, "checkpoint")
        logging.getLogger("absl").addFilter(not_orbax)
        if not read_only and cluster.is_main():
            for leftover in (path for form in LEFTOVERS for path in self.root.glob(form)):
                shutil.rmtree(leftover)  # a save that a kill cut short

    def steps(self, kind: str) -> list[int]:
        """The steps of a kind on disk, whole or damaged, newest first."""
        folder = self.root / kind
        names = (p.name for p in folder.iterdir()) if folder.is_dir() else ()
        return sorted((int(name) for name in names if name.isdigit()), reverse=True)

    def newest(self, kind: str) -> int | None:
        """The step that was saved last, on disk or under way; None without any."""
        if kind not in self._newest:
            self._newest[kind] = max(self.steps(kind), default=None)
        return self._newest[kind]

    def step(self, kind: str) -> int | None:
        """The step of the newest whole checkpoint of a kind, or None without any.

        Raises:
            CheckpointError: if there are some and none is whole.
        """
        if kind in self._good:
            return self._good[kind]
        faults = []
        for step in self.steps(kind):
            found = self._fault(kind, step)
            if found is not None and step not in self.steps(kind):
                return self.step(kind)  # a run that goes on here has put it away meanwhile
            if found is None:
                if faults:
                    self.notes.append(f"{'; '.join(faults)}: going back to step {step}")
                self._good[kind] = step
                return step
            faults.append(f"the {kind} checkpoint of step {step} is damaged: {found}")
        if not faults:
            return None
        other = BEST if kind == LATEST else LATEST
        usable = (
            f'the {other} one may be whole: siamjax.load(run, checkpoint="{other}") uses it, and'
            f" experiments.predict --checkpoint={other}"
        )
        raise CheckpointError(
            f"{self.root / kind}: {'; '.join(faults)}. Put back a copy, or give another"
            f" --workdir to train anew; {usable}"
        )

    def _fault(self, kind: str, step: int) -> str | None:
        """What is wrong with a checkpoint, or None."""
        folder = self.root / kind / str(step)
        about = folder / "about" / "metadata"
        try:
            found = digest.fault(folder)
        except digest.NewerFormatError as error:
            raise CheckpointError(str(error)) from error
        except FileNotFoundError as error:
            return f"{Path(error.filename or folder).name} is missing"
        if found is not None and digest.sealed(folder):
            return found
        try:
            if about.stat().st_size > MAX_ABOUT:
                return "about/metadata is too large to be the description of a run"
            form = json.loads(about.read_bytes()).get("format", 0)
        except (OSError, ValueError, AttributeError, RecursionError):
            return "about/metadata cannot be read"
        if not isinstance(form, int) or form > FORMAT:
            raise CheckpointError(
                f"the checkpoint {folder} has format {form!r}, written by a newer siamjax; this one"
                f" reads up to {FORMAT}: upgrade siamjax"
            )
        if found is None or form:
            return found
        self.notes.append(
            f"the {kind} checkpoint of step {step} was saved without a digest, by an older siamjax:"
            " whether its bytes are still those that were saved can't be told"
        )
        return None

    def save(self, kind: str, state: TrainState, about: dict[str, Any]) -> None:
        """Starts saving in the background; a save of that kind under way is waited for first.

        Every process of a run calls it; the first one writes.

        Args:
            kind: `LATEST` (everything) or `BEST` (the weights).
            state: one copy, not one per device.
            about: JSON values that describe the run.

        Raises:
            CheckpointError: if the save before could not be finished (a full disk).
        """
        if not cluster.is_main():
            self._newest[kind] = int(state.step)
            return
        self._wait(kind)
        if kind == BEST:  # the optimiser's memory, twice the weights, need not be copied
            state = replace(averaged(state), opt_state=())
        state, form = _copied(state), KEY
        if not cluster.alone():
            state = replace(state, rng=np.asarray(jax.random.key_data(state.rng)))
            form = WORDS
        items: dict[str, Any] = {
            "weights": ocp.args.StandardSave(_weights(state)),
            "about": ocp.args.JsonSave(about | {"format": form}),
        }
        if kind == LATEST:
            items["train"] = ocp.args.StandardSave(_train_only(state))
        self._newest[kind] = int(state.step)
        self._good.pop(kind, None)
        self._saves[kind] = self._background.submit(self._write, kind, int(state.step), items)

    def _write(self, kind: str, step: int, items: dict[str, Any]) -> None:
        final = self.root / kind / str(step)
        unfinished = final.with_name(final.name + UNFINISHED)
        if kind == LATEST and self._unsaved_best is not None:
            raise CheckpointError(
                f"the {LATEST} checkpoint of step {step} was not saved, since it counts on the"
                f" {BEST} one: {self._unsaved_best}"
            )
        try:
            with checkpointer(items) as orbax:
                orbax.save(unfinished, args=ocp.args.Composite(**items))
            digest.seal(unfinished)
            if final.exists():
                _delete(final)
            os.rename(unfinished, final)
            self._prune()
        except Exception as error:  # Orbax raises many types; the cause is kept
            for path in final.parent.glob(unfinished.name + "*"):
                shutil.rmtree(path, ignore_errors=True)  # gives a full disk its room back
            text = (
                f"the {kind} checkpoint of step {step} could not be saved in {final.parent}"
                f" ({_short(error)}); those before it are whole. Make room, or see that the folder"
                " can be written, and run the same command again: it goes on from the last of them"
            )
            self._unsaved_best = text if kind == BEST else self._unsaved_best
            raise CheckpointError(text) from error

    def _prune(self) -> None:
        """Deletes what nothing can go back to: of `best`, those that a later best replaced.

        A run that goes back to the older `latest` needs the best of that time.
        """
        latest = self.steps(LATEST)
        for step in latest[KEPT:]:
            _delete(self.root / LATEST / str(step))
        if not latest:
            return
        oldest = latest[:KEPT][-1]
        for step in [step for step in self.steps(BEST) if step <= oldest][1:]:
            _delete(self.root / BEST / str(step))

    def about(self, kind: str) -> dict[str, Any]:
        """The JSON that was saved with the newest whole checkpoint of a kind."""
        return {key: value for key, value in self._about(kind).items() if key != "format"}

    def _about(self, kind: str) -> dict[str, Any]:
        return self._restore(kind, about=ocp.args.JsonRestore())["about"]

    def restore_state(self, template: TrainState) -> TrainState:
        """The latest state, bit for bit; `template` gives shapes and types."""
        train, words = _train_only(template), self._about(LATEST).get("format") == WORDS
        if words:
            train["rng"] = jax.eval_shape(jax.random.key_data, template.rng)
        restored = self._restore(
            LATEST, weights=_restore_args(_weights(template)), train=_restore_args(train)
        )
        if words:
            kind, data = jax.random.key_impl(template.rng), restored["train"]["rng"]
            restored["train"]["rng"] = jax.random.wrap_key_data(data, impl=kind)
        return TrainState(**{**restored["weights"], **restored["train"]})

    def restore_weights(self, kind: str, template: Any) -> Any:
        """`{"params", "batch_stats"}` of a checkpoint; `template` gives shapes and types."""
        return self._restore(kind, weights=_restore_args(template))["weights"]

    def _restore(self, kind: str, **items: Any) -> Any:
        self._wait(kind)
        step = self.step(kind)
        if step is None:
            raise CheckpointError(
                f"no checkpoint in {self.root / kind}: is this the folder of a run"
                " (--workdir), and has the run reached its first checkpoint?"
            )
        folder = self.root / kind / str(step)
        try:
            with checkpointer() as orbax:
                return orbax.restore(folder, args=ocp.args.Composite(**items))
        except Exception as error:
            raise CheckpointError(
                f"the checkpoint {folder} cannot be read ({_short(error)}): it is damaged, or made"
                " by another model"
            ) from error

    def forget_after(self, kind: str, step: int) -> None:
        """Puts away checkpoints later than `step`: a resumed run will make them again.

        Those that are whole are deleted; a damaged one is kept under the name `STEP.damaged`.
        """
        if not cluster.is_main():
            return
        self._wait(kind)
        for later in [s for s in self.steps(kind) if s > step]:
            folder = self.root / kind / str(later)
            if digest.sealed(folder) and digest.fault(folder) is None:
                _delete(folder)
                continue
            aside = folder.with_name(folder.name + DAMAGED)
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(folder, aside)
        self._newest.pop(kind, None)
        self._good.pop(kind, None)

    def _wait(self, *kinds: str) -> None:
        for kind in kinds:
            if kind in self._saves:
                self._saves.pop(kind).result()

    def close(self) -> None:
        """Waits for saves under way.

        Raises:
            CheckpointError: if one could not be finished.
        """
        self._background.shutdown(wait=True)
        self._wait(*self._saves)

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except CheckpointError as unsaved:
            if error is None:
                raise
            error.add_note(str(unsaved))  # what came first is what the user has to know


@contextmanager
def described(what: str) -> Iterator[None]:
    """Turns what a strange description breaks into a sentence.

    Args:
        what: the checkpoint, for the sentence.

    Raises:
        CheckpointError: for a description that lacks something or has another shape.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        missing = f"it has no {error}" if isinstance(error, KeyError) else _short(error)
        raise CheckpointError(
            f"{what} does not describe a run as siamjax saves it ({missing}): it was made or"
            " changed by another program, or by another version"
        ) from error


def _delete(folder: Path) -> None:
    # Renamed first: a kill in the middle leaves no half of a checkpoint under a step's name.
    doomed = folder.with_name(folder.name + DELETED)
    os.rename(folder, doomed)
    shutil.rmtree(doomed)


def _short(error: BaseException) -> str:
    """The first line of an error's text, without what TensorStore adds to it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(" [source locations")[0][:300]


def _copied(state: TrainState) -> TrainState:
    """Copies of all arrays: the next step is free to overwrite the state's own.

    Where this process is alone on a CPU they are JAX arrays: of NumPy's, Orbax makes copies again.
    """
    key = jax.random.wrap_key_data(
        jnp.array(np.array(jax.random.key_data(state.rng))), impl=jax.random.key_impl(state.rng)
    )
    copy = jnp.array if backend.on_cpu() and cluster.alone() else np.array
    return replace(jax.tree.map(copy, replace(state, rng=np.zeros(0))), rng=key)


def _weights(state: TrainState) -> dict[str, Any]:
    """What is used: the mean of the weights where there is one, as validation saw it."""
    return {"params": averaged(state).params, "batch_stats": state.batch_stats}


def _train_only(state: TrainState) -> dict[str, Any]:
    own = {} if averaged(state) is state else {"params": state.params}
    return {"step": state.step, "opt_state": state.opt_state, "rng": state.rng, **own}


def _restore_args(template: Any) -> ocp.args.StandardRestore:
    # Without a sharding in each leaf, a checkpoint of another number of devices is refused.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return ocp.args.StandardRestore(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), template)
    )
