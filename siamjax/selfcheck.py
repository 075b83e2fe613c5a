"""Checks that a recipe can learn at all, and that a machine gives a run's numbers again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from siamjax import config as configuration
from siamjax.config import ConfigDict
from siamjax.data import load
from siamjax.recipe import assemble, validate, without_chance
from siamjax.start import begin
from siamjax.training.doctor import Doctor
from siamjax.training.features import use_features
from siamjax.training.loop import Run
from siamjax.training.writer import read_rows

FITTED = 0.1  # share of a constant answer's loss that counts as near zero
DIGITS = 4  # decimals of the losses that older versions recorded


def overfit_one_batch(
    config: ConfigDict, steps: int = 300, say: Callable[[str], None] = print
) -> bool:
    """Trains on one batch over and over: a recipe that can't learn that can't learn anything.

    The batch is drawn once and never warped, and dropout is off, so the loss has to fall to almost
    nothing. Nothing is written.

    Args:
        config: the recipe.
        steps: at most so many.
        say: told how it goes.

    Returns:
        Whether the loss fell below a tenth of what the best constant answer costs.
    """
    still = without_chance(config, steps)
    with still.unlocked():
        still.train.devices = 1  # the whole batch is judged where it is; the numbers are the same
    validate(still)
    run = assemble(still, load(still), one_batch=True)
    examine = cast(Doctor, run.doctor).examine  # `without_chance` asks for one
    begin(still, run)
    use_features(run)
    state, data = run.devices.put(run.state), run.feed.start(run.devices, 0)
    program = run.devices.compile(run.step)
    every, ratio = max(1, steps // 20), float("nan")
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            # The examiner draws the same batch: its draw is frozen too.
            found = jax.device_get(examine(run.devices.get(state), run.devices.get(data)))
            ratio = float(found.loss_over_constant)
            say(f"step {step}: loss {found.loss:.4g}, {ratio:.1%} of a constant answer's")
            if not ratio >= FITTED:
                break
        state, _ = program(state, data)
    if ratio < FITTED:
        say(f"the recipe learns one batch by heart: within {step} steps")
        return True
    say(
        f"the recipe can't learn even one batch within {steps} steps: look at the labels (is the"
        " same image called different?), at config.optimizer.learning_rate"
        f" ({config.optimizer.learning_rate:g}) and at config.model.init ({config.model.init})"
    )
    return False


@dataclass(frozen=True)
class Repeated:
    """What repeating the first steps of a run showed.

    Attributes:
        recorded: losses of the run, as its metrics have them.
        again: losses here.
        exact: whether the record is exact, or only to `DIGITS` decimals (an older version's).
    """

    recorded: np.ndarray
    again: np.ndarray
    exact: bool

    @property
    def first_difference(self) -> int | None:
        """The first step, from 1, whose loss is another; None if all are equal."""
        differs = np.flatnonzero(self.again != self.recorded)
        return int(differs[0]) + 1 if len(differs) else None

    @property
    def sentence(self) -> str:
        """The answer in words."""
        steps, at = len(self.recorded), self.first_difference
        if at is None:
            how = "bit for bit" if self.exact else f"to the {DIGITS} decimals that were recorded"
            return f"this machine gives the same numbers: {steps} losses are equal {how}"
        gap = np.abs(self.again - self.recorded) / np.maximum(np.abs(self.recorded), 1e-12)
        return (
            f"this machine gives other numbers: the losses of {steps} steps agree before step"
            f" {at} ({self.recorded[at - 1]:.9g} then, {self.again[at - 1]:.9g} here) and differ"
            f" by at most {gap.max():.2g} of their value"
        )


def verify_run(
    workdir: str | Path, steps: int = 20, say: Callable[[str], None] = print
) -> Repeated:
    """Repeats the first steps of a run and compares the losses with those it recorded.

    Nothing is written to the run's folder.

    Args:
        workdir: the run's folder.
        steps: how many; at most as many as were recorded, and as come before a plateau may have
            lowered the learning rate.
        say: told what differs in data and versions.

    Raises:
        ValueError: if the folder holds no run, or not the data that it had.
    """
    workdir = Path(workdir)
    if not (workdir / "config.json").is_file():
        raise ValueError(f"{workdir} has no config.json: is this the folder of a run (--workdir)?")
    config = configuration.from_json((workdir / "config.json").read_text())
    if config.model.members > 1:
        raise ValueError(
            f"{workdir} is an ensemble, which was not trained itself: verify the runs that its"
            " about.json names"
        )
    rows = [row for row in read_rows(workdir / "metrics.jsonl") if row.get("split") == "train"]
    recorded = np.array([loss for row in rows for loss in row.get("losses", [])], np.float64)
    run = _fresh(config, workdir, say)
    if run.plateau.patience:
        steps = min(steps, run.plan.evaluate * run.plateau.patience)
    steps = min(steps, len(recorded))
    if not steps:
        raise ValueError(f"{workdir}/metrics.jsonl has no losses yet: nothing to compare with")
    recorded, again = recorded[:steps], _losses(run, steps)
    exact = bool((recorded != recorded.round(DIGITS)).any())
    return Repeated(recorded, again if exact else again.round(DIGITS), exact)


def _fresh(config: ConfigDict, workdir: Path, say: Callable[[str], None]) -> Run:
    """The run as it was before its first step, from its own config."""
    validate(config)
    splits = load(config)
    run = assemble(config, splits)
    about = _about(workdir)
    then = about.get("data", {})
    if then.get("fingerprint", splits.fingerprint) != splits.fingerprint:
        raise ValueError(
            f"the data are not those of the run: {then.get('summary')} then, {splits.summary} now."
            " Its numbers can't be repeated with these"
        )
    for name, version in run.about["versions"].items():
        if (old := about.get("versions", {}).get(name, version)) != version:
            say(f"NOTE: {name} {old} then, {version} now")
    begin(config, run)
    start = run.about.get("start", {}).get("fingerprint")
    if about.get("start", {}).get("fingerprint", start) != start:
        raise ValueError(
            f"the weights it started from are not those of {config.model.weights} now: that run"
            " went on, or the file was replaced. Its numbers can't be repeated with these"
        )
    use_features(run)
    return run


def _about(workdir: Path) -> dict[str, Any]:
    """about.json; empty where there is none."""
    path = workdir / "about.json"
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): it was changed or cut") from error
    return found if isinstance(found, dict) else {}


def _losses(run: Run, steps: int) -> np.ndarray:
    """The losses of the first steps, dispatched as the run dispatches them."""
    state, data = run.devices.put(run.state), run.feed.start(run.devices, 0)
    programs: dict[int, Callable] = {}
    losses: list[np.ndarray] = []
    at = 0
    while at < steps:
        size = run.plan.size(at)
        if size not in programs:
            programs[size] = run.devices.compile(run.step, size)
        state, figures = programs[size](state, data)
        at += size
        data = run.feed.turn(data, run.devices, at)
        losses.append(np.asarray(jax.device_get(run.devices.get(figures)["loss"])))
    values = np.concatenate(losses)[:steps]
    return np.array([float(f"{x:.9g}") for x in values])  # as the metrics have them
