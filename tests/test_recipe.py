import pytest
from shrunk import recipe_file, shrunk

from configs import omniglot_best
from siamjax import recipe, run


@pytest.fixture
def fast(tmp_path_factory):
    with shrunk(recipe_file("omniglot_fast"), tmp_path_factory.getbasetemp()).unlocked() as config:
        config.optimizer.schedule = "constant"
    return config


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model.tower": "kohc"}, "config.model.tower must be one of .*koch.*got 'kohc'"),
        ({"pairs.scheme": "balanced"}, "nca compares every image of a batch with the others"),
        ({"model.tower_options.depth": 3}, "small_resnet has no such option; it has width"),
        ({"model.head_options.init": "he"}, "the head cosine has no such option; it has scale"),
    ],
)
def test_validate_knows_the_names(fast, change, text):
    with fast.unlocked():
        for key, value in change.items():
            *sections, last = key.split(".")
            section = fast
            for name in sections:
                section = section[name]
            section[last] = value
    with pytest.raises(ValueError, match=text):
        recipe.validate(fast)


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(fast, tmp_path):
    with fast.unlocked():
        fast.train.devices = 8
    with pytest.raises(ValueError, match=r"batch_size \(12\) must be a multiple of the 8 devices"):
        run.train(fast, tmp_path, lambda _: None)


def test_euclidean_midpoint_is_half_the_margin(fast):
    with fast.unlocked():
        fast.model.head = "euclidean"
        fast.objective.margin = 3.0
    assert recipe.build_model(fast).head.midpoint == 1.5


def test_options_of_a_head_that_was_exchanged_are_left_out_and_said():
    config = omniglot_best.get_config().lock()
    config.model.head = "cosine"
    assert recipe.without_foreign_options(config, {"model.tower_options.tokens"}) == []
    assert "grid" in config.model.head_options, "the file itself says cosine: its mistake"
    (note,) = recipe.without_foreign_options(config, {"model.head"})
    assert note == (
        "config.model.head=cosine: left out the recipe's head_options channels, grid, which this"
        " head does not have"
    )
    assert not config.model.head_options
    assert recipe.without_foreign_options(config, {"model.head"}) == []


def test_options_that_a_command_line_names_stay():
    config = omniglot_best.get_config()
    config.model.head = "cosine"
    said = {"model.head", "model.head_options.grid"}
    (note,) = recipe.without_foreign_options(config, said)
    assert "head_options channels, which" in note
    assert list(config.model.head_options) == ["grid"]
