from pathlib import Path

import numpy as np
import optax
import pytest
from shrunk import recipe_file, shrunk

from siamjax import config as configuration
from siamjax import recipe, run
from siamjax.training.state import create_state


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


@pytest.mark.parametrize(
    ("name", "depth", "normed"), [("siamese_pth", 11, False), ("normed_legacy_pth", 13, True)]
)
def test_a_head_from_a_file_may_not_be_bent_to_one_sign(tmp_path, name, depth, normed):
    with np.load(Path(__file__).parent / "parity" / "vgg.npz") as file:
        (tmp_path / "weights.pth").write_bytes(file[name].tobytes())
    config = configuration.base()
    config.model.update(tower="vgg", head="l1_mlp", init="kaiming")
    config.model.weights = str(tmp_path / "weights.pth")
    config.model.tower_options = configuration.options(
        depth=depth, divide=64 if normed else 32, batch_norm=normed
    )
    config.model.head_options = configuration.options(hidden=8)
    state = create_state(recipe.build_model(config), optax.sgd(1.0), (64, 96, 3), seed=0)
    if normed:  # the tower alone
        kernel = recipe.with_weights(config, state).params["head"]["hidden"]["kernel"]
        np.testing.assert_array_equal(kernel, state.params["head"]["hidden"]["kernel"])
        return
    with pytest.raises(ValueError, match=r"may have any sign: set config.model.head_options"):
        recipe.with_weights(config, state)
    config.model.head_options.nonnegative = False
    moved = recipe.with_weights(config, state).params["head"]["hidden"]["kernel"]
    assert (moved != state.params["head"]["hidden"]["kernel"]).any()
