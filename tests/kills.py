"""Kills a run at random moments, again and again, and compares what comes of it.

    python tests/kills.py --kills=100

A run is started, killed with SIGKILL after a random time (during a save too), started again in the
same folder, and so on until it ends; then another one begins, until so many kills were done. Each
end is compared with an undisturbed run: every array of the last state and of the best weights, and
every row of the metrics but for its times. Pictures are left out. Prints one line of JSON.

Each run is a fork of a process that has imported everything and started nothing of JAX: an import
takes longer than the run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jax
import numpy as np
from tiny import get_config

from siamjax import recipe, run
from siamjax.training.checkpoint import BEST, CheckpointStore
from siamjax.training.writer import read_rows

HIDDEN = ("time", "pairs_per_second")


def result(folder: Path) -> dict:
    """What a finished run left: a digest of its arrays, and its metrics."""
    config = get_config()
    optimizer = recipe.create_optimizer(config.optimizer, config.train.steps)
    size = (*config.data.size, config.data.channels)
    template = recipe.create_state(recipe.build_model(config), optimizer, size, seed=9)
    with CheckpointStore(folder, read_only=True) as store:
        state = store.restore_state(template)
        weights = {"params": template.params, "batch_stats": template.batch_stats}
        best = store.restore_weights(BEST, weights), store.step(BEST)
        notes = list(store.notes)
    digest = hashlib.sha256()
    arrays = state.step, state.params, state.batch_stats, state.opt_state, best
    for leaf in [*jax.tree.leaves(arrays), jax.random.key_data(state.rng)]:
        digest.update(np.asarray(leaf).tobytes())
    rows = read_rows(folder / "metrics.jsonl")
    return {
        "arrays": digest.hexdigest(),
        "rows": [{k: v for k, v in row.items() if k not in HIDDEN} for row in rows],
        "curves": (folder / "train_curves.txt").read_text(),
        "notes": notes,
    }


def child(folder: Path) -> None:
    """Trains in a process of its own, which never returns."""
    status = 1
    for name in ("curves", "pair_grid"):  # they take longer than the run, and can be made again
        setattr(run.plots, name, lambda *_, **__: None)
    run.write_report = lambda *_: None
    try:
        with open(folder.with_suffix(".said"), "a", encoding="utf-8") as said:
            sys.stderr = said
            if run.train(get_config(), folder, lambda text: print(text, file=said, flush=True)):
                folder.with_suffix(".json").write_text(json.dumps(result(folder)))
                status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def start(folder: Path, seconds: float | None) -> bool:
    """One start, killed after so many seconds; returns whether the kill came in time."""
    process = os.fork()
    if not process:
        child(folder)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)  # a process that has ended waits to be asked for its end
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        sys.exit(folder.with_suffix(".said").read_text()[-3000:])
    return False


def main() -> None:
    """Counts kills and compares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60, help="no kill after so many")
    parser.add_argument("--within", type=float, help="seconds; default: what a whole run takes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator, root = random.Random(arguments.seed), Path(tempfile.mkdtemp())
    start(root / "warm", None)  # fills the compilation cache
    before = time.monotonic()
    start(root / "whole", None)
    life = arguments.within or time.monotonic() - before
    expected = json.loads((root / "whole.json").read_text())
    kills = in_save = ends = starts = number = 0
    end = before + 60 * arguments.minutes
    while kills < arguments.kills and time.monotonic() < end:
        folder, number, killed = root / f"run{number}", number + 1, True
        while killed:
            more = kills < arguments.kills and time.monotonic() < end
            killed = start(folder, generator.uniform(0, life) if more else None)
            kills, starts = kills + killed, starts + 1
            in_save += killed and any(folder.glob("checkpoints/*/*.unfinished*"))
        ends += 1
        if json.loads(folder.with_suffix(".json").read_text()) != expected:
            sys.exit(f"{folder} differs from {root / 'whole'}")
    found = {"kills": kills, "in_a_save": in_save, "starts": starts, "ends_equal": ends}
    print(json.dumps(found | {"within_seconds": round(life, 1)}))


if __name__ == "__main__":
    from siamjax import backend

    backend.enable_compilation_cache()
    main()
