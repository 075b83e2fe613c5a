"""What every command shares: a user's mistake ends in a sentence, our own in a traceback."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import app, flags

import siamjax
from siamjax.config import ConfigDict

PACKAGE = Path(siamjax.__file__).parent


def run(main: Callable[[list[str]], None]) -> None:
    """Runs `main` as an absl app; exit status 1 and one sentence for bad input."""
    # absl shows INFO; JAX tells there of every kind of device that this machine has not.
    for module in ("xla_bridge", "distributed"):  # the latter: who connects where
        logging.getLogger(f"jax._src.{module}").setLevel(logging.WARNING)
    sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore - a name may be any bytes
    app.run(lambda argv: _guarded(main, argv), flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    try:
        return app.parse_flags_with_usage(argv)
    except AttributeError as error:  # a key of --config.KEY that does not exist
        text = error.args[0]
        while isinstance(text, Exception):  # ml_collections wraps a KeyError
            text = text.args[0]
        said = f"error: the config has no key {'. '.join(str(text).splitlines())}"
        key = re.sub(r"\W.*", "", str(text).lstrip("'\""), flags=re.DOTALL)
        if any(re.match(rf"--?config\.model\.(tower|head)_options\.{key}\b", w) for w in argv):
            said += (
                ". An option of a tower or head that the recipe does not name is named in a recipe"
                " of one's own: c.model.tower_options = configuration.options(width=32)"
            )
        sys.exit(said)


def _guarded(main: Callable[[list[str]], None], argv: list[str]) -> None:
    try:
        main(argv)
    except ValueError as error:
        if (text := _sentence(error)) is None:
            raise  # not a sentence of ours: show where it came from
        sys.exit(text)


def _sentence(error: BaseException) -> str | None:
    """What a user should read of an error; None where it is a fault of ours."""
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    ours = isinstance(error, ValueError) and PACKAGE in raised_in.parents
    return f"error: {error}" if ours else None


def leave_out_foreign_options(config: ConfigDict, silent: bool) -> None:
    """Where `--config.model.head=...` chose another head, drops the recipe's options of the old."""
    from ml_collections import config_flags

    from siamjax import recipe

    said = config_flags.get_override_values(flags.FLAGS["config"])
    for note in recipe.without_foreign_options(config, said):
        if not silent:
            print(note)


def end_now(error: BaseException) -> NoReturn:
    """Says what went wrong and ends the process at once, with status 1.

    For one of several processes: an orderly end would wait for the others, who may be waiting for
    this one; when it is gone, they end too.
    """
    print(_sentence(error) or "".join(traceback.format_exception(error)), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
