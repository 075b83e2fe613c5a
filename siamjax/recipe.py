"""From a config to objects: the one file that knows all names."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from siamjax import backend
from siamjax import config as configuration
from siamjax.augment import AUGMENTATIONS
from siamjax.augment import from_config as augmentation
from siamjax.data import SOURCES, load, preprocess_of
from siamjax.data.episodes import random_class, within_alphabet
from siamjax.data.pairs import class_table
from siamjax.evaluation import plots
from siamjax.evaluation.encoder import Encoder
from siamjax.evaluation.validation import Validated, Validation
from siamjax.losses import LOSSES, PAIR_LOSSES, SET_LOSSES
from siamjax.models import HEADS, TOWERS, Siamese
from siamjax.training import loop
from siamjax.training.checkpoint import BEST, LATEST, CheckpointStore
from siamjax.training.diagnosis import first_bad_module
from siamjax.training.loop import Plan, Run, steps_per_dispatch
from siamjax.training.objective import Objective
from siamjax.training.optimizer import OPTIMIZERS, create_optimizer
from siamjax.training.parallel import Devices, choose_devices
from siamjax.training.schemes import SCHEMES, balanced
from siamjax.training.state import create_state
from siamjax.training.step import Data, make_train_step
from siamjax.training.writer import MetricsLog, write_train_curves
from siamjax.types import DataSplits, LabelledImages


def validate(config: ConfigDict) -> None:
    """Checks a config against everything that has a name.

    Raises:
        ValueError: all faults at once.
    """
    configuration.validate(
        config,
        {
            "data.source": tuple(SOURCES),
            "data.fallback": tuple(SOURCES),
            "pairs.scheme": tuple(SCHEMES),
            "augment.name": tuple(AUGMENTATIONS),
            "model.tower": tuple(TOWERS),
            "model.head": tuple(HEADS),
            "objective.loss": tuple(LOSSES),
            "optimizer.name": OPTIMIZERS,
        },
    )
    if config.objective.loss in SET_LOSSES and config.pairs.scheme != "in-batch":
        raise ValueError(
            f"config.objective.loss {config.objective.loss} compares every image of a batch with"
            f" the others: set config.pairs.scheme to in-batch, or use {', '.join(PAIR_LOSSES)}"
        )
    build_model(config)


def build_model(config: ConfigDict, axis: str | None = None) -> Siamese:
    """The tower and head of `config.model`.

    Args:
        config: a whole config.
        axis: name of the device axis over which batch norms share their statistics.

    Raises:
        ValueError: for an option that the tower or head does not have.
    """
    m = config.model
    head_options = m.head_options.to_dict()
    if "midpoint" in _options(HEADS[m.head]) and m.head == "euclidean":
        head_options.setdefault("midpoint", config.objective.margin / 2)
    shared = {"initial": m.init, "dtype": jnp.dtype(config.dtype), "axis": axis}
    return Siamese(
        tower=_build("tower", m.tower, TOWERS[m.tower], m.tower_options.to_dict(), shared),
        head=_build("head", m.head, HEADS[m.head], head_options, shared),
    )


def _options(module: type[nn.Module]) -> tuple[str, ...]:
    hidden = ("self", "parent", "name")
    return tuple(p for p in inspect.signature(module).parameters if p not in hidden)


def _build(
    kind: str, name: str, module: type[nn.Module], options: dict[str, Any], shared: dict[str, Any]
) -> nn.Module:
    known = _options(module)
    unknown = [key for key in options if key not in known or key in shared]
    if unknown:
        own = [key for key in known if key not in shared]
        raise ValueError(
            f"config.model.{kind}_options.{unknown[0]}: the {kind} {name} has no such option; it has"
            f" {', '.join(own) or 'none'}"
        )
    return module(**options, **{key: value for key, value in shared.items() if key in known})


def build_scheme(config: ConfigDict) -> Callable:
    """The pair scheme, `(key, table) -> draw` of the whole batch."""
    p = config.pairs
    scheme = partial(SCHEMES[p.scheme], pairs=config.batch_size)
    if p.scheme == "in-batch":
        return partial(
            scheme,
            groups=p.groups_per_batch,
            images_per_class=p.images_per_class,
            turned=p.turned_groups,
        )
    return scheme


def build_objective(config: ConfigDict) -> Objective:
    """The loss with its own settings, and the penalties."""
    o = config.objective
    loss = LOSSES[o.loss]
    if "margin" in inspect.signature(inspect.unwrap(loss)).parameters:
        loss = partial(loss, margin=o.margin)
    return Objective(o.loss, loss, o.loss in SET_LOSSES, tuple(o.l2))


def assemble(config: ConfigDict, splits: DataSplits, workdir: Path, store: CheckpointStore) -> Run:
    """Everything a training run needs, fresh or resumed from the latest checkpoint of `store`.

    Raises:
        ValueError: if the config does not fit the data or the devices, or the checkpoint was made
            with another config or other data.
    """
    devices = choose_devices(config.train.devices)
    _check_sharing(config, devices)
    images = splits.train
    epoch = max(1, len(images) // config.batch_size)
    epochs = config.train.mode == "epochs"
    total = epoch * config.train.epochs if epochs else config.train.steps
    model = build_model(config)
    objective = build_objective(config)
    optimizer = create_optimizer(config.optimizer, total)
    scheme = build_scheme(config)
    augment = augmentation(config.augment, fill=0.0 if config.data.invert else 1.0)
    about = describe(config, splits)
    state = create_state(model, optimizer, images.images.shape[1:], config.seed)
    objective.check(state.params)
    best = None
    if store.step(LATEST) is not None:
        saved = store.about(LATEST)
        check_resumable(saved, about)
        state, best = store.restore_state(state), saved["best"]
        store.forget_after(BEST, int(state.step))
    log, checkpoint = config.train.log_every, config.checkpoint.every
    evaluate = epoch if epochs else config.eval.every
    plan = Plan(
        total=total,
        log=log,
        evaluate=evaluate,
        checkpoint=checkpoint,
        dispatch=steps_per_dispatch(
            config.train.steps_per_dispatch,
            backend.scans_well(state.params),
            (log, evaluate, checkpoint),
        ),
        epoch=epoch,
    )
    return Run(
        workdir=workdir,
        title=splits.name,
        plan=plan,
        step=make_train_step(
            build_model(config, devices.axis), scheme, augment, objective, optimizer, devices.axis
        ),
        devices=devices,
        data=Data(images.images, class_table(images)),
        state=state,
        encoder=Encoder(model, None),
        validation=build_validation(config, splits.validation, objective),
        explain=partial(first_bad_module, model, scheme, augment, objective),
        about=about,
        pairs_per_step=config.batch_size,
        metric=config.checkpoint.metric,
        larger_is_better=config.checkpoint.mode == "max",
        best=best,
    )


def _check_sharing(config: ConfigDict, devices: Devices) -> None:
    if config.batch_size % devices.count:
        raise ValueError(
            f"config.batch_size ({config.batch_size}) must be a multiple of the {devices.count}"
            " devices: change it, or set config.train.devices"
        )
    if config.pairs.scheme == "in-batch" and config.pairs.groups_per_batch % devices.count:
        raise ValueError(
            f"config.pairs.groups_per_batch ({config.pairs.groups_per_batch}) must be a multiple of"
            f" the {devices.count} devices, since a group is compared on one: change it, or set"
            " config.train.devices"
        )


def build_validation(
    config: ConfigDict, images: LabelledImages, objective: Objective
) -> Validation:
    """One-shot trials and pairs of the validation images, fixed by the seed."""
    e = config.eval
    grouped = len(images.group_names) > 1
    make_episodes = within_alphabet if grouped else random_class
    episodes = make_episodes(images, way=e.way, shot=e.shot, trials=e.trials, seed=config.seed)
    draw = balanced(jax.random.key(config.seed), class_table(images), pairs=e.pairs)
    loss = None if objective.over_sets else objective.loss
    return Validation(images, episodes, jax.tree.map(np.asarray, draw), loss)


def describe(config: ConfigDict, splits: DataSplits) -> dict[str, Any]:
    """JSON values from which a checkpoint can be used by itself."""
    return {
        "config": json.loads(configuration.to_json(config)),
        "preprocess": preprocess_of(config).to_dict(),
        "data": {
            "name": splits.name,
            "summary": splits.summary,
            "notes": list(splits.notes),
            "fingerprint": splits.fingerprint,
        },
        "versions": {name: version(name) for name in ("siamjax", "jax", "flax", "optax")},
    }


# What a resumed run may change: how often things happen, and where they are; and how long it
# takes, unless the learning rate's schedule hangs on that.
HOW_LONG = ("train.steps", "train.epochs")
MAY_CHANGE = (
    "train.log_every", "train.steps_per_dispatch", "train.devices",
    "eval.every", "checkpoint.every", "data.dir", "data.cache_dir", "data.fallback",
)  # fmt: skip


def check_resumable(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError where a checkpoint was made with another config or other data."""
    old, new = _flat(saved["config"]["config"]), _flat(now["config"]["config"])
    free = MAY_CHANGE + (HOW_LONG if new["optimizer.schedule"] == "constant" else ())
    differs = [
        f"  config.{key}: {old.get(key)!r} then, {new.get(key)!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in free
    ]
    if saved["data"]["fingerprint"] != now["data"]["fingerprint"]:
        differs.append(f"  the data: {saved['data']['summary']} then, {now['data']['summary']} now")
    if differs:
        raise ValueError(
            "this --workdir holds a run made with other settings:\n" + "\n".join(differs)
            + "\nGive another --workdir, or delete this one to start again."
        )  # fmt: skip


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    inner = (_flat(v, f"{path}.{k}" if path else k) for k, v in tree.items())
    return {k: v for part in inner for k, v in part.items()}


