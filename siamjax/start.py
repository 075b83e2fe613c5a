"""Where a fresh run starts from: published weights in a file, or what another run has learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from siamjax.config import ConfigDict
from siamjax.data import preprocess_of
from siamjax.inference import Comparator, load
from siamjax.models import Ensemble
from siamjax.models.pretrained import import_weights, mismatch
from siamjax.preprocess import Preprocess
from siamjax.recipe import RUN_KINDS, build_model
from siamjax.training.average import restarted
from siamjax.training.digest import sha256
from siamjax.training.loop import Run
from siamjax.training.paths import named_leaves
from siamjax.training.state import TrainState

# Of a tower or head: how it starts and how it is computed, not what it computes.
NOT_FUNCTION = ("initial", "dtype", "axis", "remat", "dropout", "parent", "name")
# Weights mean something else under another value of these, though their shapes may be the same.
DECISIVE = ("model.tower", "model.head", "model.head_options.nonnegative")


def begin(config: ConfigDict, run: Run) -> None:
    """Gives a fresh run the weights of `config.model.weights`, where it names any.

    Raises:
        ValueError: as `with_weights`.
    """
    if config.model.weights is not None:
        run.state, run.about["start"] = with_weights(config, run.state)


def with_weights(config: ConfigDict, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """A fresh state with the weights of `config.model.weights`: a file, or the folder of a run.

    Of a run these are the weights that `siamjax.load` would use, with their batch statistics.
    Nothing else is taken over: steps, optimiser and random numbers start anew.

    Args:
        config: of the new run; `model.weights_kind` "run" takes all of the other run's weights,
            "run-tower" those of its tower, and the head keeps its own start.
        state: fresh, with the parameters of the config's model.

    Returns:
        The state, and JSON values that say where it comes from: "from", a sentence; "fingerprint",
        of a file its SHA-256, of a run that of weights and preprocessing; of a run also "notes",
        how its settings differ.

    Raises:
        CheckpointError: if the run has no checkpoint, or none that is whole.
        ValueError: if the weights cannot be read, are not those of `model.weights_sha256`, or do
            not fit the model: every difference is listed.
    """
    path, kind = Path(config.model.weights), config.model.weights_kind
    if path.is_dir() and config.model.weights_sha256 is not None:
        raise ValueError(
            f"{path.absolute()} is a folder, and config.model.weights_sha256 is that of a file:"
            " leave it out; the checkpoints of a run have digests of their own"
        )
    if path.is_dir() and kind in ("auto", *RUN_KINDS):
        return _from_run(config, state, path)
    if kind in RUN_KINDS:
        raise ValueError(
            f"config.model.weights_kind {kind} takes the folder of a run (its --workdir) as"
            f" config.model.weights; {path.absolute()} is no folder"
        )
    if path.is_dir() or (kind == "auto" and not path.exists() and not path.suffix):
        what = "is a folder" if path.is_dir() else "is not there"
        raise ValueError(
            f"{path.absolute()} {what}: config.model.weights is the folder of a run"
            f" (config.model.weights_kind auto or {' or '.join(RUN_KINDS)}), or a file of published"
            f" weights; config.model.weights_kind is {kind}"
        )
    digest = _checked(path, config.model.weights_sha256) if path.is_file() else ""
    origin = {"from": f"the file {path}, SHA-256 {digest}", "fingerprint": digest}
    return _from_file(config, state), origin


def _checked(path: Path, expected: str | None) -> str:
    """The SHA-256 of a file of weights, where it begins as expected."""
    digest = sha256(path)
    if expected is not None and not digest.startswith(expected.lower()):
        raise ValueError(
            f"{path.absolute()} is not the file that config.model.weights_sha256 names: its SHA-256"
            f" is {digest}, expected {expected.lower()}...: get it again, or mend the digits"
        )
    return digest


def _from_file(config: ConfigDict, state: TrainState) -> TrainState:
    params, batch_stats = import_weights(
        state.params,
        state.batch_stats,
        config.model.weights,
        kind=config.model.weights_kind,
        sum_colours=config.model.sum_colours,
    )
    head_from_file = any(
        new is not old
        for new, old in zip(
            *(jax.tree.leaves(p.get("head", {})) for p in (params, state.params)), strict=True
        )
    )
    if head_from_file and getattr(build_model(config).head, "nonnegative", False):
        raise ValueError(
            f"{config.model.weights} holds a head whose weights may have any sign: set"
            " config.model.head_options.nonnegative to False"
        )
    return restarted(replace(state, params=params, batch_stats=batch_stats))


def _from_run(
    config: ConfigDict, state: TrainState, folder: Path
) -> tuple[TrainState, dict[str, Any]]:
    other, tower_only = load(folder), config.model.weights_kind == "run-tower"
    if isinstance(other.encoder.model, Ensemble):
        raise ValueError(
            f"{folder} is an ensemble of {len(other.encoder.model.members)} nets: start from one of"
            " the runs that its about.json names"
        )
    differs = _differences(other, config, tower_only)
    ours = {"params": state.params, "batch_stats": state.batch_stats}
    wanted, found = (
        {
            path: leaf
            for path, leaf in named_leaves(tree)
            if not (tower_only and _part(path) == "head")
        }
        for tree in (ours, other.encoder.weights)
    )
    if fault := _fault(found, wanted, differs, tower_only):
        raise ValueError(f"{folder} does not fit this model:\n{fault}")

    def replaced(keys: Any, leaf: Any) -> Any:
        # A copy: the step gives its state's memory away.
        new = found.get("/".join(str(key.key) for key in keys))
        return leaf if new is None else jnp.array(new, leaf.dtype)

    both = jax.tree_util.tree_map_with_path(replaced, ours)
    part = "the tower" if tower_only else "tower and head"
    origin = {
        "from": f"{part} of the run {other.origin}",
        "fingerprint": other.fingerprint,
        "notes": list(differs.values()),
    }
    return restarted(replace(state, **both)), origin


def _fault(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    differs: Mapping[str, str],
    tower_only: bool,
) -> str:
    """All in which a run and the model differ, if the one's weights don't do for the other."""
    extra, missing = found.keys() - wanted.keys(), wanted.keys() - found.keys()
    reshaped = {p for p in found.keys() & wanted.keys() if found[p].shape != wanted[p].shape}
    unfit = extra | missing | reshaped
    if not unfit and not any(key in DECISIVE for key in differs):
        return ""

    def lines(paths: set[str], there: Mapping[str, Any]) -> list[str]:
        return [
            f"{_short(path)} {list(leaf.shape)}" for path, leaf in there.items() if path in paths
        ]

    others = [
        f"{_short(path)} {list(leaf.shape)} -> {list(wanted[path].shape)}"
        for path, leaf in found.items()
        if path in reshaped
    ]
    text = [mismatch(lines(extra, found), lines(missing, wanted), others, "run")] if unfit else []
    if differs:
        text += ["settings that differ", *(f"  {line}" for line in differs.values())]
    same_tower = "model.tower" not in differs and all(_part(path) == "head" for path in unfit)
    if same_tower and not tower_only:
        text.append(
            "config.model.weights_kind=run-tower takes the tower alone, and this head starts anew"
        )
    return "\n".join(text)


def _part(path: str) -> str:
    """Of a path below "params" or "batch_stats": "tower" or "head"."""
    return path.split("/")[1]


def _short(path: str) -> str:
    return path.removeprefix("params/")


def _differences(other: Comparator, config: ConfigDict, tower_only: bool) -> dict[str, str]:
    """A line for each setting under which the weights of the run were others' than here."""
    then = _settings(other.encoder.model, other.config, other.preprocess, tower_only)
    now = _settings(build_model(config), config, preprocess_of(config), tower_only)
    # Options of two kinds of tower or head have nothing to do with each other.
    alone = {p for p in ("tower", "head") if then.get(f"model.{p}") != now.get(f"model.{p}")}
    return {
        key: f"config.{key}: {then[key]!r} in the run, {now[key]!r} here"
        for key in then
        if key in now
        and then[key] != now[key]
        and not key.startswith(tuple(f"model.{part}_options." for part in alone))
    }


def _settings(
    model: Any, config: Any, preprocess: Preprocess, tower_only: bool
) -> Mapping[str, Any]:
    """What decides how images become embeddings and comparisons, beside the weights."""
    settings: dict[str, Any] = {"model.tower": config.model.tower}
    settings |= _options("tower", model.tower)
    if not tower_only:
        settings["model.head"] = config.model.head
        settings |= _options("head", model.head)
        settings["model.views"] = model.views
    return settings | {f"data.{key}": value for key, value in preprocess.to_dict().items()}


def _options(kind: str, module: Any) -> dict[str, Any]:
    """The attributes of a tower or head, those left at their default included."""
    values = {
        name: getattr(module, name)
        for name in module.__dataclass_fields__
        if name not in NOT_FUNCTION
    }
    return {
        # A config that was saved has lists where it had tuples.
        f"model.{kind}_options.{name}": tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
    }
