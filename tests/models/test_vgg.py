import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models.normalisation import normalise
from siamjax.models.vgg import Vgg

RNG = np.random.default_rng(0)


def images(n=2, h=40, w=64, c=3):
    return jnp.asarray(RNG.random((n, h, w, c)), jnp.float32)


def size(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def make(tower, x):
    """Variables at random, which is quicker than to compile their initialisation."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda v: (
            jnp.asarray(rng.normal(0.1, 0.4, v.shape) ** 2, jnp.float32)
            if v.ndim == 1
            else jnp.asarray(rng.normal(0, 0.3, v.shape), jnp.float32)
        ),
        shapes(tower, *x.shape),
    )


def run(tower, variables, x):
    return jax.jit(lambda v, x: tower.apply(v, x, train=False))(variables, x)


def shapes(tower, *image):
    return jax.eval_shape(lambda: tower.init(jax.random.key(0), jnp.zeros(image), train=False))


@pytest.mark.parametrize(
    ("depth", "count"), [(11, 9_220_480), (13, 9_404_992), (16, 14_714_688), (19, 20_024_384)]
)
def test_parameters_are_those_published(depth, count):
    assert size(shapes(Vgg(depth=depth), 1, 105, 105, 3)["params"]) == count


def test_batch_norms_add_two_parameters_and_two_statistics_a_channel():
    variables = shapes(Vgg(batch_norm=True), 1, 32, 32, 3)
    channels = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
    assert size(variables["params"]) == 14_714_688 + 2 * channels
    assert size(variables["batch_stats"]) == 2 * channels


def test_maps_are_3_by_3_at_105_and_a_grey_kernel_has_one_channel():
    tower = Vgg()
    embedding = jax.eval_shape(
        lambda x: tower.init_with_output(jax.random.key(0), x, train=False)[0],
        jnp.zeros((2, 105, 105, 1)),
    )
    assert embedding.shape == (2, 3 * 3 * 512)
    grey = shapes(tower, 1, 105, 105, 1)["params"]["conv1_1"]["kernel"]
    assert grey.shape == (3, 3, 1, 64)


def test_layers_by_hand():
    """Conv, ReLU, pool in the order of the paper; ours pools first, which must not show."""
    tower, x = Vgg(depth=11, divide=16), images()
    params = make(tower, x)["params"]

    def by_hand(params, x):
        for names in (["1_1"], ["2_1"], ["3_1", "3_2"], ["4_1", "4_2"], ["5_1", "5_2"]):
            for name in names:
                layer = params[f"conv{name}"]
                x = jax.lax.conv_general_dilated(
                    x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                x = nn.relu(x + layer["bias"])
            x = nn.max_pool(x, (2, 2), (2, 2))
        return x.reshape(len(x), -1)

    def apply(params, x):
        return tower.apply({"params": params}, x, train=True)

    weight = jnp.asarray(RNG.normal(size=(2, 64)), jnp.float32)

    def both(function):
        def loss(params):
            z = function(params, x)
            return (z * weight).sum(), z

        gradient, z = jax.jit(jax.grad(loss, has_aux=True))(params)
        return z, gradient

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(b).max()))

    jax.tree.map(close, both(apply), both(by_hand))


@pytest.mark.parametrize("initial", ["kaiming", "he"])
def test_kernels_are_kaiming_normal_by_fan_out(initial):
    tower, x = Vgg(initial=initial, divide=2), images(1, 32, 32)
    layer = jax.jit(lambda: tower.init(jax.random.key(0), x, train=False)["params"]["conv3_1"])()
    kernel = np.asarray(layer["kernel"])  # 64 -> 128 channels
    assert kernel.std() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.01)
    assert np.abs(kernel).max() > 3.5 * kernel.std()  # not truncated at two deviations
    assert not np.asarray(layer["bias"]).any()


def test_batch_norms_learn_their_statistics_in_training_only():
    tower, x = Vgg(depth=11, batch_norm=True, divide=32), images(4, 32, 32)
    variables = make(tower, x)
    old = variables["batch_stats"]["norm1_1"]

    def statistics(variables, train):
        _, new = tower.apply(variables, x, train=train, mutable=["batch_stats"])
        return new["batch_stats"]["norm1_1"]

    changed, kept = (jax.jit(statistics, static_argnums=1)(variables, t) for t in (True, False))
    kernel, bias = (variables["params"]["conv1_1"][k] for k in ("kernel", "bias"))
    raw = bias + jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    mean, variance = raw.mean((0, 1, 2)), raw.var((0, 1, 2))
    np.testing.assert_allclose(changed["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(changed["var"], 0.9 * old["var"] + 0.1 * variance, rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, kept, old)


def test_a_replicated_grey_image_is_three_equal_colours():
    grey = images(2, 32, 32, 1)
    colour = jnp.repeat(grey, 3, -1)
    tower = Vgg(depth=11, divide=32, normalise="imagenet", replicate_grey=True)
    variables = make(tower, grey)
    assert variables["params"]["conv1_1"]["kernel"].shape == (3, 3, 3, 2)
    np.testing.assert_allclose(
        run(tower, variables, grey), run(tower, variables, colour), rtol=1e-6
    )


def test_each_tower_normalises_its_own_pixels():
    x = images(2, 32, 32)
    plain = Vgg(depth=11, divide=32)
    variables = make(plain, x)
    for name in ("imagenet", "tf"):
        normed = run(plain.clone(normalise=name), variables, x)
        outside = run(plain, variables, normalise(x, name))
        np.testing.assert_allclose(normed, outside, rtol=1e-5, atol=1e-6)
        assert float(jnp.abs(normed - run(plain, variables, x)).max()) > 1e-3


def test_normalisations_by_hand():
    red = jnp.array([[[[1.0, 0.0, 0.5]]]])
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    np.testing.assert_allclose(normalise(red, "imagenet")[0, 0, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(normalise(red, "tf")[0, 0, 0], [1, -1, 0])
    for name in ("none", "unit"):
        np.testing.assert_array_equal(normalise(red, name), red)
    grey = normalise(jnp.full((1, 1, 1, 1), 0.5), "imagenet")
    assert float(grey[0, 0, 0, 0]) == pytest.approx((0.5 - 0.449) / 0.226, rel=1e-5)
    assert normalise(jnp.zeros((1, 1, 1, 1)), "tf", replicate_grey=True).shape == (1, 1, 1, 3)


def test_bfloat16_computes_in_it_and_keeps_float32_parameters():
    x = images(1, 32, 32)
    tower = Vgg(depth=11, divide=32, batch_norm=True, normalise="imagenet", dtype=jnp.bfloat16)
    z, variables = jax.eval_shape(lambda: tower.init_with_output(jax.random.key(0), x, train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert z.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "shape", "text"),
    [
        ({"depth": 12}, (1, 32, 32, 3), "vgg has depth 11, 13, 16, 19; got 12"),
        ({"initial": "paper"}, (1, 32, 32, 3), "vgg knows init kaiming, he; got 'paper'"),
        ({"divide": 3}, (1, 32, 32, 3), "vgg's divide must divide 64; got 3"),
        ({}, (1, 31, 64, 3), "at least 32x32; got 31x64"),
        ({"normalise": "z"}, (1, 32, 32, 3), "one of none, unit, tf, imagenet; got 'z'"),
        ({"normalise": "tf"}, (1, 32, 32, 2), "1 or 3 channels; got 2"),
    ],
)
def test_refusals(options, shape, text):
    with pytest.raises(ValueError, match=text):
        shapes(Vgg(**options), *shape)
