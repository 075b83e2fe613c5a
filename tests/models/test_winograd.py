import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from siamjax.models import winograd


def plain(x, kernel, padding):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def compare(x, kernel, size, tolerance, padding=((0, 0), (0, 0))):
    def both(convolve):
        def value(x, kernel):
            y, back = jax.vjp(convolve, x, kernel)
            return y, *back(slope)

        return jax.jit(value)(x, kernel)

    shape = jax.eval_shape(lambda x, kernel: plain(x, kernel, padding), x, kernel).shape
    slope = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    values = both(lambda x, kernel: winograd.convolve(x, kernel, size, padding))
    expected = both(lambda x, kernel: plain(x, kernel, padding))
    for got, want in zip(values, expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=tolerance * float(jnp.abs(want).max()))


@pytest.mark.parametrize(("size", "taps"), [(4, 2), (4, 3), (6, 2), (6, 3), (6, 4)])
def test_values_and_gradients_are_those_of_the_plain_convolution(size, taps):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 9, 4, 4)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(taps, taps, 4, 5)), jnp.float32)
    compare(x, kernel, size, 1e-5, ((1, 2), (0, 1)))


def test_many_channels_of_maps_after_a_relu():
    rng = np.random.default_rng(0)
    x = jnp.maximum(jnp.asarray(rng.normal(size=(4, 15, 15, 256)), jnp.float32), 0)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 256, 64)) / 48, jnp.float32)
    compare(x, kernel, 4, 3e-6)
    compare(x, kernel, 6, 1e-5)


def test_groups_of_images_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(6, 9, 8, 4)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 4, 5)), jnp.float32)
    none = ((0, 0), (0, 0))
    assert len(winograd._in_groups(x, kernel, 6, none)) == 1
    for most, groups in ((9_000, 2), (6_000, 3), (1, 6)):  # 2,880 bytes an image
        monkeypatch.setattr(winograd, "AT_ONCE", most)
        assert len(winograd._in_groups(x, kernel, 6, none)) == groups
        compare(x, kernel, 6, 1e-5)


@pytest.mark.parametrize(("size", "taps"), [(4, 2), (4, 3), (6, 2), (6, 3), (6, 4)])
def test_the_matrices_are_exact(size, taps):
    tile, kernel, back = (m.astype(np.float64) for m in winograd._matrices(size, taps))
    rng = np.random.default_rng(0)
    row, weights = rng.normal(size=size), rng.normal(size=taps)
    block = back @ ((tile @ row) * (kernel @ weights))
    np.testing.assert_allclose(block, np.correlate(row, weights), atol=1e-6)


def test_the_quickest_way_as_measured():
    assert winograd.tile((16, 107, 107, 64), (3, 3, 64, 64)) == 6  # VGG's second convolution
    assert winograd.tile((16, 15, 15, 512), (3, 3, 512, 512)) == 6
    assert winograd.tile((32, 8, 8, 512), (3, 3, 512, 512)) == 4  # its last ones at batch 16
    assert winograd.tile((240, 10, 10, 96), (3, 3, 96, 96)) is None  # slower within a small ResNet
    assert winograd.tile((128, 15, 15, 64), (2, 2, 64, 64)) is None
    assert winograd.tile((64, 24, 24, 128), (4, 4, 128, 128)) == 6  # Koch's third
    assert winograd.tile((16, 107, 107, 3), (3, 3, 3, 64)) is None  # too few channels
    assert winograd.tile((1, 8, 8, 512), (3, 3, 512, 512)) is None  # its kernel costs too much
    assert winograd.tile((64, 48, 48, 64), (7, 7, 64, 128)) is None  # too large a kernel
    assert winograd.tile((64, 48, 48, 64), (3, 1, 64, 64)) is None
    assert winograd.tile((64, 48, 48, 64), (1, 1, 64, 64)) is None
