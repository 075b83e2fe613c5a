import re

import jax.numpy as jnp
import numpy as np
from jax import lax

from siamjax import backend
from siamjax.models.parts import in_turn, summed_in_turn


def values(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_in_turn_is_a_map():
    x = values(3, 4, 5)

    def function(x):
        return jnp.tanh(x), x.sum(0) > 0

    for mine, theirs in zip(in_turn(function, x), lax.map(function, x), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype


def test_what_is_added_and_what_is_kept_of_several_arrays():
    x, y = values(3, 4), values(3, 4, 2, seed=1)
    total, kept = summed_in_turn(lambda x, y: (x @ y, y * x[:, None]), x, y)
    np.testing.assert_allclose(total, jnp.einsum("pi,pij->j", x, y), rtol=1e-5)
    np.testing.assert_array_equal(kept, y * x[:, :, None])


def test_a_number_that_is_none_does_not_spread():
    x = values(2, 3).at[-1].set(jnp.nan)
    np.testing.assert_array_equal(in_turn(lambda x: jnp.ones(3), x), np.ones((2, 3)))


def test_loops_share_no_zeros_that_are_copied_for_each():
    def chain(by_turns, x, weights):
        y = by_turns(lambda x: jnp.tanh(x) @ weights, x)
        z = by_turns(lambda y: jnp.sin(y) @ weights, y)
        return (y * z).sum()

    def copies(by_turns):
        x, weights = values(4, 64, 32), values(32, 32, seed=1)
        program = backend.jit(lambda x, w: chain(by_turns, x, w)).lower(x, weights).compile()
        return len(re.findall(r"f32\[4,64,32\]\S* copy\(", program.as_text()))

    assert copies(in_turn) == 0 < copies(lax.map)
