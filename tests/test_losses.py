import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax import distances, losses
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


def test_contrastive_half_is_half_of_it_and_squared_has_its_margin_on_squares():
    d = Distance(jnp.array([0.25, 2.0, 0.25, 1.2, 2.0]))
    same = jnp.array([True, True, False, False, False])
    np.testing.assert_allclose(losses.contrastive_half(d, same), [0.03125, 2, 0.28125, 0, 0])
    got = losses.contrastive_squared(d, same, margin=1.5)
    np.testing.assert_allclose(got, [0.0625, 4.0, 1.5 - 0.0625, 1.5 - 1.44, 0.0], rtol=1e-5)
    got = losses.contrastive_squared(d, same)
    np.testing.assert_allclose(got, [0.0625, 4.0, 1 - 0.0625, 0.0, 0.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "output", "text"),
    [
        (losses.bce, Distance(jnp.zeros(1)), "bce needs a head that gives a logit"),
        (losses.contrastive, Logit(jnp.zeros(1)), "contrastive needs a head that gives a distance"),
        (losses.contrastive_half, Logit(jnp.zeros(1)), "needs a head that gives a distance"),
        (losses.contrastive_squared, Logit(jnp.zeros(1)), "contrastive_squared needs a head that"),
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


def supervised_contrastive_by_loops(score, same, mask):
    result = np.zeros(len(score))
    for i in range(len(score)):
        partners = [j for j in range(len(score)) if mask[i, j] and same[i, j]]
        total = sum(np.exp(score[i, j]) for j in range(len(score)) if mask[i, j])
        if partners:
            result[i] = np.mean([np.log(total) - score[i, j] for j in partners])
    return result


def prototypical_by_loops(score, same, mask):
    result = np.zeros(len(score))
    labels = [int(np.flatnonzero(row)[0]) for row in same]
    for i in range(len(score)):
        members = {}
        for j in np.flatnonzero(mask[i]):
            members.setdefault(labels[j], []).append(score[i, j])
        mean = {label: np.mean(values) for label, values in members.items()}
        if labels[i] in mean:
            result[i] = np.log(sum(np.exp(s) for s in mean.values())) - mean[labels[i]]
    return result


SOFTMAX = {
    "nca": nca_by_loops,
    "prototypical": prototypical_by_loops,
    "supervised_contrastive": supervised_contrastive_by_loops,
}


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize("seed", range(3))
def test_softmax_losses_equal_slow_loops(seed, name):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 8)
    same = labels[:, None] == labels
    mask = (rng.random((8, 8)) < 0.6) & ~np.eye(8, dtype=bool)
    value = rng.normal(size=(8, 8)).astype(np.float32)
    for output, score in ((Logit, value), (Distance, -(value**2))):
        got = losses.LOSSES[name](output(jnp.asarray(value)), jnp.asarray(same), jnp.asarray(mask))
        np.testing.assert_allclose(got, SOFTMAX[name](score, same, mask), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax_losses_of_groups_are_those_of_each_group(name):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (2, 6))
    same = jnp.asarray(labels[:, :, None] == labels[:, None, :]).reshape(12, 6)
    mask = jnp.tile(~jnp.eye(6, dtype=bool), (2, 1))
    value = jnp.asarray(rng.normal(size=(12, 6)), jnp.float32)
    both = losses.LOSSES[name](Logit(value), same, mask)
    each = [
        losses.LOSSES[name](Logit(value[s]), same[s], mask[s]) for s in np.split(np.arange(12), 2)
    ]
    np.testing.assert_allclose(both, jnp.concatenate(each), rtol=1e-6)


@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax_losses_without_partners_cost_nothing_and_have_no_gradient(name):
    nobody, loss = jnp.zeros((4, 4), bool), losses.LOSSES[name]
    gradient = jax.grad(lambda v: loss(Logit(v), nobody, nobody).sum())(jnp.ones((4, 4)))
    np.testing.assert_array_equal(gradient, np.zeros((4, 4)))


@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax_losses_have_their_gradient_beside_a_lone_image_and_an_absent_one(name):
    labels = np.array([0, 0, 1, 2, 2, 2])  # 1 has one image, and the last one is not there
    same, mask = labels[:, None] == labels, ~np.eye(6, dtype=bool)
    mask[-1] = mask[:, -1] = False
    value = np.random.default_rng(0).normal(size=(6, 6))

    def total(v):
        return losses.LOSSES[name](Logit(v), jnp.asarray(same), jnp.asarray(mask)).sum()

    expected = np.zeros((6, 6))
    for place in np.ndindex(6, 6):
        step = np.zeros((6, 6))
        step[place] = 1e-6
        up, down = (SOFTMAX[name](value + s, same, mask).sum() for s in (step, -step))
        expected[place] = (up - down) / 2e-6
    gradient = jax.grad(total)(jnp.asarray(value, jnp.float32))
    np.testing.assert_allclose(gradient, expected, atol=2e-6)


def triplet_by_loops(d, same, mask, margin, strategy):
    n = len(d)
    result = np.zeros(n)
    for a in range(n):
        positives = [d[a, p] for p in range(n) if mask[a, p] and same[a, p]]
        negatives = [d[a, q] for q in range(n) if mask[a, q] and not same[a, q]]
        if not positives or not negatives:
            continue
        if strategy == "hardest":
            chosen = [(max(positives), min(negatives))]
        elif strategy == "all":
            chosen = list(itertools.product(positives, negatives))
        else:
            chosen = [
                (p, min((q for q in negatives if q > p), default=max(negatives))) for p in positives
            ]
        result[a] = np.mean([max(p - q + margin, 0) for p, q in chosen])
    return result


def a_set(seed, n=9, ties=False):
    """Distances, same and mask; some anchors have no positive or no negative."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    mask = (rng.random((n, n)) < 0.5) & ~np.eye(n, dtype=bool)
    mask[0] = False
    mask[1] &= labels == labels[1]
    d = rng.integers(0, 4, (n, n)) / 2 if ties else rng.random((n, n)) * 2
    return d.astype(np.float32), labels[:, None] == labels, mask


@pytest.mark.parametrize("strategy", ["hardest", "semi_hard", "all"])
@pytest.mark.parametrize("ties", [False, True])
def test_triplet_equals_a_slow_loop(strategy, ties):
    function = jax.jit(losses.triplet, static_argnames=("margin", "strategy"))
    for seed in range(6):
        d, same, mask = a_set(seed, ties=ties)
        got = function(
            Distance(jnp.asarray(d)), jnp.asarray(same), jnp.asarray(mask), 0.4, strategy
        )
        expected = triplet_by_loops(d, same, mask, 0.4, strategy)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        counted = losses.anchors(jnp.asarray(same), jnp.asarray(mask))
        assert not counted[:2].any()
        assert (expected[~np.asarray(counted)] == 0).all()


@pytest.mark.parametrize("strategy", ["hardest", "semi_hard", "all"])
def test_triplet_pulls_positives_and_pushes_negatives_and_leaves_the_rest(strategy):
    d, same, mask = a_set(3)

    def total(d):
        return losses.triplet(
            Distance(d), jnp.asarray(same), jnp.asarray(mask), 0.4, strategy
        ).sum()

    gradient = np.asarray(jax.grad(total)(jnp.asarray(d)))
    assert np.isfinite(gradient).all()
    assert (gradient[same & mask] >= 0).all()
    assert (gradient[~same & mask] <= 0).all()
    assert (gradient[~mask] == 0).all()
    assert (gradient[:2] == 0).all()
    assert (gradient > 0).any()
    step = 1e-3  # a slope that is what it says
    slope = (float(total(d - step * gradient)) - float(total(d))) / -step
    assert slope == pytest.approx(float((gradient**2).sum()), rel=2e-2)


@pytest.mark.parametrize("strategy", ["hardest", "semi_hard", "all"])
def test_triplet_of_a_set_without_any_triplet_is_zero_with_a_zero_gradient(strategy):
    d, nobody = jnp.ones((4, 4)), jnp.zeros((4, 4), bool)
    for mask in (nobody, ~nobody):  # nobody at all; everybody, of one class
        value, gradient = jax.value_and_grad(
            lambda d, mask=mask: losses.triplet(Distance(d), mask, mask, 1.0, strategy).sum()
        )(d)
        assert float(value) == 0
        np.testing.assert_array_equal(gradient, np.zeros((4, 4)))


@pytest.mark.parametrize(("p", "expected"), [(1, 5.0), (2, 5**0.5 + 2), (3, 9 ** (1 / 3) + 2)])
def test_triplet_is_right_for_every_norm(p, expected):
    """Signed differences to the power p give 3.0 for p = 1 and NaN for p = 3."""
    anchor, positive, negative = [0.0, 0.0], [2.0, -1.0], [1.0, 0.0]
    rows = jnp.array([anchor, positive, negative])
    d = Distance(distances.lp(rows[:, None], rows[None, :], p))
    same = jnp.array([[True, True, False], [True, True, False], [False, False, True]])
    got = losses.triplet(d, same, ~jnp.eye(3, dtype=bool), margin=3.0)
    assert float(got[0]) == pytest.approx(expected)


def test_a_row_where_nothing_counts_has_a_mean_of_0():
    values, mask = jnp.array([[1.0, 3.0], [5.0, 7.0]]), jnp.array([[True, False], [False, False]])
    np.testing.assert_array_equal(losses.row_mean(values, mask), [1.0, 0.0])


def test_margins_are_1_unless_said():
    d, same = jnp.array([[0.0, 0.4, 0.7]] * 3), jnp.array([[True, True, False]] * 3)
    mask = ~jnp.eye(3, dtype=bool)
    one = losses.triplet(Distance(d), same, mask, margin=1.0)
    np.testing.assert_array_equal(losses.triplet(Distance(d), same, mask), one)
    assert one[0] == pytest.approx(0.7)


def test_triplet_refuses_a_logit_and_an_unknown_strategy():
    square = jnp.zeros((2, 2))
    with pytest.raises(ValueError, match="triplet needs a head that gives a distance"):
        losses.triplet(Logit(square), square > 0, square > 0)
    with pytest.raises(ValueError, match="knows strategy hardest, semi_hard, all; got 'easy'"):
        losses.triplet(Distance(square), square > 0, square > 0, strategy="easy")
