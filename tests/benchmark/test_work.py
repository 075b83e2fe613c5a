import pytest
from shrunk import recipe_file, shrunk

from siamjax import benchmark
from siamjax.config import options
from siamjax.data import load


def flop(tmp_path_factory, name, batch, **tower):
    config = shrunk(recipe_file(name), tmp_path_factory.getbasetemp())
    with config.unlocked():
        config.model.tower_options.update(options(**tower))
        config.batch_size = batch
    return benchmark.flop_per_step(config, load(config)) / batch


def test_products_of_an_mlp_are_counted_twice_and_three_times_over(tmp_path_factory):
    """Forward, to the weights, to the inputs but of the first layer; two images a pair."""
    pairs, (first, rest) = 256, (16 * 16 * 64, 64 * 64)
    expected = 2 * 2 * (2 * first + 3 * rest)
    found = flop(tmp_path_factory, "mnist_mlp", pairs, features=(64, 64))
    assert found == pytest.approx(expected, rel=0.15)  # dropout and optimiser beside


def test_a_detour_changes_nothing_in_the_count(tmp_path_factory, monkeypatch):
    from siamjax.models import convolution

    monkeypatch.setattr(convolution.fourier, "saves", lambda x, kernel: True)
    quick = flop(tmp_path_factory, "omniglot", 4, features=(4, 4, 4, 4))
    monkeypatch.setattr(convolution.fourier, "saves", lambda x, kernel: False)
    assert quick == flop(tmp_path_factory, "omniglot", 4, features=(4, 4, 4, 4))


def test_a_frozen_tower_is_not_in_the_step(tmp_path_factory):
    """What is left: a dense layer of 8192 / 16 x 4 numbers to 8."""
    assert flop(tmp_path_factory, "image_pairs", 12) < 100_000
