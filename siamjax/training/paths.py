"""Parameters by their path, such as `tower/conv1/kernel`, and patterns over paths.

A pattern is a regular expression that has to match a path in full.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax import Array


def named_leaves(tree: Any) -> list[tuple[str, Array]]:
    """The leaves of nested dicts, each with its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [("/".join(str(key.key) for key in path), leaf) for path, leaf in leaves]


def check_patterns(key: str, patterns: Sequence[str], params: Any) -> None:
    """Raises ValueError for a pattern of `key` that matches no parameter: a typing slip."""
    paths = [path for path, _ in named_leaves(params)]
    for pattern in patterns:
        if not any(re.fullmatch(pattern, path) for path in paths):
            raise ValueError(
                f"{key}: {pattern!r} matches no parameter; there are:\n  " + "\n  ".join(paths)
            )


def split(params: Any, frozen: Sequence[str]) -> tuple[Any, Any]:
    """The parameters that train, and those that match a pattern of `frozen`.

    Only the former get gradients and optimiser memory.

    Returns:
        Two trees whose `merge` is `params`; branches without a leaf are left out.

    Example:
        >>> split({"tower": {"a": 1, "b": 2}, "head": {"c": 3}}, ("tower/a", "head/.*"))
        ({'tower': {'b': 2}}, {'tower': {'a': 1}, 'head': {'c': 3}})
    """
    if not frozen:
        return params, {}
    pattern = re.compile("|".join(f"(?:{p})" for p in frozen))
    return _pick(params, "", pattern, False), _pick(params, "", pattern, True)


def _pick(tree: dict[str, Any], path: str, pattern: re.Pattern[str], wanted: bool) -> dict:
    picked = {}
    for name, value in tree.items():
        here = f"{path}/{name}" if path else name
        if isinstance(value, dict):
            inner = _pick(value, here, pattern, wanted)
            if inner:
                picked[name] = inner
        elif bool(pattern.fullmatch(here)) == wanted:
            picked[name] = value
    return picked


def merge(left: Any, right: Any) -> dict[str, Any]:
    """One tree of the leaves of two that have none in common.

    Example:
        >>> merge({"tower": {"b": 2}}, {"tower": {"a": 1}, "head": {"c": 3}})
        {'tower': {'b': 2, 'a': 1}, 'head': {'c': 3}}
    """
    merged = dict(left)
    for name, value in right.items():
        merged[name] = merge(left[name], value) if name in left else value
    return merged
