"""Parts of a parameter tree that training leaves alone: no gradient, no optimiser memory."""

from __future__ import annotations

import re
from typing import Any


def split(params: dict[str, Any], frozen: tuple[str, ...]) -> tuple[dict, dict]:
    """The parameters that train, and those whose path matches a pattern in full.

    Args:
        params: nested dicts.
        frozen: regular expressions over paths such as `tower/backbone/conv1/kernel`.

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


def merge(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """One tree of the leaves of two that have none in common.

    Example:
        >>> merge({"tower": {"b": 2}}, {"tower": {"a": 1}, "head": {"c": 3}})
        {'tower': {'b': 2, 'a': 1}, 'head': {'c': 3}}
    """
    merged = dict(left)
    for name, value in right.items():
        merged[name] = merge(left[name], value) if name in left else value
    return merged
