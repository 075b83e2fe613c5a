import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax import losses
from siamjax.types import Distance, Logit


def test_bce_equals_the_textbook_formula_on_probabilities():
    z = jnp.linspace(-6, 6, 25)
    p = 1 / (1 + np.exp(-np.asarray(z, np.float64)))
    for same, expected in ((True, -np.log(p)), (False, -np.log(1 - p))):
        value = losses.bce(Logit(z), jnp.full(z.shape, same))
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_bce_is_finite_at_huge_logits():
    z = Logit(jnp.array([1e4, -1e4]))
    value = losses.bce(z, jnp.array([False, True]))
    np.testing.assert_allclose(value, [1e4, 1e4])


def test_contrastive_by_hand():
    d = Distance(jnp.array([0.25, 2.0, 0.25, 2.0]))
    same = jnp.array([True, True, False, False])
    np.testing.assert_allclose(losses.contrastive(d, same), [0.0625, 4.0, 0.5625, 0.0])


def test_contrastive_has_no_gradient_for_different_pairs_beyond_the_margin():
    def total(values, same):
        return losses.contrastive(Distance(values), jnp.array([same])).sum()

    assert float(jax.grad(total)(jnp.array([1.5]), False)[0]) == 0.0
    assert float(jax.grad(total)(jnp.array([0.5]), False)[0]) == pytest.approx(-1.0)
    assert float(jax.grad(total)(jnp.array([0.5]), True)[0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("loss", "output", "text"),
    [
        (losses.bce, Distance(jnp.zeros(1)), "bce needs a head that gives a logit"),
        (losses.contrastive, Logit(jnp.zeros(1)), "contrastive needs a head that gives a distance"),
    ],
)
def test_a_loss_refuses_the_wrong_kind_of_output(loss, output, text):
    with pytest.raises(ValueError, match=text):
        loss(output, jnp.array([True]))


def nca_by_loops(score, same, mask):
    result = np.zeros(len(score))
    for i in range(len(score)):
        partners = [j for j in range(len(score)) if mask[i, j] and same[i, j]]
        others = [j for j in range(len(score)) if mask[i, j]]
        if partners:
            alike = sum(np.exp(score[i, j]) for j in partners)
            result[i] = -np.log(alike / sum(np.exp(score[i, j]) for j in others))
    return result


@pytest.mark.parametrize("seed", range(3))
def test_nca_equals_a_slow_loop(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 8)
    same = labels[:, None] == labels
    mask = (rng.random((8, 8)) < 0.6) & ~np.eye(8, dtype=bool)
    value = rng.normal(size=(8, 8)).astype(np.float32)
    for output, score in ((Logit, value), (Distance, -(value**2))):
        got = losses.nca(output(jnp.asarray(value)), jnp.asarray(same), jnp.asarray(mask))
        np.testing.assert_allclose(got, nca_by_loops(score, same, mask), rtol=2e-5, atol=1e-6)


def test_nca_without_partners_costs_nothing_and_its_gradient_is_zero():
    nobody = jnp.zeros((4, 4), bool)
    gradient = jax.grad(lambda v: losses.nca(Logit(v), nobody, nobody).sum())(jnp.ones((4, 4)))
    np.testing.assert_array_equal(gradient, np.zeros((4, 4)))
