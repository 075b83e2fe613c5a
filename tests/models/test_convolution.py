import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax import backend
from siamjax.models import winograd
from siamjax.models.convolution import ConvPool, conv_pool, convolve, max_pool


def reference(x):
    return nn.max_pool(x, (2, 2), (2, 2))


def images(kind, shape):
    if kind == "flat":  # every block ties everywhere, as on paper
        return jnp.zeros(shape)
    rng = np.random.default_rng(0)
    if kind == "two-valued":  # ties in most blocks, at every pattern of corners
        return jnp.asarray(rng.integers(0, 2, shape), jnp.float32)
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (3, 7, 5, 2)])
@pytest.mark.parametrize("kind", ["flat", "two-valued", "normal"])
def test_value_and_gradient_equal_xla_s_ties_included(kind, shape):
    x = images(kind, shape)
    weight = np.random.default_rng(1).normal(size=reference(x).shape).astype(np.float32)

    def results(pool):
        y, back = jax.vjp(pool, x)
        return y, *back(weight)

    for mine, theirs in zip(results(max_pool), results(reference), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_gradient_on_real_characters_equals_xla_s(real_data):
    import zipfile

    from PIL import Image

    with zipfile.ZipFile(real_data / "omniglot" / "images_background.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".png"))[:4]
        pixels = [np.asarray(Image.open(archive.open(n)).convert("L")) for n in names]
    x = jnp.asarray(np.stack(pixels)[..., None], jnp.float32) / 255
    gradient = jax.grad(lambda x: jnp.square(max_pool(x)).sum())(x)
    expected = jax.grad(lambda x: jnp.square(reference(x)).sum())(x)
    np.testing.assert_array_equal(gradient, expected)
    assert float(jnp.abs(gradient).sum()) > 0


@pytest.mark.parametrize("images_at_once", [1, 2, 9, 11])
def test_any_number_of_images_is_pooled_in_parts_that_come_out_even(images_at_once):
    x = images("two-valued", (images_at_once, 4, 6, 2))
    gradient = jax.grad(lambda x: jnp.square(max_pool(x) - 2).sum())(x)
    expected = jax.grad(lambda x: jnp.square(reference(x) - 2).sum())(x)
    np.testing.assert_array_equal(gradient, expected)


def test_the_map_before_a_pool_is_not_kept_for_the_backward_pass():
    def loss(kernel, dense, x):
        y = max_pool(nn.Conv(32, (5, 5), padding="VALID").apply({"params": kernel}, x))
        return jnp.square(jnp.tanh(y.reshape(len(y), -1) @ dense)).sum()

    x, dense = images("normal", (16, 68, 68, 1)), images("normal", (32**3, 64))
    kernel = {"kernel": jnp.ones((5, 5, 1, 32)), "bias": jnp.zeros(32)}
    step = backend.jit(jax.grad(loss, argnums=(0, 1))).lower(kernel, dense, x).compile()
    map_bytes = 16 * 64 * 64 * 32 * 4
    # Two gradients, one of which has the map's size; with the map itself it was 2.3 of them.
    assert step.memory_analysis().temp_size_in_bytes < 2 * map_bytes


def test_bfloat16_keeps_its_type():
    x = images("normal", (1, 4, 4, 1)).astype(jnp.bfloat16)
    assert max_pool(x).dtype == jnp.bfloat16
    assert jax.grad(lambda x: max_pool(x).sum())(x).dtype == jnp.bfloat16


class Plain(nn.Module):
    features: int
    kernel_size: tuple
    padding: str

    @nn.compact
    def __call__(self, x):
        return reference(nn.Conv(self.features, self.kernel_size, padding=self.padding)(x))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("kernel", "shape"),
    [
        ((2, 2), (3, 8, 10, 1)),
        ((2, 3), (2, 9, 7, 1)),
        ((3, 3), (2, 6, 6, 1)),
        ((2, 2), (2, 6, 6, 3)),
    ],
)
def test_conv_pool_is_a_convolution_and_a_pool(kernel, shape, padding):
    plain = Plain(5, kernel, padding)
    x = images("normal", shape)
    inner = plain.init(jax.random.key(1), x)["params"]["Conv_0"]
    inner = inner | {"bias": jnp.linspace(-1, 1, 5)}
    mine = ConvPool(5, kernel, padding, nn.initializers.lecun_normal())
    own = mine.init(jax.random.key(1), x)["params"]
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, inner)

    def loss(apply, wrap):
        def value(params, x):
            y = apply({"params": wrap(params)}, x)
            weight = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
            return (y * weight).sum(), y

        return jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))

    ours, theirs = loss(mine.apply, lambda p: p), loss(plain.apply, lambda p: {"Conv_0": p})
    for kind in ("flat", "two-valued", "normal"):
        x = images(kind, shape)
        (_, y), (d_params, d_x) = ours(inner, x)
        (_, expected), (e_params, e_x) = theirs(inner, x)
        np.testing.assert_allclose(y, expected, atol=1e-6, err_msg=kind)
        np.testing.assert_allclose(d_x, e_x, atol=1e-5, err_msg=kind)
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(d_params[name], e_params[name], atol=2e-5, err_msg=kind)


