"""Any key of the config, overridden by anything: a config that passes its checks or a sentence."""

import sys
import traceback
from pathlib import Path
from unittest import mock

import pytest
from absl import flags
from fuzzed import long, quick
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import config_flags

import siamjax
from siamjax import config as configuration
from siamjax import recipe
from siamjax.data import preprocess_of
from siamjax.training.optimizer import create_optimizer

PACKAGE = Path(siamjax.__file__).parent


def keys(config, above=""):
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from keys(value, f"{above}{key}.")
        else:
            yield above + key


VALUES = st.one_of(
    st.sampled_from(
        ("", "0", "1", "-1", "2", "nan", "inf", "1e400", "9" * 20, "None", "True", "()", "(1,)",
         "(1,2)", "(2,1)", "(0.5,)", '("a","b")', "(1,2,3)", '((".*",1.0),)', '(("(",1.0),)',
         "(((),),)", '("((",)', "[]", "{}", "in-batch", "triplet", "explicit", "auto", "elastic")
    ),
    st.floats().map(str),
    st.integers().map(str),
    st.text(max_size=12),
)  # fmt: skip
OVERRIDES = st.lists(
    st.tuples(st.sampled_from(sorted(keys(configuration.base()))), VALUES), min_size=1, max_size=3
)


def check(overrides):
    """Whether the overrides were refused, with a sentence."""
    arguments = ["main", *(f"--config.{key}={value}" for key, value in overrides)]
    values = flags.FlagValues()
    with mock.patch.object(sys, "argv", arguments):
        config_flags.DEFINE_config_dict("config", configuration.base().lock(), flag_values=values)
        try:
            values(arguments)
        except flags.Error:  # absl prints its sentence and ends with status 1
            return True
    config = values.config
    try:
        recipe.validate(config)
        again = configuration.from_json(configuration.to_json(config))
        assert again.to_dict() == config.to_dict()
        preprocess_of(config)
        recipe.build_augmentation(config)
        recipe.build_objective(config)
        create_optimizer(config.optimizer, 100, 10)
    except ValueError as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        assert PACKAGE in raised_in.parents, "a sentence of ours"
        assert len(str(error)) > 40, f"no sentence: {error}"  # noqa: PT017
        return True
    return False


@quick
@given(OVERRIDES)
def test_overrides(overrides):
    check(overrides)


@pytest.mark.slow
@long
@given(OVERRIDES)
def test_many_overrides(overrides):
    check(overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [("augment.scale", "(1,2,3)")],
        [("augment.scale", '("a","b")')],
        [("optimizer.groups", "(1,2)")],
        [("optimizer.groups", "triplet")],
        [("optimizer.groups", "(((),),)")],
        [("optimizer.frozen", '("((",)')],
        [("objective.l2", "(1.0,)")],
        [("optimizer.learning_rate", "inf")],
        [("batch_size", "9" * 20)],
    ],
)
def test_what_found_something(overrides):
    assert check(overrides)
