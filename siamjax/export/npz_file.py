"""The weights as plain arrays."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from siamjax.export.graphs import ExportError
from siamjax.inference import Comparator

NAME = "weights.npz"


def arrays(comparator: Comparator) -> dict[str, np.ndarray]:
    """All weights in float32, by path: `params/tower/conv1/kernel`, `batch_stats/tower/...`."""
    leaves = jax.tree_util.tree_leaves_with_path(comparator.encoder.weights)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf, np.float32)
        for path, leaf in leaves
    }


def write(weights: dict[str, np.ndarray], folder: Path) -> None:
    """`weights.npz`."""
    np.savez(folder / NAME, **weights)  # pyright: ignore[reportArgumentType]


def check(weights: dict[str, np.ndarray], folder: Path) -> None:
    """Reads the file again.

    Raises:
        ExportError: if any is not what was written.
    """
    with np.load(folder / NAME, allow_pickle=False) as found:
        wrong = sorted(set(found.files) ^ set(weights))
        wrong += [k for k in weights if k in found and not np.array_equal(found[k], weights[k])]
    if wrong:
        raise ExportError(f"{NAME} does not hold what was written: {', '.join(wrong[:5])}")
