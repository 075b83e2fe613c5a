"""What can be wrong with a config, key by key."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siamjax.config import ConfigDict

CHOICES: dict[str, tuple[str, ...]] = {
    "dtype": ("float32", "bfloat16"),
    "objective.strategy": ("hardest", "semi_hard", "all"),
    "data.fit": ("resize", "crop", "letterbox", "ink"),
    "data.split": ("class", "drawer"),
    "optimizer.plateau_mode": ("max", "min"),
    "train.mode": ("iterations", "epochs"),
    "checkpoint.mode": ("max", "min"),
}
POSITIVE = (
    "batch_size", "pairs.groups_per_batch", "pairs.images_per_class", "optimizer.learning_rate",
    "train.steps", "train.epochs", "train.log_every", "eval.every", "eval.way", "eval.shot",
    "eval.pairs", "checkpoint.every",
)  # fmt: skip
NOT_NEGATIVE = ("data.resident_limit", "data.drawn_alphabets")
SHARES = (
    "data.holdout", "pairs.turned_groups", "augment.probability", "augment.shared",
    "augment.shared_reflected", "augment.stroke", "optimizer.average",
)  # fmt: skip


def lookup(config: ConfigDict, path: str) -> Any:
    """The value at a dotted path: `lookup(c, "data.source")`."""
    value: Any = config
    for part in path.split("."):
        value = value[part]
    return value


def find_faults(config: ConfigDict, choices: Mapping[str, Collection[str]]) -> list[str]:
    """A line for each fault: the key, what was expected, what came.

    Args:
        config: a whole config.
        choices: further dotted paths and the values they may take.
    """
    faults = []
    for path, allowed in {**CHOICES, **choices}.items():
        value = lookup(config, path)
        if value is not None and value not in allowed:
            faults.append(f"config.{path} must be one of {', '.join(allowed)}; got {value!r}")
    for path in POSITIVE:
        if not lookup(config, path) > 0:
            faults.append(f"config.{path} must be positive; got {lookup(config, path)!r}")
    for path in NOT_NEGATIVE:
        if not lookup(config, path) >= 0:
            faults.append(f"config.{path} must not be negative; got {lookup(config, path)!r}")
    for path in SHARES:
        if not 0 <= lookup(config, path) <= 1:
            faults.append(f"config.{path} must lie in 0..1; got {lookup(config, path)!r}")
    faults += _number_faults(config) + _tuple_faults(config)
    faults += _model_faults(config) + _structure_faults(config)
    return faults


def _leaves(config: ConfigDict, path: str = "") -> list[tuple[str, Any]]:
    leaves = []
    for key, value in config.items():
        inside = isinstance(value, Mapping | type(config))
        leaves += _leaves(value, f"{path}{key}.") if inside else [(path + key, value)]
    return leaves


def _number_faults(config: ConfigDict) -> list[str]:
    faults = []
    for path, value in _leaves(config):
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                faults.append(f"config.{path} must be finite; got {value!r}")
            if isinstance(number, int) and abs(number) >= 2**31:
                faults.append(f"config.{path} must lie within 2**31; got {value!r}")
    return faults


def _tuple_faults(config: ConfigDict) -> list[str]:
    """Of keys that hold tuples of a shape that code unpacks."""
    number = (int, float)
    shapes = {
        "augment.scale": "(low, high), two numbers",
        "data.glyph_alphabets": "(training, validation), two numbers",
        "objective.l2": '(("path regex", factor), ...)',
        "optimizer.groups": '(("path pattern", learning rate or None, momentum or None), ...)',
        "optimizer.frozen": '("path pattern", ...)',
    }
    rows = {
        "objective.l2": (str, number),
        "optimizer.groups": (str, (*number, type(None)), (*number, type(None))),
    }
    faults = []
    for path, shape in shapes.items():
        value = lookup(config, path)
        if path in rows:
            right = all(_row(row, rows[path]) for row in value)
        elif path == "optimizer.frozen":
            right = all(isinstance(pattern, str) for pattern in value)
        else:
            right = _row(value, (number, number))
        if not right:
            faults.append(f"config.{path} must be {shape}; got {value!r}")
            continue
        for pattern in [row[0] if path in rows else row for row in value]:
            if isinstance(pattern, str) and (fault := _pattern_fault(pattern)):
                faults.append(f"config.{path} holds {pattern!r}, which is no pattern: {fault}")
    return faults


def _pattern_fault(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    return ""


def _row(row: Any, kinds: tuple) -> bool:
    long = isinstance(row, tuple | list) and len(row) == len(kinds)
    return long and all(map(isinstance, row, kinds))


def _model_faults(config: ConfigDict) -> list[str]:
    faults, size = [], config.data.size
    if config.model.views not in range(1, 9):
        faults.append(f"config.model.views must be 1 to 8; got {config.model.views!r}")
    elif config.model.views > 1 and len(size) == 2 and size[0] != size[1]:
        faults.append(
            f"config.model.views turns images by quarters, so they must be square; got {size!r}"
        )
    digits = config.model.weights_sha256
    if digits is not None and not re.fullmatch("[0-9a-fA-F]{8,64}", digits):
        faults.append(
            "config.model.weights_sha256 must be the first 8 to 64 hexadecimal digits of the"
            f" SHA-256 of config.model.weights; got {digits!r}"
        )
    elif digits is not None and config.model.weights is None:
        faults.append(
            "config.model.weights_sha256 is that of a file, and config.model.weights names none"
        )
    if config.model.members != 1:
        faults.append(
            "config.model.members must be 1, since a training trains one net; got"
            f" {config.model.members!r}: train a run for each config.seed, then make one of them"
            " with python -m experiments.ensemble --runs=RUN,RUN --workdir=NEW"
        )
    return faults


def _structure_faults(config: ConfigDict) -> list[str]:
    faults = []
    size = config.data.size
    if len(size) != 2 or not all(isinstance(s, int) and s > 0 for s in size):
        faults.append(f"config.data.size must be (height, width) in pixels; got {tuple(size)!r}")
    if config.data.channels not in (1, 3):
        faults.append(f"config.data.channels must be 1 (grey) or 3; got {config.data.channels!r}")
    if config.eval.way < 2:
        faults.append(f"config.eval.way must be at least 2; got {config.eval.way!r}")
    for path in ("seed", "data.glyph_seed", "data.split_seed"):
        seed = lookup(config, path)
        if seed is None and path == "data.split_seed":
            continue
        if not isinstance(seed, int) or not 0 <= seed < 2**31:
            faults.append(f"config.{path} must be an integer in 0..2**31-1; got {seed!r}")
    faults += _augment_faults(config)
    if config.optimizer.average == 1:
        faults.append("config.optimizer.average must be below 1: a mean that never moves; got 1.0")
    if config.data.source == "tfds" and not config.data.tfds_name:
        faults.append("config.data.tfds_name must name the data set, as config.data.source is tfds")
    if config.pairs.augment_singletons:
        if config.augment.name == "none":
            faults.append(
                "config.pairs.augment_singletons pairs an image with itself, which teaches nothing"
                " unless the two are warped: set config.augment.name"
            )
        if config.pairs.scheme not in ("balanced", "within-group", "triples"):
            faults.append(
                "config.pairs.augment_singletons needs config.pairs.scheme balanced, within-group"
                f" or triples; got {config.pairs.scheme!r}"
            )
    if config.pairs.scheme == "in-batch":
        if config.pairs.images_per_class < 2:
            faults.append("config.pairs.images_per_class must be at least 2 for scheme in-batch")
        block = config.pairs.groups_per_batch * config.pairs.images_per_class
        if 2 * config.batch_size % block:
            faults.append(
                "config.pairs.scheme in-batch needs 2 * batch_size"
                f" ({2 * config.batch_size} images) to be a multiple of groups_per_batch *"
                f" images_per_class ({block})"
            )
    if not config.eval.trials and config.checkpoint.metric.startswith("one_shot"):
        faults.append(
            f"config.checkpoint.metric {config.checkpoint.metric} needs one-shot trials, and"
            " config.eval.trials is 0: set it to pair_accuracy, auc or loss"
        )
    steps = config.train.steps_per_dispatch
    if steps != "auto" and not (str(steps).isdigit() and int(steps) > 0):
        faults.append(
            f"config.train.steps_per_dispatch must be auto or a positive integer; got {steps!r}"
        )
    return faults


def _augment_faults(config: ConfigDict) -> list[str]:
    faults = []
    scale = config.augment.scale
    if _row(scale, ((int, float),) * 2) and not 0 < scale[0] <= scale[1]:
        faults.append(
            f"config.augment.scale must be (low, high), 0 < low <= high; got {tuple(scale)!r}"
        )
    if not 0 <= config.augment.shear < 1:
        faults.append(
            f"config.augment.shear must lie in 0..1, 1 left out; got {config.augment.shear!r}"
        )
    if not 0 <= config.augment.shared_shear < 1:
        faults.append(
            "config.augment.shared_shear must lie in 0..1, 1 left out; got"
            f" {config.augment.shared_shear!r}"
        )
    faults += [
        f"config.augment.{key} warps images, and config.augment.name none does not: choose"
        " affine or affine_elastic"
        for key in ("shared", "stroke")
        if config.augment[key] and config.augment.name == "none"
    ]
    if config.augment.stroke and config.data.channels != 1:
        faults.append(
            "config.augment.stroke is for grey images, where ink is dark or bright: set it to 0, or"
            f" config.data.channels to 1; got {config.data.channels!r}"
        )
    if not config.augment.shared_stretch >= 1:
        faults.append(
            "config.augment.shared_stretch must be at least 1, which is none; got"
            f" {config.augment.shared_stretch!r}"
        )
    return faults
