import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models.small_cnn import SmallCnn


def test_parameters_are_those_of_the_reference():
    shapes = jax.eval_shape(
        lambda: SmallCnn().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), train=False)
    )["params"]
    count = {k: sum(leaf.size for leaf in jax.tree.leaves(v)) for k, v in shapes.items()}
    assert count == {"conv1": 320, "conv2": 16_448, "dense": 3_120}
    assert sum(count.values()) == 19_888


def by_loops(x, params):
    """One image [h, w, c] through the tower, in NumPy."""
    for name in ("conv1", "conv2"):
        kernel, bias = (np.asarray(params[name][k]) for k in ("kernel", "bias"))
        h, w, _ = x.shape
        padded = np.pad(x, ((0, 1), (0, 1), (0, 0)))  # at the bottom and at the right
        y = np.zeros((h, w, kernel.shape[-1]))
        for i in range(h):
            for j in range(w):
                y[i, j] = np.einsum("abc,abcd->d", padded[i : i + 2, j : j + 2], kernel) + bias
        y = np.maximum(y, 0)[: h // 2 * 2, : w // 2 * 2]
        x = y.reshape(h // 2, 2, w // 2, 2, -1).max((1, 3))
    return x.mean((0, 1)) @ np.asarray(params["dense"]["kernel"]) + np.asarray(
        params["dense"]["bias"]
    )


@pytest.mark.parametrize("initial", ["glorot", "he"])
def test_equals_a_slow_loop_on_odd_sizes(initial):
    x = np.random.default_rng(0).normal(size=(2, 9, 6, 3)).astype(np.float32)
    tower = SmallCnn(initial=initial, features=(4, 5), embedding=3)
    params = tower.init(jax.random.key(0), jnp.asarray(x), train=False)["params"]
    params = jax.tree.map(lambda p: p + 0.01, params)  # biases that are not 0
    got = tower.apply({"params": params}, jnp.asarray(x), train=False)
    np.testing.assert_allclose(got, [by_loops(image, params) for image in x], rtol=1e-4, atol=1e-5)


def test_dropout_in_training_only():
    x = jnp.ones((2, 8, 8, 1))
    tower = SmallCnn(features=(8, 8), embedding=4)
    variables = tower.init(jax.random.key(0), x, train=False)
    first, second = (
        tower.apply(variables, x, train=True, rngs={"dropout": jax.random.key(i)}) for i in range(2)
    )
    assert not np.allclose(first, second)
    assert not np.allclose(first[0], first[1])  # two equal images, two masks


def test_too_small_images_and_unknown_inits_are_refused():
    with pytest.raises(ValueError, match=r"halves its maps 2 times.*at least 4x4; got 3x8"):
        SmallCnn().init(jax.random.key(0), jnp.ones((1, 3, 8, 1)), train=False)
    with pytest.raises(ValueError, match="small_cnn knows init glorot, he; got 'paper'"):
        SmallCnn(initial="paper").init(jax.random.key(0), jnp.ones((1, 8, 8, 1)), train=False)
