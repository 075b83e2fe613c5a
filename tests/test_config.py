import inspect
import json
import re

import pytest

from siamjax import config as configuration


def test_base_is_valid_and_survives_json():
    config = configuration.base()
    configuration.validate(config)
    again = configuration.from_json(configuration.to_json(config))
    assert again.to_dict() == config.to_dict()
    assert again.data.size == (105, 105)
    assert again.is_locked


def test_json_keeps_overrides_options_and_nested_tuples():
    config = configuration.base()
    config.batch_size = 7
    config.model.tower_options = configuration.options(width=5, features=(8, (4, 2)))
    config.objective.l2 = (("tower/.*", 0.5),)
    config.data.dir = "/somewhere"
    again = configuration.from_json(json.loads(configuration.to_json(config)))
    assert again.batch_size == 7
    assert again.model.tower_options.to_dict() == {"width": 5, "features": (8, (4, 2))}
    assert again.objective.l2 == (("tower/.*", 0.5),)
    assert again.data.dir == "/somewhere"


def test_a_newer_schema_is_refused():
    text = configuration.to_json(configuration.base()).replace('"schema": 1', '"schema": 99')
    expected = "schema 99, written by a newer siamjax; this one reads up to 1"
    with pytest.raises(ValueError, match=expected):
        configuration.from_json(text)


def test_all_faults_are_reported_at_once():
    config = configuration.base()
    config.batch_size = 0
    config.dtype = "float16"
    config.data.channels = 2
    config.data.holdout = 1.5
    with pytest.raises(ValueError, match=r"the config has 5 fault\(s\)") as caught:
        configuration.validate(config, {"model.tower": ("mlp",)} | {"model.head": ("weighted_l1",)})
    # batch_size, dtype, channels, holdout; and the tower, whose names the caller gives
    text = str(caught.value)
    for part in ("batch_size must be positive; got 0", "float32, bfloat16; got 'float16'"):
        assert part in text
    for part in ("channels must be 1 (grey) or 3; got 2", "holdout must lie in 0..1; got 1.5"):
        assert part in text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"data.size": (105,)}, r"config.data.size must be \(height, width\)"),
        ({"seed": -1}, r"config\.seed must be an integer"),
        ({"data.split_seed": -1}, r"config\.data\.split_seed must be an integer in 0\.\."),
        ({"data.glyph_seed": -1}, r"config\.data\.glyph_seed must be an integer in 0\.\."),
        ({"eval.way": 1}, "config.eval.way must be at least 2; got 1"),
        ({"augment.scale": (1.2, 0.8)}, "0 < low <= high"),
        ({"augment.scale": (1.0, 2.0, 3.0)}, r"must be \(low, high\), two numbers; got \(1.0"),
        ({"objective.l2": ("tower", 1.0)}, r"objective.l2 must be \(\(\"path regex\", factor\)"),
        ({"optimizer.groups": (("a", 1.0),)}, "learning rate or None, momentum or None"),
        ({"optimizer.frozen": ("((",)}, r"frozen holds '\(\(', which is no pattern: missing \)"),
        ({"objective.margin": float("nan")}, "objective.margin must be finite; got nan"),
        ({"train.steps": 2**31}, r"train.steps must lie within 2\*\*31"),
        ({"data.source": "tfds"}, "config.data.tfds_name must name the data set"),
        ({"model.members": 2}, r"trains one net; got 2: .* with python -m experiments\.ensemble"),
        ({"model.weights_sha256": "3972"}, "the first 8 to 64 hexadecimal digits"),
        ({"model.weights_sha256": "x" * 8}, "the first 8 to 64 hexadecimal digits"),
        ({"model.weights_sha256": "0" * 8}, "config.model.weights names none"),
        ({"train.steps_per_dispatch": "some"}, "auto or a positive integer; got 'some'"),
        ({"pairs.scheme": "in-batch", "pairs.images_per_class": 1}, "at least 2 for scheme in-"),
        ({"pairs.scheme": "in-batch", "batch_size": 5}, r"\(10 images\) to be a multiple .* \(6\)"),
    ],
)
def test_each_fault_has_a_sentence(change, text):
    config = configuration.base()
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=text):
        configuration.validate(config)


def test_a_misspelt_key_names_its_neighbour():
    config = configuration.base().lock()
    with pytest.raises(AttributeError, match='Did you mean "batch_size"'):
        config.batchsize = 3


def test_every_key_has_a_comment():
    source = inspect.getsource(configuration).partition("def base()")[2].partition("CHOICES")[0]
    keys = [line for line in source.splitlines() if re.match(r"    [a-z]\.\w+ = (?!_)", line)]
    assert len(keys) > 50
    for line in keys:
        assert "#" in line, f"no comment: {line.strip()}"
