from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models import HEADS, Siamese
from siamjax.models.koch import Koch


@pytest.fixture(scope="module")
def shapes():
    model = Siamese(Koch(), HEADS["weighted_l1"]())
    image = jnp.zeros((1, 105, 105, 1))
    return jax.eval_shape(model.init, jax.random.key(0), image, image)["params"]


def test_parameters_are_those_of_the_paper(shapes):
    count = {
        name: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(layer))
        for name, layer in {**shapes["tower"], "head": shapes["head"]}.items()
    }
    assert count == {
        "conv1": 10 * 10 * 64 + 64,
        "conv2": 7 * 7 * 64 * 128 + 128,
        "conv3": 4 * 4 * 128 * 128 + 128,
        "conv4": 4 * 4 * 128 * 256 + 256,
        "dense": 9216 * 4096 + 4096,
        "head": 4097,
    }
    assert sum(count.values()) == 38_951_745


def small(init="he"):
    return Koch(initial=init, features=(4, 4, 4, 4), embedding=8)


def test_the_dense_layer_sees_6_by_6_maps_at_105():
    variables = jax.eval_shape(
        lambda: small().init(jax.random.key(0), jnp.zeros((1, 105, 105, 1)), train=False)
    )
    assert variables["params"]["dense"]["kernel"].shape == (6 * 6 * 4, 8)


@pytest.mark.parametrize(
    ("init", "dense", "first_bias", "other_bias"),
    [("paper", 0.2, 0.5, 0.5), ("seed", 0.01, 0.0, 0.5), ("he", (6 * 6 * 64) ** -0.5, 0.0, 0.0)],
)
def test_inits(init, dense, first_bias, other_bias):
    tower = Koch(initial=init, features=(64, 64, 64, 64), embedding=32)
    image = jnp.zeros((1, 105, 105, 1))
    create = jax.jit(partial(tower.init, train=False))  # compiled, nothing is convolved
    params = create(jax.random.key(1), image)["params"]
    assert float(params["dense"]["kernel"].std()) == pytest.approx(dense, rel=0.05)
    assert float(params["conv1"]["bias"].mean()) == pytest.approx(first_bias, abs=0.01)
    assert float(params["conv3"]["bias"].mean()) == pytest.approx(other_bias, abs=0.01)
    kernel = (2 / (49 * 64)) ** 0.5 if init == "he" else 0.01
    assert float(params["conv2"]["kernel"].std()) == pytest.approx(kernel, rel=0.05)


def test_embeddings_lie_in_0_1_and_depend_on_the_image():
    x = jnp.asarray(np.random.default_rng(0).random((3, 65, 70, 1)), jnp.float32)
    variables = jax.jit(partial(small().init, train=False))(jax.random.key(0), x)
    z = jax.jit(partial(small().apply, train=False))(variables, x)
    assert z.shape == (3, 8)
    assert float(z.min()) > 0
    assert float(z.max()) < 1
    assert float(jnp.abs(z[0] - z[1]).max()) > 1e-3


def test_too_small_images_and_unknown_inits_are_refused():
    with pytest.raises(ValueError, match=r"at least 65x65.*got 64x64"):
        small().init(jax.random.key(0), jnp.zeros((1, 64, 64, 1)), train=False)
    with pytest.raises(ValueError, match="koch knows init paper, seed, he; got 'xavier'"):
        small("xavier").init(jax.random.key(0), jnp.zeros((1, 65, 65, 1)), train=False)
