"""Several runs of one recipe made into one, whose score of a pair is the mean of theirs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from siamjax import config as configuration
from siamjax.config import ConfigDict
from siamjax.data import load as load_data
from siamjax.evaluation.encoder import Encoder
from siamjax.evaluation.validation import Validated, Validation
from siamjax.inference import Comparator, load, model_of
from siamjax.recipe import build_objective, build_validation, describe
from siamjax.report import of_validation, write_report
from siamjax.report.run_sections import flat
from siamjax.run import draw_pairs, origin
from siamjax.training.checkpoint import BEST, CheckpointStore, described
from siamjax.training.loop import summary
from siamjax.training.parallel import choose_devices
from siamjax.training.state import TrainState
from siamjax.training.workdir import replacing, writing
from siamjax.training.writer import MetricsLog, replace_file
from siamjax.types import DataSplits

# What members may differ in: the seed, how they were trained, and what belongs to a machine. All
# else decides what their scores mean, or on which images.
FREE_SECTIONS = ("augment", "optimizer", "train", "eval", "checkpoint")
FREE = (
    "seed", "batch_size", "data.dir", "data.cache_dir", "data.resident_limit", "data.fallback",
    "model.cache_features", "model.remat", "model.weights", "model.weights_sha256",
)  # fmt: skip


class EnsembleError(ValueError):
    """Runs that cannot be made into one."""


class Member(NamedTuple):
    """A run that becomes part of an ensemble.

    Attributes:
        run: its folder, as it was given.
        comparator: its best weights.
        config: of the run.
        step: of those weights.
        data: name, summary and fingerprint of what it was trained on.
    """

    run: str
    comparator: Comparator
    config: ConfigDict
    step: int
    data: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Which weights of which run these are, as JSON values."""
        fingerprint = self.comparator.fingerprint
        return {
            "run": self.run, "seed": self.config.seed, "checkpoint": BEST, "step": self.step,
            "fingerprint": fingerprint,
        }  # fmt: skip


def make_ensemble(
    runs: Sequence[str | os.PathLike[str]],
    workdir: str | os.PathLike[str],
    say: Callable[[str], None] = print,
) -> Validated:
    """Makes the folder of a run whose score is the mean of those of several runs.

    Every command after training works on it as on any run. Its decision card is fitted anew, to the
    validation pairs of the first run. The folder appears as a whole, or not at all.

    Args:
        runs: folders of two trained runs or more; their best checkpoints are taken.
        workdir: the folder to make.
        say: told the validation figures of each member, then of the whole.

    Returns:
        The validation of the whole.

    Raises:
        EnsembleError: if the runs do not go together, or the folder is there.
        CheckpointError: if a run has no best checkpoint, or it is damaged.
        ValueError: if their data cannot be had.
        WorkdirError: if the folder cannot be written.
    """
    workdir = Path(workdir)
    _refuse_existing(workdir)
    members = [_member(run) for run in _several(runs)]
    _check_together(members)
    config = _config(members)
    splits = load_data(members[0].config)
    _check_data(members, splits)
    for note in splits.notes:
        say(f"NOTE: {note}")
    say(f"data: {splits.summary}")
    validation = build_validation(config, splits, build_objective(config))
    encoder = Encoder(model_of(config), _weights(members))
    whole = _measure(members, encoder, validation, say)
    say(f"{workdir}, all {len(members)}: {summary(whole)}")
    with writing(workdir.absolute().parent), replacing(workdir, _refuse_existing) as folder:
        _write(folder, members, config, splits, encoder, validation, whole)
    found = of_validation(validation, whole, of="the ensemble", data=splits.name)
    write_report(workdir, None, [found])
    return whole


def _refuse_existing(workdir: Path) -> None:
    if workdir.is_symlink() or (workdir.exists() and not workdir.is_dir()):
        raise EnsembleError(f"{workdir} is there and is not a folder: give another --workdir")
    if workdir.is_dir() and any(workdir.iterdir()):
        raise EnsembleError(
            f"{workdir} is there and is not empty: an ensemble gets a folder of its own; give"
            " another --workdir"
        )


def _several(runs: Sequence[str | os.PathLike[str]]) -> list[str]:
    names = [os.fspath(run) for run in runs]
    if len(names) < 2:
        raise EnsembleError(
            f"an ensemble is made of two runs or more; got {', '.join(names) or 'none'} (--runs)"
        )
    return names


def _member(run: str) -> Member:
    comparator = load(run, BEST)
    with CheckpointStore(run, read_only=True) as store, described(f"the checkpoint in {run}"):
        about, step = store.about(BEST), store.step(BEST)
        data = {key: about["data"][key] for key in ("name", "summary", "fingerprint")}
        config = configuration.from_json(about["config"])
    if config.model.members > 1:
        raise EnsembleError(
            f"{run} is an ensemble itself: give the runs that its about.json names in its place"
        )
    return Member(run, comparator, config, int(step or 0), data)


