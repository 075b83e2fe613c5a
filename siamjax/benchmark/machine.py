"""What this machine has: memory, versions, and the speed of a product of matrices."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from siamjax.training.parallel import Device

MIB = 2**20


def versions() -> dict[str, str]:
    """Of what decides speed."""
    names = ("siamjax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def process_peak() -> float:
    """The most memory that this process has held, MiB."""
    try:
        import resource
    except ImportError:  # not on Windows
        return float("nan")
    unit = MIB if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def device_peak(device: Device) -> float | None:
    """The most memory in use on a device so far, MiB; None where it isn't counted (CPUs)."""
    found = device.memory_stats() or {}
    return found["peak_bytes_in_use"] / MIB if "peak_bytes_in_use" in found else None


def matmul_ceiling(dtype: Any, device: Device, seconds: float = 1.0) -> float:
    """FLOP/s of a product of large random matrices, the median of several: what a step can reach.

    Args:
        dtype: of the matrices; sums are float32, as in a convolution.
        device: to run on.
        seconds: to spend, about.
    """
    size = 2048 if device.platform == "cpu" else 8192
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), np.float32) for _ in range(2))
    a, b = (jax.device_put(jnp.asarray(x, dtype), device) for x in (a, b))
    product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    product(a, b).block_until_ready()
    times, begun = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        product(a, b).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times)
