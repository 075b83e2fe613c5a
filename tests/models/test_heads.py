import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models import HEADS
from siamjax.models.heads import (
    Cosine,
    Euclidean,
    EuclideanDense,
    EuclideanNormDense,
    L1Mlp,
    WeightedL1,
)
from siamjax.models.relational import Relational
from siamjax.types import Distance, Logit

RNG = np.random.default_rng(0)
A, B = (jnp.asarray(RNG.normal(size=(5, 6)), jnp.float32) for _ in range(2))


# Those of which nothing is more alike than an image and itself, whatever the weights.
LARGEST_AT_0 = {
    "euclidean": Euclidean(),
    "euclidean_p1": Euclidean(p=1),
    "euclidean_p3": Euclidean(p=3, epsilon=1e-7),
    "cosine": Cosine(),
    "weighted_l1_nonnegative": WeightedL1(nonnegative=True),
    "euclidean_dense_nonnegative": EuclideanDense(nonnegative=True),
    "euclidean_norm_dense_nonnegative": EuclideanNormDense(nonnegative=True),
    "l1_mlp_nonnegative": L1Mlp(hidden=7, nonnegative=True),
    "l1_mlp_relu_nonnegative": L1Mlp(hidden=7, activation="relu", nonnegative=True),
}
EVERY = {
    **{name: head() for name, head in HEADS.items() if name != "relational"},
    "relational": Relational(embedding=2, grid=2, channels=1, hidden=3),
    **LARGEST_AT_0,
    "euclidean_dense": EuclideanDense(nonnegative=False),
    "euclidean_norm_dense": EuclideanNormDense(nonnegative=False),
    "l1_mlp": L1Mlp(hidden=7, nonnegative=False),
    "l1_mlp_relu": L1Mlp(hidden=7, activation="relu", nonnegative=False),
}


@pytest.fixture(params=sorted(EVERY), scope="module")
def seen(request):
    """What a fresh head makes of A and B in many ways, compiled once."""
    module = EVERY[request.param]

    def look(key):
        variables = module.init(key, A, B)
        rest = {k: v for k, v in variables.items() if k != "params"}
        params = variables.get("params", {})

        def head(left, right, params=params):
            return module.apply({"params": params, **rest}, left, right)

        return {
            "pairs": head(A, B),
            "swapped": head(B, A),
            "far": head(100 * A, -100 * B).similarity,
            "one row": head(A[2:3], B[2:3]),
            "all pairs": head(A[:, None], B[None, :]),
            "left gradient": jax.grad(lambda a: head(a, A).value.sum())(A),
            "weight gradient": jax.grad(lambda p: head(A, A, p).value.sum())(params),
        }

    return jax.jit(look)(jax.random.key(0))


def test_symmetric(seen):
    np.testing.assert_array_equal(seen["pairs"].value, seen["swapped"].value)


def test_similarity_lies_in_0_1_and_falls_with_distance_or_rises_with_the_logit(seen):
    assert float(seen["far"].min()) >= 0
    assert float(seen["far"].max()) <= 1
    order = np.argsort(seen["pairs"].similarity)
    sign = -1 if isinstance(seen["pairs"], Distance) else 1
    np.testing.assert_array_equal(np.argsort(sign * np.asarray(seen["pairs"].value)), order)


def test_each_row_is_independent_of_the_others(seen):
    np.testing.assert_allclose(seen["pairs"].value[2:3], seen["one row"].value, rtol=1e-6)


def test_all_pairs_equal_row_wise(seen):
    assert seen["all pairs"].value.shape == (5, 5)
    np.testing.assert_allclose(np.diag(seen["all pairs"].value), seen["pairs"].value, rtol=2e-6)


def test_gradients_are_finite_and_of_the_embeddings_zero_at_identical_ones(seen, request):
    for leaf in jax.tree.leaves((seen["left gradient"], seen["weight gradient"])):
        assert bool(jnp.isfinite(leaf).all())
    if request.node.callspec.params["seen"] == "relational":
        return  # it compares an image's places with each other too, so its own image moves it
    # Nothing pulls an image away from itself.
    np.testing.assert_allclose(seen["left gradient"], 0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(LARGEST_AT_0))
def test_nothing_is_more_alike_than_an_image_and_itself(name):
    module = LARGEST_AT_0[name]
    variables = jax.jit(module.init)(jax.random.key(0), A, B)
    score, rng = jax.jit(module.apply), np.random.default_rng(0)
    for _ in range(5):
        if name != "cosine":  # its scale is a power of e; the others may have any weights
            variables = jax.tree.map(
                lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), variables
            )
        if "batch_stats" in variables:
            variables["batch_stats"]["norm"]["var"] = jnp.ones(1)
        own = score(variables, A, A).similarity
        assert (own >= score(variables, A, B).similarity).all()
        assert (own > score(variables, A, A + 3 * B).similarity).any()


