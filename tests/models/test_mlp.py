import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models.mlp import Mlp

IMAGES = jnp.asarray(np.random.default_rng(0).random((3, 4, 5, 1)), jnp.float32)


def test_parameters_are_those_of_the_keras_example():
    shapes = jax.eval_shape(
        lambda: Mlp().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), train=False)
    )["params"]
    count = {k: sum(leaf.size for leaf in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert count == {"dense1": 784 * 128 + 128, "dense2": 128 * 129, "dense3": 128 * 129}
    assert sum(count.values()) == 133_504


@pytest.mark.parametrize(("initial", "limit"), [("glorot", (6 / 220) ** 0.5), ("he", None)])
def test_inits(initial, limit):
    tower = Mlp(initial=initial, features=(200,))
    params = tower.init(jax.random.key(0), IMAGES, train=False)["params"]["dense1"]
    kernel = np.asarray(params["kernel"])  # 20 inputs, 200 units
    if limit:
        assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / 3**0.5 if limit else (2 / 20) ** 0.5, rel=0.05)
    np.testing.assert_array_equal(params["bias"], 0)


def test_by_hand():
    tower = Mlp(features=(2, 1))
    x = jnp.array([[[[1.0], [2.0]], [[3.0], [4.0]]]])  # rows are flattened one after the other
    params = {
        "dense1": {"kernel": jnp.eye(4)[:, 1:3] * jnp.array([1.0, -1.0]), "bias": jnp.zeros(2)},
        "dense2": {"kernel": jnp.array([[3.0], [5.0]]), "bias": jnp.array([0.5])},
    }
    assert float(tower.apply({"params": params}, x, train=False)[0, 0]) == 3 * 2.0 + 0.5


def test_dropout_is_between_layers_in_training_only():
    tower = Mlp(features=(50, 60), dropout=0.4)
    variables = tower.init(jax.random.key(0), IMAGES, train=False)
    plain = tower.apply(variables, IMAGES, train=False)
    keys = [{"dropout": jax.random.key(i)} for i in range(2)]
    first, second = (tower.apply(variables, IMAGES, train=True, rngs=k) for k in keys)
    assert not np.allclose(first, second)
    alone = Mlp(features=(50,), dropout=0.4)  # the last layer, and so the only one, has none
    one = {"params": {"dense1": variables["params"]["dense1"]}}
    np.testing.assert_array_equal(
        alone.apply(one, IMAGES, train=True, rngs=keys[0]), alone.apply(one, IMAGES, train=False)
    )
    # What is kept is scaled up: the mean over masks is the plain value, up to the last ReLU.
    many = jax.random.split(jax.random.key(2), 500)
    through = jax.vmap(lambda k: tower.apply(variables, IMAGES, train=True, rngs={"dropout": k}))
    safe = plain > 0.5
    assert float((through(many).mean(0) / plain)[safe].mean()) == pytest.approx(1, abs=0.05)


def test_an_unknown_init_is_refused():
    with pytest.raises(ValueError, match="mlp knows init glorot, he; got 'seed'"):
        Mlp(initial="seed").init(jax.random.key(0), IMAGES, train=False)
