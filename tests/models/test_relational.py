import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models.relational import Relational

HEAD = Relational(embedding=3, grid=2, channels=4, hidden=5)
SIZE = 3 + 4 * 4


def rows(n, seed):
    return jax.random.normal(jax.random.key(seed), (n, SIZE))


@pytest.fixture(scope="module")
def variables():
    """Fresh parameters, moved a little: biases are 0 and norms 1 at the start."""
    fresh = jax.jit(HEAD.init)(jax.random.key(0), rows(2, 1), rows(2, 2))
    key = jax.random.key(3)
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), fresh)


def norm(x, p):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def towards(p, a, b):
    """r(a, b) by loops over places."""
    a, b = (z[3:].reshape(4, 4) for z in (a, b))
    query = (norm(a, p["query_norm"]) + p["place"]) @ p["query"]["kernel"]
    key = (norm(b, p["key_norm"]) + p["place"]) @ p["key"]["kernel"]
    seen = []
    for i in range(4):
        match = np.exp([query[i] @ key[j] / 2 + p["nearness"][i, j] for j in range(4)])
        found = sum(m * b[j] for j, m in enumerate(match)) / match.sum()
        evidence = np.abs(a[i] - found) @ p["evidence"]["kernel"] + p["evidence_bias"][i]
        seen.append(np.maximum(evidence, 0))
    summary = np.mean(seen, 0) @ p["summary"]["kernel"] + p["summary"]["bias"]
    return np.maximum(summary, 0) @ p["output"]["kernel"][:, 0] + p["output"]["bias"][0]


def test_equals_a_slow_loop(variables):
    left, right = rows(3, 4), rows(3, 5)
    p = jax.tree.map(np.asarray, variables["params"])
    expected = []
    for a, b in zip(np.asarray(left), np.asarray(right), strict=True):
        cosine = a[:3] @ b[:3] / np.linalg.norm(a[:3]) / np.linalg.norm(b[:3])
        relation = (towards(p, a, b) + towards(p, b, a)) / 2
        expected.append(np.exp(p["log_scale"]) * (cosine - p["midpoint"]) + relation)
    got = jax.jit(HEAD.apply)(variables, left, right).value
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_set_costs_less_and_gives_the_same(variables):
    z = rows(10, 6).reshape(2, 5, SIZE)
    among = HEAD.apply(variables, z, method="among").value
    pairs = HEAD.apply(variables, z[:, :, None], z[:, None]).value
    assert among.shape == (2, 5, 5)
    np.testing.assert_allclose(among, pairs, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(among, among.swapaxes(-1, -2))


def test_attention_starts_near_its_own_place():
    nearness = HEAD.init(jax.random.key(0), rows(1, 1), rows(1, 2))["params"]["nearness"]
    np.testing.assert_allclose(nearness[0], [0, -0.5, -0.5, -1])


def test_embeddings_of_another_size_are_refused_with_the_remedy():
    z = jnp.ones((2, SIZE + 1))
    with pytest.raises(
        ValueError, match=r"19 numbers, 3 and 2 x 2 tokens of 4; got 20: give the\s"
    ):
        HEAD.init(jax.random.key(0), z, z)
