"""How many operations a step takes, whichever way they are done."""

from __future__ import annotations

import jax

from siamjax import backend
from siamjax.config import ConfigDict
from siamjax.recipe import assemble
from siamjax.training.features import features_like
from siamjax.types import DataSplits


def flop_per_step(config: ConfigDict, splits: DataSplits) -> float:
    """Floating point operations of a step of the plain model, as XLA counts them.

    A CPU's detours take fewer multiplications (Fourier transform) or other ones; they are faster
    ways to the same result, so what they save counts as speed. A product of sums counts two, taps
    in the padding none. Of a frozen tower that runs once an image nothing is in the step.

    Args:
        config: of a recipe. The step over several devices takes as much as the one here.
        splits: its data.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.train.devices = 1
    run = assemble(config, splits)
    data = run.feed.host(0)
    if run.front is not None:  # its output's shape is enough
        data = data._replace(images=features_like(run.front, run.state, data.images))
    with backend.as_on_gpu():
        cost = jax.jit(run.step).trace(run.state, data).lower().cost_analysis()
    return float((cost or {}).get("flops", 0.0))