def _check_together(members: Sequence[Member]) -> None:
    """Raises EnsembleError unless the members are different nets of one kind."""
    first, others = members[0], members[1:]
    mine = _binding(first.config)
    for other in others:
        theirs = _binding(other.config)
        differs = [
            f"  config.{key}: {mine.get(key)!r} in {first.run}, {theirs.get(key)!r} in {other.run}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]
        if first.data["fingerprint"] != other.data["fingerprint"]:
            summaries = (f"{m.data['summary']} in {m.run}" for m in (first, other))
            differs.append(f"  the data: {', '.join(summaries)}")
        if differs:
            raise EnsembleError(
                f"{first.run} and {other.run} cannot be one:\n" + "\n".join(differs) + "\nThe runs"
                " of an ensemble differ in seed, warps, optimiser and length only"
            )
    seen: dict[str, str] = {}
    for member in members:
        weights = member.comparator.fingerprint
        if weights in seen:
            raise EnsembleError(
                f"{seen[weights]} and {member.run} hold the same weights: their mean is each of"
                " them. Train the runs of an ensemble with different --config.seed"
            )
        seen[weights] = member.run


def _binding(config: ConfigDict) -> dict[str, Any]:
    """The keys that members must share."""
    keys = flat(config.to_dict())
    return {
        key: value
        for key, value in keys.items()
        if key not in FREE and key.partition(".")[0] not in FREE_SECTIONS
    }


def _config(members: Sequence[Member]) -> ConfigDict:
    """The first member's, with the number of members."""
    config = members[0].config.copy_and_resolve_references()
    with config.unlocked():
        config.model.members = len(members)
    return config.lock()


def _check_data(members: Sequence[Member], splits: DataSplits) -> None:
    """Raises EnsembleError unless what validates is what no member was trained on."""
    first = members[0]
    if splits.fingerprint != first.data["fingerprint"]:
        raise EnsembleError(
            f"the data are not those of {first.run}: {first.data['summary']} then,"
            f" {splits.summary} now; thresholds fitted to others would mislead"
        )
    for other in members[1:]:
        if other.config.seed == first.config.seed:
            continue
        seeded = first.config.copy_and_resolve_references()
        with seeded.unlocked():
            seeded.seed = other.config.seed
        # Where a source has no split of its own, the seed holds out: one member's validation
        # classes are then another's training classes, and the mean would look too good on them.
        if not _validates_alike(splits, load_data(seeded)):
            raise EnsembleError(
                f"{first.run} and {other.run} hold out other images for validation (config.seed"
                f" {first.config.seed} and {other.config.seed} choose them), so there are none that"
                " neither was trained on. Train all of them with the same --config.data.split_seed,"
                " or on data that state their own split (folders train and validation, say)"
            )


def _validates_alike(splits: DataSplits, others: DataSplits) -> bool:
    a, b = splits.validation, others.validation
    same = a.class_names == b.class_names and np.array_equal(a.labels, b.labels)
    return same and np.array_equal(a.images, b.images)


def _weights(members: Sequence[Member]) -> dict[str, Any]:
    """The members' parameters and statistics by the names that `Ensemble` gives them."""
    each = [member.comparator.encoder.weights for member in members]
    stats = {f"members_{i}": w["batch_stats"] for i, w in enumerate(each) if w["batch_stats"]}
    params = {f"members_{i}": w["params"] for i, w in enumerate(each)}
    return {"params": params, "batch_stats": stats}


def _measure(
    members: Sequence[Member],
    encoder: Encoder,
    validation: Validation,
    say: Callable[[str], None],
) -> Validated:
    """Validates each member, then the whole, which gets its decision card; one embedding each."""
    parts = []
    for member in members:
        single = member.comparator.encoder
        parts.append(single.embed(validation.inputs))
        found = summary(validation.measure(single, parts[-1]))
        say(f"{member.run}, seed {member.config.seed}, step {member.step:,}: {found}")
    return validation.measure(encoder, np.concatenate(parts, -1))


def _write(
    folder: Path,
    members: Sequence[Member],
    config: ConfigDict,
    splits: DataSplits,
    encoder: Encoder,
    validation: Validation,
    validated: Validated,
) -> None:
    """The files of a run: config, origin, metrics, the checkpoint, and a picture of pairs."""
    step = max(member.step for member in members)
    made_of = {"members": [member.to_dict() for member in members]}
    about = describe(config, splits) | made_of
    replace_file(folder / "config.json", configuration.to_json(config) + "\n")
    told = origin(config, about, choose_devices(1)) | made_of
    replace_file(folder / "about.json", json.dumps(told, indent=2) + "\n")
    with MetricsLog(folder) as log:
        log.write(step, "validation", validated.figures | {"data": splits.name})
    weights = jax.tree.map(np.asarray, encoder.weights)
    key, number = jax.random.key(config.seed), jnp.asarray(step, jnp.int32)
    state = TrainState(number, **weights, opt_state=(), rng=key)
    best = validated.figures.get(config.checkpoint.metric)
    with CheckpointStore(folder) as store:
        store.save(
            BEST, state, about | {"progress": {"best": best, "card": encoder.card.to_dict()}}
        )
    title = f"{config.model.members} nets as one on {splits.name}: validation pairs"
    draw_pairs(validation, validated, folder, title)
