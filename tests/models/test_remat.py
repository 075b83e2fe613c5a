"""Forgetting maps and computing them again changes memory, not numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shrunk import recipe_file, shrunk

from siamjax import recipe
from siamjax.models.resnet import ResNetV2
from siamjax.models.vgg import Vgg

TOWERS = {
    "vgg": Vgg(depth=11, divide=32, batch_norm=True),
    "resnet": ResNetV2(depth=26, divide=16, embedding=8),
}


def gradient(tower, variables, images):
    def loss(params):
        z, updated = tower.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return (z**2).mean(), updated

    return jax.grad(loss, has_aux=True)(variables["params"])


@pytest.mark.parametrize("name", ["vgg", pytest.param("resnet", marks=pytest.mark.slow)])
def test_gradients_and_parameters_are_the_same(name):
    tower = TOWERS[name]
    images = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3)), jnp.float32)
    variables = jax.jit(lambda: tower.init(jax.random.key(0), images, train=False))()
    results = []
    for remat in (False, True):
        program = jax.jit(partial(gradient, tower.clone(remat=remat)))
        results.append(program(variables, images))
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", TOWERS)
def test_the_backward_pass_computes_maps_again(name):
    """As many more convolutions as there are in the forward pass."""
    tower, images = TOWERS[name], jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(lambda: tower.init(jax.random.key(0), images, train=False))
    counts = []
    for remat in (False, True):
        program = jax.jit(partial(gradient, tower.clone(remat=remat)))
        text = program.lower(variables, images).as_text()
        counts.append(text.count("stablehlo.convolution") + text.count("stablehlo.dot_general"))
    kernels = [a for a in jax.tree.leaves(variables["params"]) if a.ndim == 4]
    assert counts[1] - counts[0] > len(kernels) / 2


def test_a_tower_that_cannot_is_refused(tmp_path_factory):
    with shrunk(recipe_file("omniglot"), tmp_path_factory.getbasetemp()).unlocked() as config:
        config.model.remat = True
    with pytest.raises(ValueError, match=r"remat is for the towers .*vgg.*; got koch"):
        recipe.validate(config)
