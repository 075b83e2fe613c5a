from functools import partial

import jax
import numpy as np
import pytest

from siamjax.models import HEADS, TOWERS, Ensemble, Siamese

RELATIONAL = {"embedding": 4, "grid": 2, "channels": 2, "hidden": 3}


def net(head, views):
    if head == "relational":
        tower = TOWERS["small_resnet"](width=2, embedding=4, tokens=2)
        return Siamese(tower, HEADS[head](**RELATIONAL), views=views)
    return Siamese(TOWERS["mlp"](features=(4,)), HEADS[head](), views=views)


@pytest.mark.parametrize(
    ("head", "views"), [("cosine", 1), ("euclidean", 4), ("relational", 1), ("l1_mlp", 1)]
)
def test_a_comparison_is_the_mean_of_the_members(head, views):
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1), np.uint8)
    model, single = Ensemble((net(head, views), net(head, views))), net(head, views)

    @jax.jit
    def ask(images):
        left, right = images[:2], images[2:]
        variables = model.init(jax.random.key(0), left, right)
        z = model.apply(variables, images, method="embed")
        compare = partial(model.apply, variables, method="compare")
        each = [{kind: tree[f"members_{i}"] for kind, tree in variables.items()} for i in range(2)]
        return {
            "pairs": model.apply(variables, left, right),
            "all": compare(z[:, None], z[None]),
            "z": z,
            "each": [single.apply(v, left, right) for v in each],
            "embedded": [single.apply(v, images, method="embed") for v in each],
        }

    found = ask(images)
    each = [output.value for output in found["each"]]
    assert np.ptp(each, 0).min() > 1e-5  # two nets, not one twice
    expected, table = np.mean(each, 0), found["all"].value
    np.testing.assert_allclose(found["pairs"].value, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.diagonal(table[:2, 2:]), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table, table.T, rtol=1e-5, atol=1e-6)
    together = np.concatenate(found["embedded"], -1)
    np.testing.assert_allclose(found["z"], together, rtol=1e-5, atol=1e-6)
    assert type(found["pairs"]) is type(found["each"][0])
