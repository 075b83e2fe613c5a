import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models.dropout import Dropout, hashed_mask


def apply(x, rate=0.3, train=True, seed=0):
    return Dropout(rate).apply({}, x, train=train, rngs={"dropout": jax.random.key(seed)})


def test_drops_its_share_and_keeps_the_mean():
    y = np.asarray(apply(jnp.ones((100, 1000))))
    assert set(np.unique(y)) == {0, np.float32(1 / 0.7)}
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.005)
    # Rows and columns too: neighbours in memory are not alike.
    assert (y == 0).mean(0).std() == pytest.approx((0.21 / 100) ** 0.5, rel=0.1)
    assert (y == 0).mean(1).std() == pytest.approx((0.21 / 1000) ** 0.5, rel=0.2)


def test_masks_of_two_keys_are_independent():
    a, b = (np.asarray(hashed_mask(jax.random.key(i), (10**5,), 0.5)) for i in (0, 1))
    assert (a == b).mean() == pytest.approx(0.5, abs=0.01)
    for lag in (1, 2, 64, 49 * 64):
        assert (a[lag:] == a[:-lag]).mean() == pytest.approx(0.5, abs=0.01)


def test_the_same_key_gives_the_same_mask():
    x = jnp.ones((4, 5))
    np.testing.assert_array_equal(apply(x), apply(x))
    assert (apply(x) != apply(x, seed=1)).any()


def test_out_of_training_nothing_happens():
    x = jnp.arange(6.0)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, train=False), x)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, train=True), x)


def test_what_is_dropped_gets_no_gradient():
    x = jnp.ones((50,))
    slope = jax.grad(lambda x: apply(x).sum())(x)
    np.testing.assert_array_equal(slope, apply(x))


def test_other_backends_use_flax(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    y = np.asarray(apply(jnp.ones((10_000,))))
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.03)