@pytest.mark.parametrize(
    "module", [WeightedL1(nonnegative=False), L1Mlp(hidden=500, nonnegative=False)]
)
def test_nonnegative_starts_with_the_magnitudes_of_the_plain_head(module):
    wide = jnp.zeros((1, 400))
    plain = module.init(jax.random.key(0), wide, wide)["params"]
    raw = module.clone(nonnegative=True).init(jax.random.key(0), wide, wide)["params"]
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(raw), strict=True):
        if a.ndim == 2:
            np.testing.assert_allclose(np.log1p(np.exp(b)), np.abs(a), rtol=1e-3, atol=2e-6)


def test_weighted_l1_by_hand():
    module = HEADS["weighted_l1"](nonnegative=False)
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


def test_euclidean_dense_by_hand():
    params = {"dense": {"kernel": jnp.array([[-2.0]]), "bias": jnp.array([3.0])}}
    left, right = jnp.array([[3.0, 0.0], [1.0, 1.0]]), jnp.array([[0.0, 4.0], [1.0, 1.0]])
    output = EuclideanDense(nonnegative=False).apply({"params": params}, left, right)
    assert isinstance(output, Logit)
    np.testing.assert_allclose(output.value, [3 - 2 * 5, 3 - 2 * 1e-7**0.5], rtol=1e-6)


def test_l1_mlp_by_hand_with_and_without_activation():
    params = {
        "hidden": {
            "kernel": jnp.array([[1.0, -1.0], [2.0, 0.5]]),
            "bias": jnp.array([0.25, -1.0]),
        },
        "output": {"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.array([-0.5])},
    }
    left, right = jnp.array([[1.0, 5.0]]), jnp.array([[4.0, 3.0]])  # |a - b| = 3, 2
    hidden = [3 * 1 + 2 * 2 + 0.25, 3 * -1 + 2 * 0.5 - 1]
    plain = L1Mlp(hidden=2, nonnegative=False).apply({"params": params}, left, right)
    assert float(plain.value[0]) == pytest.approx(3 * hidden[0] + 4 * hidden[1] - 0.5)
    relu = L1Mlp(hidden=2, activation="relu", nonnegative=False).apply(
        {"params": params}, left, right
    )
    assert float(relu.value[0]) == pytest.approx(3 * hidden[0] - 0.5)


def test_l1_mlp_starts_as_in_pytorch_or_glorot():
    zero = jnp.zeros((1, 400))
    for initial, first, second in (
        ("torch", 400**-0.5, 500**-0.5),
        ("glorot", (6 / 900) ** 0.5, (6 / 501) ** 0.5),
    ):
        params = L1Mlp(initial=initial, hidden=500, nonnegative=False).init(
            jax.random.key(0), zero, zero
        )["params"]
        for layer, limit in (("hidden", first), ("output", second)):
            assert 0.98 * limit < float(jnp.abs(params[layer]["kernel"]).max()) <= limit
    assert float(jnp.abs(params["hidden"]["bias"]).max()) == 0


def test_l1_mlp_refuses_an_unknown_activation():
    with pytest.raises(ValueError, match="l1_mlp knows activation none, relu; got 'tanh'"):
        L1Mlp(activation="tanh", nonnegative=False).init(jax.random.key(0), A, B)


def test_the_norm_head_uses_the_batch_in_training_and_its_statistics_in_inference():
    module = EuclideanNormDense(nonnegative=False)
    variables = module.init(jax.random.key(0), A, B)
    kernel = variables["params"]["dense"]["kernel"][0, 0]
    d = jnp.sqrt(jnp.square(A - B).sum(-1))
    output, new = module.apply(variables, A, B, train=True, mutable=["batch_stats"])
    assert isinstance(output, Distance)
    z = (d - d.mean()) / jnp.sqrt(d.var() + 1e-3) * kernel
    np.testing.assert_allclose(output.value, jax.nn.sigmoid(z), rtol=1e-4)
    assert output.same.tolist() == (z < 0).tolist()
    norm = new["batch_stats"]["norm"]
    np.testing.assert_allclose(norm["mean"], 0.01 * d.mean()[None], rtol=1e-5)
    np.testing.assert_allclose(norm["var"], 0.99 + 0.01 * d.var()[None], rtol=1e-5)
    inferred = module.apply(variables | new, A, B)
    z = (d - norm["mean"]) / jnp.sqrt(norm["var"] + 1e-3) * kernel
    np.testing.assert_allclose(inferred.value, jax.nn.sigmoid(z), rtol=1e-5)


def test_the_norm_head_shares_its_statistics_over_devices():
    module = EuclideanNormDense(axis="data", nonnegative=False)
    variables = EuclideanNormDense(nonnegative=False).init(jax.random.key(0), A, B)
    left, right = (jnp.concatenate([x, 2 * x])[:8] for x in (A, B))

    def train(module, left, right):
        return module.apply(variables, left, right, train=True, mutable=["batch_stats"])

    whole, stats = train(EuclideanNormDense(nonnegative=False), left, right)
    split = jax.jit(jax.vmap(lambda a, b: train(module, a, b), axis_name="data"))
    parts, part_stats = split(left.reshape(4, 2, 6), right.reshape(4, 2, 6))
    np.testing.assert_allclose(parts.value.reshape(8), whole.value, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(part_stats), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-5)
