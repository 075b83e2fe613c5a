import jax.numpy as jnp
import numpy as np
import pytest

from siamjax import losses
from siamjax.training.objective import Objective, comparisons
from siamjax.types import Logit, PairDraw, SetDraw

PARAMS = {
    "tower": {"conv1": {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([5.0])}},
    "head": {"kernel": jnp.array([3.0])},
}


def pairs(same, weight):
    index = jnp.arange(len(same))
    return PairDraw(index, index, jnp.array(same), jnp.array(weight, jnp.float32), index)


def groups(labels, weights):
    index = jnp.arange(np.size(labels)).reshape(np.shape(labels))
    return SetDraw(index, jnp.array(labels), 0 * index, jnp.array(weights, jnp.float32), index)


def test_penalty_sums_squares_over_matching_paths_without_one_half():
    objective = Objective("bce", losses.bce, l2=(("tower/.*/kernel", 0.1), ("head/kernel", 2.0)))
    assert float(objective.penalty(PARAMS)) == pytest.approx(0.1 * (1 + 4) + 2.0 * 9)
    objective.check(PARAMS)


def test_a_pattern_that_matches_nothing_is_refused_with_the_paths_there_are():
    objective = Objective("bce", losses.bce, l2=(("tower/conv9/kernel", 0.1),))
    expected = r"matches no parameter.*\n  head/kernel\n  tower/conv1/bias"
    with pytest.raises(ValueError, match=expected):
        objective.check(PARAMS)


def test_pairs_are_measured_one_by_one():
    draw = pairs([True, False, True], [1, 1, 0])
    objective = Objective("bce", losses.bce)
    measured = objective.measure(Logit(jnp.array([1.0, 2.0, -3.0])), draw)
    np.testing.assert_allclose(measured.loss, [0.3132617, 2.126928, 3.0485873], rtol=1e-5)
    assert measured.accuracy.tolist() == [1, 0, 0]
    assert objective.weight(draw).tolist() == [1, 1, 0]


def test_comparisons_stay_within_a_group_and_leave_out_oneself_and_the_absent():
    same, mask = comparisons(groups([[4, 4, 5], [4, 6, 6]], [[1, 1, 1], [1, 0, 1]]))
    assert mask.tolist() == [
        [False, True, True],
        [True, False, True],
        [True, True, False],
        [False, False, True],
        [False, False, False],
        [True, False, False],
    ]
    assert same.tolist()[1] == [True, True, False]
    assert same.tolist()[3] == [True, False, False]


def test_sets_average_a_pair_loss_over_each_row_and_score_the_nearest():
    draw = groups([[0, 0, 1]], [[1, 1, 1]])
    z = Logit(jnp.array([[9.0, 2.0, 1.0], [2.0, 9.0, 3.0], [1.0, 3.0, 9.0]]))
    measured = Objective("bce", losses.bce).measure(z, draw)

    def cost(x, same):
        return np.log1p(np.exp(x)) - same * x

    expected = [(cost(2, 1) + cost(1, 0)) / 2, (cost(2, 1) + cost(3, 0)) / 2]
    np.testing.assert_allclose(measured.loss[:2], expected, rtol=1e-5)
    assert measured.accuracy.tolist() == [1, 0, 0]


def test_images_that_a_set_loss_cannot_use_do_not_count():
    draw = groups([[0, 0, 1], [2, 2, 2]], [[1, 1, 1], [1, 1, 0]])
    sets = Objective("nca", losses.nca, over_sets=True)
    # The single one of its class has no partner; group 1 has no other class.
    assert sets.weight(draw).tolist() == [1, 1, 0, 0, 0, 0]
    assert Objective("bce", losses.bce).weight(draw).tolist() == [1, 1, 1, 1, 1, 0]
