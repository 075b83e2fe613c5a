import numpy as np
import pytest
from shrunk import recipe_file, shrunk
from synthetic import labelled

from siamjax import benchmark
from siamjax.config import options
from siamjax.data import load
from siamjax.types import PairDraw


def test_both_ways_are_timed_on_the_same_recipe(tmp_path_factory):
    config = shrunk(recipe_file("omniglot_fast"), tmp_path_factory.getbasetemp())
    with config.unlocked():  # another tower: this one takes 10 s to compile
        config.model.update(tower="mlp", init="glorot")
        config.model.tower_options = options(features=(8,))
    measured = benchmark.steady_state(config, load(config), windows=2, seconds=0.2)
    speeds = measured.speeds
    assert measured.first_step > 0
    with pytest.raises(ValueError, match="ways are resident, host; got neither"):
        benchmark.steady_state(config, load(config), names=["neither"])
    assert set(speeds) == {"resident", "host"}
    for speed in speeds.values():
        assert 0 < speed.least <= speed.median <= speed.most


def test_a_batch_gathered_on_the_host_keeps_its_pairs():
    data = labelled()
    draw = PairDraw(
        left=np.array([5, 9]), right=np.array([7, 0]), same=np.array([True, False]),
        weight=np.ones(2), slot=np.arange(2),
    )  # fmt: skip
    moved = benchmark._renumbered(draw)
    images = data.images[draw.image_index]
    np.testing.assert_array_equal(images[moved.left], data.images[draw.left])
    np.testing.assert_array_equal(images[moved.right], data.images[draw.right])
