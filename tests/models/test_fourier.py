from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from siamjax.models import fourier


def plain(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize(
    ("size", "taps"),
    [((8, 8), (3, 3)), ((9, 7), (4, 2)), ((6, 11), (1, 5)), ((5, 5), (5, 5)), ((7, 4), (2, 2))],
)
def test_values_and_gradients_are_those_of_the_plain_convolution(size, taps):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, *size, 4)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*taps, 4, 5)), jnp.float32)
    expected = jax.eval_shape(plain, x, kernel)
    slope = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)

    def results(convolve):
        y, back = jax.vjp(convolve, x, kernel)
        return y, *back(slope)

    y, *slopes = jax.jit(partial(results, fourier.convolve))()
    expected, *expected_slopes = jax.jit(partial(results, plain))()
    np.testing.assert_allclose(y, expected, atol=2e-5)
    for got, want in zip(slopes, expected_slopes, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.abs(want).max()))


def test_only_what_it_makes_cheaper_takes_the_detour():
    assert fourier.saves((64, 48, 48, 64), (7, 7, 64, 128))  # Koch's second convolution
    assert fourier.saves((64, 21, 21, 128), (4, 4, 128, 128))
    assert fourier.saves((64, 9, 9, 128), (4, 4, 128, 256))
    assert not fourier.saves((64, 105, 105, 1), (10, 10, 1, 64))
    assert not fourier.saves((16, 105, 105, 64), (3, 3, 64, 64))  # maps too large to turn round
    assert not fourier.saves((16, 15, 15, 512), (3, 3, 512, 512))
    assert not fourier.saves((2, 6, 6, 8), (3, 3, 8, 8))