def train(config: ConfigDict, workdir: str | Path, say: Callable[[str], None] = print) -> bool:
    """Runs a recipe in a folder, from the start or from where it was stopped.

    Returns:
        Whether training reached its end (False after Ctrl-C or SIGTERM).
    """
    validate(config)
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    splits = load(config)
    for note in splits.notes:
        say(f"NOTE: {note}")
    say(f"data: {splits.summary}")
    with CheckpointStore(workdir) as store, MetricsLog(workdir) as log:
        run = assemble(config, splits, workdir, store)
        (workdir / "config.json").write_text(configuration.to_json(config) + "\n")
        start = int(run.state.step)
        log.rewind(start)
        say(introduction(config, run, start))
        run.on_validation = partial(write_outputs, run)
        done = loop.train(run, store, log)
        write_outputs(run, log)
    if done:
        say(f"done: {workdir}")
    else:
        say(f"stopped at step {int(run.state.step)}, saved; the same command goes on from there")
    return done


def introduction(config: ConfigDict, run: Run, start: int) -> str:
    """What is about to run, in two lines."""
    size = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    device = run.devices.local[0]
    return (
        f"model: {config.model.tower} tower, {config.model.head} head, {size:,} parameters\n"
        f"{'resuming at' if start else 'starting at'} step {start} of {run.plan.total},"
        f" {run.devices.count} x {device.device_kind}, {run.plan.dispatch} step(s) a dispatch"
    )


def write_outputs(run: Run, log: MetricsLog, validated: Validated | None = None) -> None:
    """train_curves.txt, curves.png and pairs.png of a run so far."""
    rows = log.rows()
    losses = [x for row in rows if row["split"] == "train" for x in row["losses"]]
    accuracies = [row["one_shot_accuracy"] for row in rows if row["split"] == "validation"]
    write_train_curves(run.workdir / "train_curves.txt", losses, accuracies)
    plots.curves(rows, run.workdir / "curves.png", title=run.title)
    if validated is None:
        return
    draw, images = run.validation.draw, run.validation.images.images
    few = np.r_[0:24]
    plots.pair_grid(
        images[draw.left[few]],
        images[draw.right[few]],
        draw.same[few],
        validated.similarity[few],
        run.workdir / "pairs.png",
        title=f"{run.title}, validation, step {rows[-1]['step']}",
    )
