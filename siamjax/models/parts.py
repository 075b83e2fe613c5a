"""Loops over parts of a batch that hold no more memory than their results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def in_turn(function: Callable[..., Any], *parts: Array) -> Any:
    """`lax.map(lambda p: function(*p), parts)`.

    `lax.map` writes into zeros; XLA makes those once for all loops of a program whose results have
    one shape, keeps them to its end, and copies them for each loop.
    """
    return summed_in_turn(lambda *p: ((), function(*p)), *parts)[1]


def summed_in_turn(function: Callable[..., tuple[Any, Any]], *parts: Array) -> Any:
    """As `in_turn` with a function of two results: the sum of the first, all of the second.

    Args:
        function: of the i-th of all parts, to what is added and what is kept.
        parts: arrays with as many parts each, along their first axis.
    """
    count, last = len(parts[0]), parts[-1]

    def one(i: Array, state: tuple[Any, Any]) -> tuple[Any, Any]:
        total, results = state
        more, new = function(*(lax.dynamic_index_in_dim(p, i, keepdims=False) for p in parts))
        put = partial(lax.dynamic_update_index_in_dim, index=i, axis=0)
        return jax.tree.map(jnp.add, total, more), jax.tree.map(put, results, new)

    added, kept = jax.eval_shape(function, *(p[0] for p in parts))
    total = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), added)
    # What it starts from is never read: a number that no other loop has is no constant to keep.
    number = last[(0,) * last.ndim]
    start = jax.tree.map(lambda s: jnp.full((count, *s.shape), number, s.dtype), kept)
    return lax.fori_loop(0, count, one, (total, start))
