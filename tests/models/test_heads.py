import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models import HEADS
from siamjax.types import Distance, Logit

RNG = np.random.default_rng(0)
A, B = (jnp.asarray(RNG.normal(size=(5, 6)), jnp.float32) for _ in range(2))


@pytest.fixture(params=sorted(HEADS))
def head(request):
    module = HEADS[request.param]()
    variables = module.init(jax.random.key(0), A, B)
    return lambda left, right: module.apply(variables, left, right)


def test_symmetric(head):
    np.testing.assert_array_equal(head(A, B).value, head(B, A).value)


def test_similarity_lies_in_0_1(head):
    far = head(100 * A, -100 * B).similarity
    assert float(far.min()) >= 0
    assert float(far.max()) <= 1


def test_each_row_is_independent_of_the_others(head):
    np.testing.assert_array_equal(head(A, B).value[2:3], head(A[2:3], B[2:3]).value)


def test_all_pairs_equal_row_wise(head):
    table = head(A[:, None], B[None, :]).value
    assert table.shape == (5, 5)
    np.testing.assert_allclose(table[1, 4], head(A[1:2], B[4:5]).value[0], rtol=1e-6)


def test_gradient_is_finite_at_identical_embeddings(head):
    gradient = jax.grad(lambda a: head(a, A).value.sum())(A)
    assert bool(jnp.isfinite(gradient).all())


@pytest.mark.parametrize("name", ["euclidean", "cosine"])
def test_nothing_is_more_alike_than_an_image_and_itself(name):
    module = HEADS[name]()
    variables = module.init(jax.random.key(0), A, B)
    own = module.apply(variables, A, A).similarity
    assert (own >= module.apply(variables, A, B).similarity).all()


def test_weighted_l1_by_hand():
    module = HEADS["weighted_l1"]()
    params = {"kernel": jnp.array([[2.0], [-1.0]]), "bias": jnp.array([0.5])}
    left, right = jnp.array([[1.0, 5.0]]), jnp.array([[4.0, 3.0]])
    output = module.apply({"params": params}, left, right)
    assert isinstance(output, Logit)
    assert float(output.value[0]) == 2 * 3 - 2 + 0.5


def test_euclidean_midpoint_decides_and_is_similarity_one_half():
    module = HEADS["euclidean"](midpoint=2.0)
    left, right = jnp.array([[0.0], [0.0], [0.0]]), jnp.array([[0.0], [2.0], [4.0]])
    output = module.apply({}, left, right)
    assert isinstance(output, Distance)
    np.testing.assert_allclose(output.similarity, [1.0, 0.5, 0.25])
    assert output.same.tolist() == [True, False, False]


def test_cosine_starts_at_its_scale_and_midpoint():
    module = HEADS["cosine"](scale=4.0, midpoint=0.25)
    left, right = jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 0.0]])
    output = module.apply(module.init(jax.random.key(0), left, right), left, right)
    assert float(output.value[0]) == pytest.approx(4 * (1 - 0.25), rel=1e-6)
