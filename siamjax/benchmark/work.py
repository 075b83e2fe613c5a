"""How many operations a step takes, whichever way they are done."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from siamjax import backend
from siamjax.config import ConfigDict
from siamjax.recipe import assemble
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
        embed = partial(run.front.apply, method="embed")
        weights = {"params": run.state.params, "batch_stats": run.state.batch_stats}
        size = jax.eval_shape(embed, weights, data.images[:1]).shape[-1]
        kind = jax.ShapeDtypeStruct((len(data.images), 1, 1, size), jnp.float32)
        data = data._replace(images=kind)
    with backend.as_on_gpu():
        cost = jax.jit(run.step).trace(run.state, data).lower().cost_analysis()
    return float((cost or {}).get("flops", 0.0))
