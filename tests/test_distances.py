import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax import distances

A = jnp.array([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0]])
B = jnp.array([[1.0, 0.0, 3.0], [3.0, 4.0, 1.0]])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (distances.l1, [2.0, 7.0]),
        (distances.squared_l2, [4.0, 25.0]),
        (distances.l2, [2.0, 5.0]),
        # (1 + 0 + 9) / sqrt(14 * 10), 1 / sqrt(1 * 26)
        (distances.cosine_similarity, [10 / 140**0.5, 1 / 26**0.5]),
    ],
)
def test_row_wise_values_and_all_pairs_agree(function, expected):
    np.testing.assert_allclose(function(A, B), expected, rtol=1e-6)
    matrix = function(A[:, None], B[None, :])
    assert matrix.shape == (2, 2)
    np.testing.assert_allclose(np.diag(matrix), expected, rtol=1e-6)
    np.testing.assert_allclose(matrix[0, 1], function(A[:1], B[1:])[0], rtol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 1e-7])
def test_gradient_of_l2_is_zero_at_identical_rows_and_unit_elsewhere(epsilon):
    gradient = jax.grad(lambda a: distances.l2(a, A, epsilon).sum())
    np.testing.assert_array_equal(gradient(A), np.zeros_like(A))
    away = jax.grad(lambda a: distances.l2(a, B, epsilon).sum())(A)
    np.testing.assert_allclose(away, [[0, 1, 0], [-0.6, -0.8, 0]], atol=1e-6)


def test_l1_has_no_slope_where_rows_are_equal():
    gradient = jax.grad(lambda a: distances.l1(a, B).sum())(A)
    np.testing.assert_array_equal(gradient, [[0, 1, 0], [-1, -1, 0]])


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_lp_by_its_definition_with_a_zero_gradient_at_identical_rows(p):
    expected = [2.0, (3**p + 4**p) ** (1 / p)]
    np.testing.assert_allclose(distances.lp(A, B, p), expected, rtol=1e-6)
    np.testing.assert_allclose(distances.lp(B, A, p), expected, rtol=1e-6)
    gradient = jax.grad(lambda a: distances.lp(a, A, p).sum())(A)
    np.testing.assert_array_equal(gradient, np.zeros_like(A))
    away = jax.grad(lambda a: distances.lp(a, B, p).sum())(A)
    last = [-((3 / expected[1]) ** (p - 1)), -((4 / expected[1]) ** (p - 1)), 0]
    np.testing.assert_allclose(away, [[0, 1, 0], last], atol=1e-6)


def test_lp_is_euclidean_unless_told_otherwise():
    a, b = jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 4.0]])
    assert float(distances.lp(a, b)[0]) == 5.0


def test_short_distances_have_no_floor_by_default():
    a, b = jnp.array([[0.5, 0.0]]), jnp.zeros((1, 2))
    assert float(distances.l2(a, b)[0]) == float(distances.lp(a, b)[0]) == 0.5
    assert float(distances.lp(a, b, p=3)[0]) == pytest.approx(0.5)
    assert distances.unit(a).tolist() == [[1.0, 0.0]]


def test_lp_has_a_floor_and_refuses_what_is_no_distance():
    assert float(distances.lp(A, A, 3, 8e-3)[0]) == pytest.approx(0.2)
    for p in (0.5, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="must be finite and at least 1"):
            distances.lp(A, B, p)


def test_epsilon_is_a_floor_of_the_squared_distance():
    assert float(distances.l2(A, A, 1e-4)[0]) == pytest.approx(1e-2)
    assert float(distances.l2(A, B, 1e-4)[1]) == pytest.approx(5.0)


def test_unit_keeps_zero_rows_with_zero_gradient():
    rows = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(distances.unit(rows), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    gradient = jax.grad(lambda r: distances.unit(r).sum())(rows)
    assert bool(jnp.isfinite(gradient).all())
    np.testing.assert_array_equal(gradient[1], [0, 0])
