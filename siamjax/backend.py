"""What decides speed on a backend, in one place.

Two facts of XLA's CPU backend (jaxlib 0.10) that give no warning:

1. By default convolutions go through a library that is 3 to 8 times slower than the older Eigen
   path. One compiler option chooses the latter.
2. A convolution inside `lax.scan` is about 20 times slower than outside, whatever the option.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

EIGEN_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


@functools.cache
def compiler_options() -> dict[str, str]:
    """The options for `jax.jit` here: Eigen's convolutions on a CPU whose XLA knows the option."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=EIGEN_CONVOLUTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}  # another XLA: an experimental option may go as it came
    return EIGEN_CONVOLUTIONS


_AS_ELSEWHERE: ContextVar[bool] = ContextVar("as_elsewhere", default=False)


@contextlib.contextmanager
def as_on_gpu() -> Iterator[None]:
    """What is traced inside is what a GPU would get, with none of a CPU's detours.

    To lower a step for a GPU where there is none, and to count the plain model's operations.
    """
    token = _AS_ELSEWHERE.set(True)
    try:
        yield
    finally:
        _AS_ELSEWHERE.reset(token)


def on_cpu() -> bool:
    """Whether a program traced now will run on a CPU."""
    return jax.default_backend() == "cpu" and not _AS_ELSEWHERE.get()


def jit(function: Callable, **options: Any) -> Callable:
    """`jax.jit` with this backend's compiler options."""
    return jax.jit(function, compiler_options=compiler_options(), **options)


def jit_once(function: Callable) -> Callable:
    """`jit` for what runs once, where compiling costs more than running.

    Creating a model is a random draw for each parameter array; optimising that code takes XLA
    four times as long and saves a tenth of a second.
    """
    options = compiler_options() | {"xla_backend_optimization_level": "1"}
    return jax.jit(function, compiler_options=options)


def scans_well(params: Any) -> bool:
    """Whether a step that runs these parameters may be inside `lax.scan` without losing speed.

    On a CPU one with convolutions may not; only their kernels have four axes.
    """
    if not on_cpu():
        return True
    return all(leaf.ndim < 4 for leaf in jax.tree.leaves(params))


@jax.custom_vjp
def sum_of_squares(x: Array) -> Array:
    """`jnp.square(x).sum()`, with no squares stored.

    XLA's CPU backend adds in a tree, and stores the squares before it does: of 38 million weights
    151 MB. Here they are the diagonal of a narrow product of matrices, which reads x once.
    """
    width = math.gcd(x.size, 16)
    if not on_cpu() or width < 16:
        return jnp.vdot(x, x, precision="highest")
    rows = x.reshape(-1, width)
    return jnp.trace(jnp.matmul(rows.T, rows, precision="highest"))


def _squares_forward(x: Array) -> tuple[Array, Array]:
    return sum_of_squares(x), x


def _squares_backward(x: Array, slope: Array) -> tuple[Array]:
    return (2 * slope * x,)


sum_of_squares.defvjp(_squares_forward, _squares_backward)


def keep_memory() -> None:
    """Keeps freed memory in the process, where the C library can be told so (glibc).

    By default each large buffer that XLA's CPU backend frees goes back to the system, and the
    next step faults every page of it in again: up to half of a step. It is not enough to raise the
    thresholds: XLA allocates in threads of its own, whose arenas give back what they free whatever
    the thresholds are. So all threads share the main arena, which grows in large pieces. And a
    dispatch on a CPU waits for its step: of several under way, each would hold memory of its own.

    Call it before JAX starts its threads.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    options = {  # by their numbers in malloc.h
        -3: 2**31 - 1,  # M_MMAP_THRESHOLD
        -1: 2**31 - 1,  # M_TRIM_THRESHOLD
        -2: 2**26,  # M_TOP_PAD
        -8: 1,  # M_ARENA_MAX
    }
    for option, value in options.items():
        _glibc("mallopt", option, value)


@contextlib.contextmanager
def own_memory() -> Iterator[None]:
    """Gives memory that is free back to the system, before and after (glibc).

    For what happens rarely, a start or a validation. What `keep_memory` keeps for the steps is of
    other sizes, and what this leaves behind would lie about in pieces that no step fits into.
    """
    _glibc("malloc_trim", 0)
    yield
    _glibc("malloc_trim", 0)


def _glibc(name: str, *numbers: int) -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        getattr(ctypes.CDLL(None), name)(*numbers)


def enable_compilation_cache() -> Path:
    """Keeps compiled programs in the user's cache directory, so the next start skips compiling."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or home / "siamjax" / "compiled")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return folder
