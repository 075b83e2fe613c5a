"""From a config to objects: the one file that knows all names."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection
from functools import partial
from importlib.metadata import version
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from siamjax import backend
from siamjax import config as configuration
from siamjax.augment import AUGMENTATIONS
from siamjax.augment import from_config as augmentation
from siamjax.config import ConfigDict
from siamjax.data import SOURCES, preprocess_of
from siamjax.data.episodes import random_class, within_alphabet
from siamjax.data.pair_schemes import PAIR_TABLES, epoch_order
from siamjax.data.pairs import class_table
from siamjax.evaluation.encoder import Encoder
from siamjax.evaluation.validation import Validation
from siamjax.losses import LOSSES, PAIR_LOSSES, SET_LOSSES
from siamjax.models import HEADS, TOWERS, Siamese
from siamjax.models.pretrained import KINDS
from siamjax.training.diagnosis import first_bad_module
from siamjax.training.doctor import Doctor
from siamjax.training.examination import examiner
from siamjax.training.features import resident_bytes, split_model
from siamjax.training.feed import Feed
from siamjax.training.loop import Plan, Run, steps_per_dispatch
from siamjax.training.objective import Objective
from siamjax.training.optimizer import OPTIMIZERS, SCHEDULES, Patience, Plateau, create_optimizer
from siamjax.training.parallel import Devices, choose_devices
from siamjax.training.paths import check_patterns, split
from siamjax.training.schemes import SCHEMES, PairRows, drawn_table, from_table
from siamjax.training.state import create_state
from siamjax.training.step import make_train_step
from siamjax.training.stream import Stream, streamed
from siamjax.types import DataSplits, PairTable

RUN_KINDS = "run", "run-tower"  # of model.weights: all that a run has learned, or its tower
# Whose versions decide the numbers of a run, or whether its files can be read.
PACKAGES = "siamjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"


def validate(config: ConfigDict) -> None:
    """Checks a config against everything that has a name.

    Raises:
        ValueError: all faults at once.
    """
    configuration.validate(
        config,
        {
            "data.source": tuple(SOURCES),
            "data.fallback": (*SOURCES, "none", "None", ""),
            "pairs.scheme": (*SCHEMES, *PAIR_TABLES, "explicit"),
            "eval.pair_scheme": tuple(PAIR_TABLES),
            "augment.name": tuple(AUGMENTATIONS),
            "model.tower": tuple(TOWERS),
            "model.head": tuple(HEADS),
            "model.weights_kind": (*KINDS, *RUN_KINDS),
            "objective.loss": tuple(LOSSES),
            "optimizer.name": OPTIMIZERS,
            "optimizer.schedule": SCHEDULES,
        },
    )
    if config.objective.loss in SET_LOSSES and config.pairs.scheme != "in-batch":
        raise ValueError(
            f"config.objective.loss {config.objective.loss} compares every image of a batch with"
            f" the others: set config.pairs.scheme to in-batch, or use {', '.join(PAIR_LOSSES)}"
        )
    if config.data.source == "pair_table" and config.pairs.scheme != "explicit":
        raise ValueError(
            "config.data.source pair_table states pairs, not classes: set config.pairs.scheme to"
            f" explicit; got {config.pairs.scheme}"
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
        half = config.objective.margin / 2  # of the distance, or of its square
        squared = config.objective.loss == "contrastive_squared"
        head_options.setdefault("midpoint", half**0.5 if squared else half)
    shared = {"initial": m.init, "dtype": jnp.dtype(config.dtype), "axis": axis, "remat": m.remat}
    if m.remat and "remat" not in _options(TOWERS[m.tower]):
        able = ", ".join(name for name, tower in TOWERS.items() if "remat" in _options(tower))
        raise ValueError(
            f"config.model.remat is for the towers {able}; got {m.tower}: set it False"
        )
    return Siamese(
        tower=_build("tower", m.tower, TOWERS[m.tower], m.tower_options.to_dict(), shared),
        head=_build("head", m.head, HEADS[m.head], head_options, shared),
        views=m.views,
    )


def without_foreign_options(config: ConfigDict, said: Collection[str]) -> list[str]:
    """Takes a recipe's options of a tower or head away where a command line chose another one.

    Args:
        config: of a recipe file and a command line's overrides; changed in place.
        said: the keys that were overridden, as "model.head"; an option named there stays, right
            or wrong.

    Returns:
        A sentence where options went: for the tower, for the head.
    """
    notes = []
    for kind, modules in (("tower", TOWERS), ("head", HEADS)):
        name, options = config.model[kind], config.model[f"{kind}_options"]
        if f"model.{kind}" not in said or name not in modules:
            continue
        known = _options(modules[name])
        gone = [k for k in options if k not in known and f"model.{kind}_options.{k}" not in said]
        with config.unlocked():
            for key in gone:
                del options[key]
        if gone:
            notes.append(
                f"config.model.{kind}={name}: left out the recipe's {kind}_options"
                f" {', '.join(gone)}, which this {kind} does not have"
            )
    return notes


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
            f"config.model.{kind}_options.{unknown[0]}: the {kind} {name} has no such option; it"
            f" has {', '.join(own) or 'none'}"
        )
    return module(**options, **{key: value for key, value in shared.items() if key in known})


def build_scheme(config: ConfigDict) -> Callable:
    """The pair scheme, `(key, table) -> draw` of the whole batch."""
    p = config.pairs
    if p.scheme in PAIR_TABLES or p.scheme == "explicit":
        return partial(from_table, pairs=config.batch_size)
    scheme = partial(SCHEMES[p.scheme], pairs=config.batch_size)
    if p.scheme == "in-batch":
        return partial(
            scheme,
            groups=p.groups_per_batch,
            images_per_class=p.images_per_class,
            turned=p.turned_groups,
        )
    return scheme


def without_chance(config: ConfigDict, steps: int) -> ConfigDict:
    """A copy of a config for so many steps without warps and dropout, at one learning rate."""
    still = config.copy_and_resolve_references()
    with still.unlocked():
        still.pairs.turned_groups, still.pairs.augment_singletons = 0.0, False
        still.augment.update(name="none", shared=0.0, stroke=0.0)
        still.train.update(mode="iterations", steps=steps, doctor=True)
        still.optimizer.update(schedule="constant", warmup_steps=0)
        for kind, module in (
            ("tower", TOWERS[still.model.tower]),
            ("head", HEADS[still.model.head]),
        ):
            if "dropout" in _options(module):
                still.model[f"{kind}_options"].dropout = 0.0
    return still


def build_augmentation(config: ConfigDict) -> Callable:
    """The warp, `(keys, images, turns, shared_keys) -> images`; what it uncovers is paper."""
    return augmentation(config.augment, fill=0.0 if config.data.invert else 1.0)


def build_objective(config: ConfigDict) -> Objective:
    """The loss with its own settings, and the penalties."""
    o = config.objective
    loss = LOSSES[o.loss]
    known = inspect.signature(inspect.unwrap(loss)).parameters
    settings = {"margin": o.margin, "strategy": o.strategy}
    loss = partial(loss, **{key: value for key, value in settings.items() if key in known})
    return Objective(o.loss, loss, o.loss in SET_LOSSES, tuple(o.l2))


def assemble(config: ConfigDict, splits: DataSplits, one_batch: bool = False) -> Run:
    """Everything a fresh training run needs.

    Args:
        config: of the recipe.
        splits: of its source.
        one_batch: draw the first step's images and pairs at every step.

    Raises:
        ValueError: if the config does not fit the data or the devices.
    """
    devices = choose_devices(config.train.devices)
    _check_sharing(config, devices)
    feed = build_feed(config, splits)
    epochs = config.train.mode == "epochs"
    total = feed.epoch * config.train.epochs if epochs else config.train.steps
    whole = build_model(config)
    objective = build_objective(config)
    optimizer = create_optimizer(config.optimizer, total, feed.epoch)
    scheme = build_scheme(config)
    if one_batch:
        scheme = partial(_first_batch, scheme)
    augment = build_augmentation(config)
    frozen = tuple(config.optimizer.frozen)
    state = create_state(whole, optimizer, feed.images.shape[1:], config.seed, frozen)
    objective.check(state.params)
    check_patterns("config.optimizer.frozen", frozen, state.params)
    front, model = frozen_front(config, state.params)
    if resident_bytes(front, state, feed.images) > config.data.resident_limit * 2**20:
        feed = streamed(feed, scheme, state.rng)
    examine = examiner(model, scheme, augment, objective, frozen, devices.count)
    every = feed.epoch if epochs else config.eval.every
    periods = config.train.log_every, every, config.checkpoint.every
    dispatch = steps_per_dispatch(
        # A streamed batch is one step's.
        1 if isinstance(feed, Stream) else config.train.steps_per_dispatch,
        backend.scans_well(split(state.params, frozen)[0] if front else state.params),
        *periods,
    )
    return Run(
        title=f"{config.model.tower} on {splits.name}",
        plan=Plan(total, *periods, feed.epoch, dispatch, shuffles=feed.order is not None),
        step=make_train_step(
            frozen_front(config, state.params, devices.axis)[1],
            scheme,
            augment,
            objective,
            optimizer,
            devices.axis,
            frozen,
        ),
        devices=devices,
        feed=feed,
        state=state,
        encoder=Encoder(model, None),
        validation=build_validation(config, splits, objective),
        explain=partial(first_bad_module, model, scheme, augment, objective),
        about=describe(config, splits),
        pairs_per_step=config.batch_size,
        metric=config.checkpoint.metric,
        larger_is_better=config.checkpoint.mode == "max",
        patience=Patience(config.train.patience, config.checkpoint.mode),
        plateau=Plateau(
            config.optimizer.plateau_patience,
            mode=config.optimizer.plateau_mode,
            factor=config.optimizer.plateau_factor,
            minimum=config.optimizer.plateau_minimum,
        ),
        plateau_metric=config.optimizer.plateau_metric,
        front=front,
        doctor=build_doctor(config, examine),
    )


def _first_batch(scheme: Callable, key: Any, step: Any, table: Any) -> Any:
    return scheme(jax.random.key(0), 0, table)


def build_doctor(config: ConfigDict, examine: Callable) -> Doctor | None:
    """The doctor of `config.train.doctor`, who knows what the config can do about a finding."""
    if not config.train.doctor:
        return None
    remedy = (
        "use --config.model.init=he"
        if config.model.init in ("paper", "seed")
        else "look at pairs.png whether they differ to the eye, or use another config.model.tower"
    )
    return Doctor(examine, config.optimizer.learning_rate, remedy)


def frozen_front(
    config: ConfigDict, params: Any, axis: str | None = None
) -> tuple[Siamese | None, Siamese]:
    """The frozen part of the model and the rest, where the former may run once an image.

    That is so if nothing in it trains and nothing random comes before it; else None and the whole
    model.
    """
    model = build_model(config, axis)
    parts = split_model(model) if config.model.cache_features else None
    turned = config.pairs.scheme == "in-batch" and config.pairs.turned_groups > 0
    if parts is None or config.augment.name != "none" or turned or config.model.views > 1:
        return None, model
    trained = split(params, tuple(config.optimizer.frozen))[0]
    return (None, model) if "backbone" in trained["tower"] else parts


def build_feed(config: ConfigDict, splits: DataSplits) -> Feed:
    """The training images with what the pair scheme draws from."""
    images, b = splits.train.images, config.batch_size
    table = pair_table(config, splits, "train")
    if table is None:
        classes = class_table(splits.train, singletons=config.pairs.augment_singletons)
        if config.pairs.scheme in ("within-group", "in-batch") and not len(classes.contested):
            raise ValueError(
                f"config.pairs.scheme {config.pairs.scheme} takes the two classes of a pair that"
                " differs from one group, and no group of the training images has two: use balanced"
            )
        return Feed(images, classes, epoch=max(1, len(images) // b))
    order = partial(epoch_order, len(table.left), b, config.seed)
    rows = PairRows(*table, order=order(0))
    return Feed(images, rows, epoch=len(rows.order) // b, order=order)


def pair_table(config: ConfigDict, splits: DataSplits, split: str) -> PairTable | None:
    """The fixed pairs of a split: the source's own, or the scheme's; None where pairs are drawn."""
    scheme = config.pairs.scheme
    if split != "train" and config.eval.pair_scheme is not None:
        scheme = config.eval.pair_scheme
    if scheme == "explicit":
        if split not in splits.pairs:
            raise ValueError(
                f"config.pairs.scheme explicit needs a source that states pairs (pair_table);"
                f" {splits.name} has classes: use balanced"
            )
        return splits.pairs[split]
    if scheme not in PAIR_TABLES:
        return None
    images = splits.train if split == "train" else splits.validation
    seed = config.seed if split == "train" else config.seed + 1
    options = {"allow_self": config.pairs.allow_self, "use_all": config.pairs.use_all}
    known = inspect.signature(PAIR_TABLES[scheme]).parameters
    return PAIR_TABLES[scheme](
        images.labels, seed, **{key: value for key, value in options.items() if key in known}
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


def build_validation(config: ConfigDict, splits: DataSplits, objective: Objective) -> Validation:
    """One-shot trials and pairs of the validation images, fixed by the seed."""
    e, images = config.eval, splits.validation
    episodes = None
    if e.trials:
        make_episodes = within_alphabet if len(images.group_names) > 1 else random_class
        episodes = make_episodes(images, way=e.way, shot=e.shot, trials=e.trials, seed=config.seed)
    pairs = pair_table(config, splits, "validation")
    if pairs is None:
        pairs = drawn_table(class_table(images), e.pairs, config.seed)
    loss = None if objective.over_sets else objective.loss
    return Validation(images, episodes, pairs, loss, f"validation pairs of {splits.name}")


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
        "versions": {name: version(name) for name in PACKAGES},
    }
