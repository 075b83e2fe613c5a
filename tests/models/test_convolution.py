import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models.convolution import max_pool


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
    np.testing.assert_array_equal(max_pool(x), reference(x))
    weight = jnp.asarray(np.random.default_rng(1).normal(size=max_pool(x).shape), jnp.float32)
    gradient = jax.grad(lambda x: (max_pool(x) * weight).sum())(x)
    expected = jax.grad(lambda x: (reference(x) * weight).sum())(x)
    np.testing.assert_array_equal(gradient, expected)


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


def test_bfloat16_keeps_its_type():
    x = images("normal", (1, 4, 4, 1)).astype(jnp.bfloat16)
    assert max_pool(x).dtype == jnp.bfloat16
    assert jax.grad(lambda x: max_pool(x).sum())(x).dtype == jnp.bfloat16
