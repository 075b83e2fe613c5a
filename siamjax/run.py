"""A recipe run in a folder: from the start, or from where it was stopped."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from siamjax import backend, cluster
from siamjax import config as configuration
from siamjax.config import ConfigDict
from siamjax.data import load
from siamjax.evaluation import plots
from siamjax.evaluation.validation import Validated, Validation
from siamjax.recipe import assemble, validate
from siamjax.report import of_validation, write_report
from siamjax.start import begin
from siamjax.training import loop, memory
from siamjax.training.checkpoint import BEST, LATEST, CheckpointStore, described
from siamjax.training.features import use_features
from siamjax.training.loop import Run
from siamjax.training.no_log import NoLog
from siamjax.training.parallel import Devices
from siamjax.training.stream import Stream
from siamjax.training.workdir import WorkdirError, locked, writing
from siamjax.training.writer import MetricsLog, open_logs, replace_file, write_train_curves
from siamjax.types import DataSplits

# What a resumed run may change: how often things happen, and where they are; and how long it
# takes, unless the learning rate's schedule hangs on that, as the cosine does.
HOW_LONG = ("train.steps", "train.epochs")
MAY_CHANGE = (
    "train.log_every", "train.tensorboard", "train.steps_per_dispatch", "train.devices",
    "eval.every", "checkpoint.every", "data.dir", "data.cache_dir", "data.resident_limit",
    "data.fallback", "model.weights", "model.weights_sha256", "model.remat", "train.doctor",
)  # fmt: skip

# Where a process finds things; all else is the same in all processes of a run.
PLACES = "data.dir", "data.cache_dir", "model.weights"


def check_resumable(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError where a checkpoint was made with another config or other data."""
    new = _flat(now["config"]["config"])
    # A key that is younger than the checkpoint had the value that is its default.
    defaults = _flat(json.loads(configuration.to_json(configuration.base()))["config"])
    old = {k: v for k, v in defaults.items() if k in new} | _flat(saved["config"]["config"])
    free = MAY_CHANGE + (() if new["optimizer.schedule"] == "cosine" else HOW_LONG)
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

    With several processes every one calls it, with the same folder; the first one writes.

    Returns:
        Whether training reached its end (False after Ctrl-C or SIGTERM).

    Raises:
        ValueError: for a config, data or checkpoints that do not do.
        WorkdirError: if another run is using the folder, or it cannot be written.
        OutOfMemoryError: with the batch that fits.
    """
    validate(config)
    workdir, main = Path(workdir), cluster.is_main()
    with writing(workdir), ExitStack() as held:
        # The processes of one run share its folder; the first one holds it for all.
        try:
            if main:
                workdir.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(workdir, say))
        except (OSError, ValueError):
            cluster.all_ready(False)  # the others wait to hear of it
            raise
        if not cluster.all_ready(True):
            raise WorkdirError(f"process 0 of this run can't use {workdir}: it says why")
        return _train(config, workdir, say if main else _silent, main)


def _train(config: ConfigDict, workdir: Path, say: Callable[[str], None], main: bool) -> bool:
    splits = load(config)
    for note in splits.notes:
        say(f"NOTE: {note}")
    say(f"data: {splits.summary}")
    logs = open_logs(workdir, config.train.tensorboard) if main else NoLog()
    with CheckpointStore(workdir) as store, logs as log:
        with backend.own_memory():
            run = assemble(config, splits)
            start_or_resume(config, run, store)
            if run.front is not None:
                say("frozen tower: its features are computed once an image")
                use_features(run)
        for note in store.notes:
            say(f"NOTE: {note}")
        if main:
            replace_file(workdir / "config.json", configuration.to_json(config) + "\n")
            about = origin(config, run.about, run.devices)
            replace_file(workdir / "about.json", json.dumps(about, indent=2) + "\n")
        log.rewind(int(run.state.step) or -1)  # a fresh start writes rows of step 0 anew
        say(introduction(config, run))
        latest: Validated | None = None

        def on_validation(log: MetricsLog, validated: Validated) -> None:
            nonlocal latest
            latest = validated
            write_outputs(run, workdir, log, validated)

        if main:
            run.on_validation = on_validation
        try:
            done = loop.train(run, store, log)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not memory.exhausted(error):
                raise
            raise memory.OutOfMemoryError(smaller_batch(config, splits, run, error)) from error
        if main:
            write_outputs(run, workdir, log)
    if latest is not None:  # after the store: a report reads what is saved
        of = "the weights of the last validation"
        found = of_validation(run.validation, latest, of=of, data=splits.name)
        write_report(workdir, None, [found])
    if done:
        say(f"done: {workdir}")
    else:
        say(f"stopped at step {int(run.state.step)}, saved; the same command goes on from there")
    return done


def _silent(text: str) -> None:
    """What the processes other than the first say."""


def start_or_resume(config: ConfigDict, run: Run, store: CheckpointStore) -> None:
    """Sets a run to the latest checkpoint of `store`, or else to the weights it starts from.

    Raises:
        ValueError: if that was made with another config or other data, or is not the same for
            every process of the run.
    """
    weights = config.model.weights
    if weights is not None and Path(weights).resolve() == store.root.parent.resolve():
        raise ValueError(
            f"config.model.weights is this run's own folder ({weights}): to go on with that run"
            " leave it out, to start a new one from it give another --workdir"
        )
    check_together(config, run, store)
    if store.step(LATEST) is None:
        if store.newest(BEST) is not None:  # of a run that was killed before its first checkpoint
            check_resumable(store.about(BEST), run.about)
            cluster.all_ready(True)  # nobody reads any more what is now put away
            store.forget_after(BEST, -1)
        begin(config, run)
        return
    with described(f"the latest checkpoint in {store.root}"):
        saved = store.about(LATEST)
        check_resumable(saved, run.about)
        if "start" in saved:
            run.about["start"] = saved["start"]
        run.restore(store.restore_state(run.state), saved["progress"])
    cluster.all_ready(True)
    for kind in (LATEST, BEST):
        store.forget_after(kind, int(run.state.step))


def check_together(config: ConfigDict, run: Run, store: CheckpointStore) -> None:
    """Raises ValueError where the processes of a run would not do the same from here on."""
    keys = _flat(json.loads(configuration.to_json(config))["config"])
    shared = {key: value for key, value in keys.items() if key not in PLACES}
    step = store.step(LATEST)
    start = [step, store.newest(BEST), run.about["data"]["fingerprint"], shared]
    if not cluster.all_same(json.dumps(start, sort_keys=True)):
        raise ValueError(
            "the processes of this run do not start from the same place: each needs the same"
            " --config, the same data and the same --workdir on a disk that they share. This one"
            f" found {'no checkpoint' if step is None else f'step {step}'} in {store.root}, and"
            f" the data {run.about['data']['summary']}"
        )


def origin(config: ConfigDict, about: dict[str, Any], devices: Devices) -> dict[str, Any]:
    """What about.json says: where the numbers of a run come from."""
    device = devices.local[0]
    known = [key for key in ("data", "preprocess", "start", "versions") if key in about]
    return {key: about[key] for key in known} | {
        "seed": config.seed,
        "command": shlex.join(sys.orig_argv),
        "machine": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": _processor(),
            "device": f"{devices.count} x {device.device_kind} ({device.platform})",
        },
    }


def _processor() -> str:
    """The model of the CPU, as far as the system tells."""
    try:
        rows = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(row.split(":", 1)[1].strip() for row in rows if row.startswith("model name"))
    except (OSError, StopIteration, UnicodeDecodeError):
        return platform.processor() or platform.machine()


def smaller_batch(config: ConfigDict, splits: DataSplits, run: Run, error: BaseException) -> str:
    """The sentence for a run that does not fit into memory, with the batch that would."""
    if not cluster.alone():  # the others would have to take part in the search
        return memory.advice(config.batch_size, None, error)

    def cost(batch: int) -> int | None:
        smaller = config.copy_and_resolve_references()
        with smaller.unlocked():
            smaller.batch_size = batch
        validate(smaller)
        other = assemble(smaller, splits)
        # After a frozen front they are its features, which do not depend on the batch.
        other.feed = replace(other.feed, images=run.feed.images)
        devices = other.devices
        arguments = devices.put(other.state), other.feed.start(devices, 0)
        return memory.needed(devices.program(other.step).lower(*arguments).compile())

    limit = memory.available(run.devices.local[0])
    try:
        fits = memory.largest_batch(cost, config.batch_size, limit)
    except (MemoryError, jax.errors.JaxRuntimeError):
        fits = None  # not even the state of a smaller one has room beside what is held now
    return memory.advice(config.batch_size, fits, error)


def introduction(config: ConfigDict, run: Run) -> str:
    """What is about to run, in a few lines."""
    start = int(run.state.step)
    size = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    device = run.devices.local[0]
    random = ""
    if config.optimizer.frozen and config.model.weights is None:
        random = (
            "NOTE: config.optimizer.frozen parameters stay as they are, and they are RANDOM: give"
            " config.model.weights\n"
        )
    streams = ""
    if isinstance(run.feed, Stream):
        streams = (
            f"the training images ({run.feed.images.nbytes / 2**20:,.1f} MiB) exceed"
            f" config.data.resident_limit ({config.data.resident_limit}): each batch is sent to the"
            " device by itself\n"
        )
    origin = run.about.get("start", {})
    begins = f"weights to start from: {origin['from']}\n" if origin else ""
    notes = "".join(f"NOTE: {note}\n" for note in origin.get("notes", ()))
    return (
        f"{random}{streams}{begins}{notes}"
        f"model: {config.model.tower} tower, {config.model.head} head, {size:,} parameters\n"
        f"{'resuming at' if start else 'starting at'} step {start} of {run.plan.total},"
        f" {run.devices.count} x {device.device_kind}, {run.plan.dispatch} step(s) a dispatch"
    )


def write_outputs(
    run: Run, workdir: Path, log: MetricsLog, validated: Validated | None = None
) -> None:
    """train_curves.txt, curves.png, plot.png and pairs.png of a run so far."""
    rows = log.rows()
    losses = [x for row in rows if row["split"] == "train" for x in row["losses"]]
    validations = [row for row in rows if row["split"] == "validation"]
    # In per cent, as the ports that write this file have it.
    accuracies = [100 * r.get("one_shot_accuracy", r["pair_accuracy"]) for r in validations]
    write_train_curves(workdir / "train_curves.txt", losses, accuracies)
    plots.curves(rows, workdir / "curves.png", title=run.title)
    if run.plan.evaluate == run.plan.epoch:
        plots.keras_plot(rows, workdir / "plot.png")
    if validated is not None:
        title = f"{run.title}: validation pairs, step {rows[-1]['step']}"
        draw_pairs(run.validation, validated, workdir, title)


def draw_pairs(validation: Validation, validated: Validated, workdir: Path, title: str) -> None:
    """pairs.png: some validation pairs of either kind with their similarity."""
    pairs, images = validation.pairs, validation.images.images
    few = np.concatenate([_spread(np.flatnonzero(pairs.same == same)) for same in (True, False)])
    plots.pair_grid(
        images[pairs.left[few]],
        images[pairs.right[few]],
        pairs.same[few],
        validated.similarity[few],
        workdir / "pairs.png",
        title=title,
    )


def _spread(rows: np.ndarray, count: int = 12) -> np.ndarray:
    """At most `count` of the rows, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]
