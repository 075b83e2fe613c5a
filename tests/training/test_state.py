"""Fresh states."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from siamjax.models import Siamese
from siamjax.training.state import create_state
from siamjax.types import Logit


def test_the_views_of_a_comparison_are_no_part_of_a_fresh_state():
    compared = []

    class Tower(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(4)(x.reshape(len(x), -1))

    class Head(nn.Module):
        @nn.compact
        def __call__(self, left, right, *, train):
            compared.append(left.shape)
            return Logit(nn.Dense(1)(jnp.abs(left - right))[..., 0])

    def fresh(views):
        return create_state(Siamese(Tower(), Head(), views), optax.sgd(0.1), (6, 6, 1), seed=3)

    one, eight = fresh(1), fresh(8)
    jax.tree.map(np.testing.assert_array_equal, one.params, eight.params)
    assert compared == [(1, 4), (1, 4)]  # eight comparisons would only be traced and thrown away