def test_conv_pool_on_real_digits_equals_the_plain_way(real_data):
    import gzip

    with gzip.open(real_data / "mnist" / "train-images-idx3-ubyte.gz") as file:
        raw = file.read(16 + 16 * 784)[16:]
    x = jnp.asarray(np.frombuffer(raw, np.uint8).reshape(16, 28, 28, 1), jnp.float32) / 255
    mine = ConvPool(8, (2, 2), "SAME", nn.initializers.glorot_uniform())
    params = mine.init(jax.random.key(0), x)["params"]
    plain = Plain(8, (2, 2), "SAME")
    gradient = jax.grad(lambda p: jnp.square(mine.apply({"params": p}, x)).sum())(params)
    expected = jax.grad(lambda p: jnp.square(plain.apply({"params": p}, x)).sum())(
        {"Conv_0": params}
    )["Conv_0"]
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(gradient[name], expected[name], rtol=1e-5)


def test_other_backends_take_the_plain_way(monkeypatch):
    x = images("normal", (2, 6, 6, 1))
    kernel = jnp.ones((2, 2, 1, 3))
    here = conv_pool(x, kernel, "SAME")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(conv_pool(x, kernel, "SAME"), here, atol=1e-6)
    assert "conv_general_dilated" in str(jax.make_jaxpr(lambda: conv_pool(x, kernel, "SAME"))())


@pytest.mark.parametrize(
    ("shape", "kernel", "strides", "padding"),
    [
        ((2, 2, 2, 5), (3, 3), (1, 1), 1),
        ((2, 2, 3, 5), (3, 3), (2, 2), 1),
        ((1, 1, 1, 4), (3, 3), (1, 1), 1),
        ((3, 2, 2, 5), (3, 1), (1, 1), ((1, 1), (0, 0))),
        ((2, 5, 5, 3), (3, 3), (2, 2), 1),
        ((2, 2, 2, 3), (3, 3), (1, 1), "SAME"),
    ],
)
def test_small_maps_convolve_to_the_same(shape, kernel, strides, padding):
    x = images("normal", shape)
    plain = nn.Conv(6, kernel, strides, padding=padding)
    quick = plain.clone(conv_general_dilated=convolve)
    params = plain.init(jax.random.key(0), x)
    np.testing.assert_allclose(quick.apply(params, x), plain.apply(params, x), atol=1e-6)
    slope, expected = (
        jax.grad(lambda v, m=module: jnp.square(m.apply(v, x)).sum())(params)
        for module in (quick, plain)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), slope, expected)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 0), (1, 2))])
@pytest.mark.parametrize("taps", [3, 4])
def test_large_convolutions_go_tile_by_tile_to_the_same(taps, padding, monkeypatch):
    monkeypatch.setattr(winograd, "tile", lambda x, kernel: 6)
    x = images("normal", (4, 17, 14, 6))
    plain = nn.Conv(5, (taps, taps), padding=padding, use_bias=False)
    quick = plain.clone(conv_general_dilated=convolve)
    params = plain.init(jax.random.key(0), x)
    assert "dot_general" in str(jax.make_jaxpr(quick.apply)(params, x))

    def both(module):
        def loss(params):
            y = module.apply(params, x)
            return jnp.square(y).sum(), y

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    for got, want in zip(*map(jax.tree.leaves, (both(quick), both(plain))), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.abs(want).max()))
