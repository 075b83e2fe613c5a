import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.models.attention import SelfAttention
from siamjax.models.small_resnet import SmallResNet

LAYER = SelfAttention(heads=2)


@pytest.fixture(scope="module")
def variables():
    """Fresh parameters, moved: the branch is 0 at the start."""
    fresh = jax.jit(LAYER.init)(jax.random.key(0), maps(1))
    leaves, structure = jax.tree.flatten(fresh)
    rng = np.random.default_rng(1)
    moved = [leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, moved)


def maps(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 2, 3, 4)), jnp.float32)


def test_a_fresh_one_changes_nothing():
    x = maps(2)
    found = jax.jit(lambda: LAYER.init_with_output(jax.random.key(0), x)[0])()
    np.testing.assert_array_equal(found, x)


def test_equals_a_slow_loop(variables):
    x = maps(2, seed=5)
    p = jax.tree.map(np.asarray, variables["params"])
    norm, a = p["LayerNorm_0"], p["attention"]
    expected = []
    for rows in np.asarray(x).reshape(2, 6, 4):
        z = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-6)
        z = z * norm["scale"] + norm["bias"] + p["place"]
        out = rows + a["out"]["bias"]
        for head in range(2):
            query, key, value = (
                z @ a[name]["kernel"][:, head] + a[name]["bias"][head]
                for name in ("query", "key", "value")
            )
            for i in range(6):
                match = np.exp([query[i] @ key[j] / 2**0.5 for j in range(6)])
                seen = sum(m * v for m, v in zip(match, value, strict=True)) / match.sum()
                out[i] += seen @ a["out"]["kernel"][head]
        expected.append(out.reshape(2, 3, 4))
    found = jax.jit(LAYER.apply)(variables, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("heads", [0, 3, -2])
def test_heads_that_do_not_divide_the_channels_are_refused(heads):
    with pytest.raises(ValueError, match=f"must divide the 4 channels of its map; got {heads}"):
        jax.eval_shape(SelfAttention(heads).init, jax.random.key(0), maps(1))


def test_a_token_of_the_tower_then_sees_the_whole_image():
    """Without it, what is drawn in one corner of 64 pixels does not reach the opposite token."""
    images = np.random.default_rng(0).random((1, 64, 64, 1), np.float32)
    changed = images.copy()
    changed[:, :2, :2] = 1 - changed[:, :2, :2]
    both = jnp.concatenate([jnp.asarray(images), jnp.asarray(changed)])
    for heads in (0, 2):
        tower = SmallResNet(width=4, embedding=6, tokens=2, attention=heads)

        def last_tokens(tower=tower, heads=heads):
            variables = tower.init(jax.random.key(0), both[:1], train=False)
            params = dict(variables["params"])
            if heads:
                out = params["attention"]["attention"]["out"]
                out["kernel"] = 0.3 * jax.random.normal(jax.random.key(1), out["kernel"].shape)
            z = tower.apply({**variables, "params": params}, both, train=False)
            return z[:, -2:]  # of the place at the lower right

        one, other = jax.jit(last_tokens)()
        assert (np.abs(one - other).max() > 1e-6) == (heads > 0)
