"""Where images come from: `SOURCES`, and `load`, which runs the one that a config names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module

from siamjax.config import ConfigDict
from siamjax.config_faults import lookup
from siamjax.data.splits import DataNotFound
from siamjax.preprocess import preprocess_of
from siamjax.types import DataSplits

__all__ = ["SOURCES", "DataNotFound", "load", "preprocess_of"]

Source = Callable[[ConfigDict], DataSplits]


def _later(name: str, module: str | None = None) -> Source:
    """The source of that name, its module imported when it is first called."""

    def source(config: ConfigDict) -> DataSplits:
        return getattr(import_module(f"siamjax.data.{module or name}"), name)(config)

    source.__name__ = name
    return source


SOURCES: dict[str, Source] = {
    "omniglot": _later("omniglot"),
    "folder": _later("folder"),
    "tfds": _later("tfds"),
    "mnist": _later("mnist"),
    "digits": _later("digits", "mnist"),
    "pair_table": _later("pair_table"),
    "glyphs": _later("glyphs"),
}


def load(config: ConfigDict) -> DataSplits:
    """The images of `config.data.source`, or of `config.data.fallback` where they cannot be had.

    Args:
        config: `data.*` and `seed` are read.

    Returns:
        Training, validation and test images. `name` is the data really used; after a fall back
        the first of `notes` says what was wanted, why it is not there, and what is used instead.

    Raises:
        DataNotFound: if the data cannot be had and there is no fallback.
        ValueError: if there is no such source, or the data are damaged.
    """
    wanted, instead = lookup(config, "data.source"), lookup(config, "data.fallback")
    source = _source("source", wanted)
    if instead in ("", "none", "None"):  # a command line has no other way to say None
        instead = None
    other = _source("fallback", instead) if instead else None
    try:
        return _with_drawn(config, source(config))
    except DataNotFound as error:
        if other is None or instead == wanted:
            raise
        reason = str(error)
    splits = _with_drawn(config, other(config))
    note = (
        f'NOT {wanted.upper()}: config.data.source = "{wanted}" could not be had, so'
        f' "{splits.name}" is used INSTEAD (config.data.fallback); no figure of this run is a'
        f" figure on {wanted}. Why: {reason}"
    )
    return replace(splits, notes=(note, *splits.notes))


def _with_drawn(config: ConfigDict, splits: DataSplits) -> DataSplits:
    if not lookup(config, "data.drawn_alphabets"):
        return splits
    return import_module("siamjax.data.glyphs").beside(config, splits)


def _source(key: str, name: str) -> Source:
    if name in SOURCES:
        return SOURCES[name]
    near = get_close_matches(str(name), SOURCES, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"config.data.{key} must be one of {', '.join(SOURCES)}; got {name!r}{hint}")
