"""How many operations a step takes, whichever way they are done."""

from __future__ import annotations

import jax

from siamjax import backend
from siamjax.training.loop import Run


def flop_per_step(run: Run) -> float:
    """Floating point operations of a step of the plain model, as XLA counts them.

    A CPU's detours take fewer multiplications (Fourier transform) or other ones; they are faster
    ways to the same result, so what they save counts as speed. A product of sums counts two, taps
    in the padding none. Of a frozen tower that runs once an image nothing is in the step.

    Args:
        run: on one device; a step over several takes as much.
    """
    with backend.as_on_gpu():
        cost = jax.jit(run.step).trace(run.state, run.feed.host(0)).lower().cost_analysis()
    return float((cost or {}).get("flops", 0.0))


