"""Hand-made values, slow loops, scikit-learn, and properties under random ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from siamjax.metrics import (
    accuracy_at,
    best_accuracy,
    equal_error_rate,
    one_shot_scores,
    platt,
    roc_auc,
    threshold_at_false_accepts,
    wilson_interval,
)

F, T = False, True


@st.composite
def pairs(draw):
    """Scores with many ties, in either precision, and at least one pair of each kind."""
    size = draw(st.integers(2, 40))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    levels = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    same = rng.random(size) < 0.5
    same[:2] = [True, False]
    return rng.integers(-levels, levels + 1, size).astype(dtype) / dtype(7), same


# -------------------------------------------------------------------------------------- one shot


def test_one_shot_credit_by_hand():
    scores = np.float32([[1, 3, 2], [5, 5, 1], [5, 5, 1], [0, 0, 0], [-np.inf, -2, -3]])
    credit, ties = one_shot_scores(scores, np.int32([1, 1, 2, 0, 0]))
    assert credit.tolist() == [1, 0.5, 0, 1 / 3, 0]
    assert ties.tolist() == [F, T, T, T, F]
    assert credit.dtype == np.float64


def test_collapsed_scores_earn_chance_wherever_the_answer_stands():
    for answer in range(5):
        credit, ties = one_shot_scores(np.full((7, 5), 0.3), np.full(7, answer))
        assert credit.mean() == pytest.approx(0.2)
        assert ties.all()


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 5)),
        elements=st.sampled_from([0.0, 0.5, 1.0]),
    ),
    st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_one_shot_is_the_mean_over_ways_of_breaking_ties(scores, seed):
    answer = np.random.default_rng(seed).integers(0, scores.shape[1], len(scores))
    credit, ties = one_shot_scores(scores, answer)
    for row, right, got, tied in zip(scores, answer, credit, ties, strict=True):
        choices = [i for i in range(len(row)) if all(row[i] >= x for x in row)]
        assert got == np.mean([i == right for i in choices])
        assert tied == (len(choices) > 1)


@pytest.mark.parametrize(
    ("scores", "answer", "text"),
    [
        (np.zeros((0, 5)), np.zeros(0, int), "no trials"),
        (
            np.array([[np.nan, np.nan], [1.0, 2.0]]),
            np.array([0, 0]),
            "1 of 2 one-shot trials have NaN",
        ),
        (
            np.zeros((2, 3)),
            np.array([0, 3]),
            r"answers must lie in 0\.\.2; got 0\.\.3: .*not labels",
        ),
        (np.zeros((2, 3)), np.array([-1, 0]), r"got -1\.\.0"),
    ],
)
def test_one_shot_errors(scores, answer, text):
    with pytest.raises(ValueError, match=text):
        one_shot_scores(scores, answer)


# -------------------------------------------------------------------------------------- intervals


def test_wilson_by_hand():
    # With z = 1.959964 and n = 10: centre (p + z²/20) / (1 + z²/10), from Wilson's formula.
    assert wilson_interval(0, 10) == pytest.approx((0, 0.277533), abs=1e-6)
    assert wilson_interval(10, 10) == pytest.approx((0.722467, 1), abs=1e-6)
    assert wilson_interval(5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)
    assert wilson_interval(5, 10, level=0.6826894921)[1] == pytest.approx(0.650756, abs=1e-6)
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10)[1] == 1


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0.5, 0.999))
@settings(deadline=None)
def test_wilson_solves_its_equation(trials, share, level):
    from statistics import NormalDist

    successes = share * trials
    p = min(successes, trials) / trials
    low, high = wilson_interval(min(successes, trials), trials, level)
    assert 0 <= low <= p <= high <= 1
    z = NormalDist().inv_cdf((1 + level) / 2)
    for end in (low, high):  # the ends are where |p - end| is z standard errors of `end`
        assert (p - end) ** 2 == pytest.approx(z * z * end * (1 - end) / trials, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 0), "at least one trial"),
        ((6, 5), "successes <= trials; got 6 of 5"),
        ((-1, 5), "got -1 of 5"),
        ((1, 5, 0), "between 0 and 1; got 0"),
        ((1, 5, 1), "between 0 and 1; got 1"),
        ((1, 5, 95), "between 0 and 1; got 95: 0.95 means 95 %"),
    ],
)
def test_wilson_errors(arguments, text):
    with pytest.raises(ValueError, match=text):
        wilson_interval(*arguments)


# ------------------------------------------------------------------------------------------ pairs


def slow_auc(scores, same):
    wins = [(a > b) + (a == b) / 2 for a in scores[same] for b in scores[~same]]
    return np.mean(wins)


@given(pairs())
@settings(deadline=None)
def test_auc_counts_pairs_and_agrees_with_scikit_learn(drawn):
    from sklearn.metrics import roc_auc_score

    scores, same = drawn
    auc = roc_auc(scores, same)
    assert auc == pytest.approx(slow_auc(scores, same))
    assert auc == pytest.approx(roc_auc_score(same, scores))
    assert roc_auc(-scores, same) == pytest.approx(1 - auc), "large means alike"


def test_auc_of_many_pairs_is_exact():
    scores = np.concatenate([np.full(60_000, 1.0), np.full(60_000, 0.0)])
    same = np.arange(120_000) < 60_000
    assert roc_auc(scores, same) == 1.0
    assert roc_auc(np.zeros(120_000), same) == 0.5


def rates(scores, same, threshold):
    accepted = scores >= threshold
    return accepted[~same].mean(), 1 - accepted[same].mean()


def test_equal_error_rate_by_hand():
    # Two of four different pairs and two of four same pairs overlap crosswise: 1/4 at 0.5.
    scores = np.array([0.9, 0.8, 0.7, 0.3, 0.6, 0.4, 0.2, 0.1])
    same = np.array([T, T, T, T, F, F, F, F])
    assert equal_error_rate(scores, same) == (pytest.approx(0.25), pytest.approx(0.5))
    # One different pair above the only same one: nothing better than 1/2, half-way up the step.
    assert equal_error_rate(np.array([0.2, 0.5, 0.1]), np.array([T, F, F]))[0] == 0.5
    # All equal: chance.
    assert equal_error_rate(np.zeros(4), np.array([T, T, F, F]))[0] == 0.5
    # Perfectly wrong.
    assert equal_error_rate(np.array([0.0, 1.0]), np.array([T, F]))[0] == 1.0


@given(pairs())
@settings(deadline=None)
def test_equal_error_rate_lies_where_the_rates_cross(drawn):
    scores, same = drawn
    rate, threshold = equal_error_rate(scores, same)
    points = [rates(scores, same, t) for t in [*np.unique(scores), np.inf]]
    # The last point where rejects prevail, and the first where they do not.
    before = max((p for p in points if p[0] < p[1]), key=lambda p: (p[0], -p[1]))
    after = min((p for p in points if p[0] >= p[1]), key=lambda p: (p[0], -p[1]))
    # On the straight line between the two, and with both rates equal.
    across = (after[0] - before[0]) * (rate - before[1]) - (after[1] - before[1]) * (
        rate - before[0]
    )
    assert across == pytest.approx(0, abs=1e-9)
    assert before[0] - 1e-9 <= rate <= after[0] + 1e-9
    gap = [abs(a - r) for a, r in points]
    accept, reject = rates(scores, same, threshold)
    assert abs(accept - reject) == pytest.approx(min(gap))


@given(pairs())
@settings(deadline=None)
def test_best_accuracy_is_the_best_of_all_thresholds(drawn):
    scores, same = drawn
    accuracy, threshold = best_accuracy(scores, same)
    every = [*np.unique(scores), np.inf]
    assert accuracy == max(np.mean((scores >= t) == same) for t in every)
    assert accuracy_at(scores, same, threshold) == accuracy


@given(pairs(), st.sampled_from([0.0, 0.01, 0.25, 1.0]))
@settings(deadline=None)
def test_threshold_at_false_accepts_is_the_lowest_that_holds(drawn, rate):
    scores, same = drawn
    cut = threshold_at_false_accepts(scores, same, rate)
    assert rates(scores, same, cut)[0] <= rate
    for lower in scores[scores < cut]:
        assert rates(scores, same, lower)[0] > rate


def test_threshold_at_false_accepts_by_hand():
    scores, same = np.array([0.9, 0.8, 0.6, 0.4, 0.2]), np.array([T, F, F, F, F])
    assert threshold_at_false_accepts(scores, same, 0.25) == pytest.approx(0.7), "one of four"
    assert threshold_at_false_accepts(scores, same, 0.24) == pytest.approx(0.85)
    assert threshold_at_false_accepts(scores, same, 1.0) == pytest.approx(0.2)


def test_thresholds_lie_midway_and_in_the_widest_gap():
    scores = np.array([0.9, 0.8, 0.2, 0.1])
    assert best_accuracy(scores, np.array([T, T, F, F])) == (1.0, 0.5)
    # 0.9|0.85 and 0.4|0.0 are equally good: the second gap is wider.
    scores = np.array([0.9, 0.85, 0.8, 0.6, 0.4, 0.0])
    same = np.array([T, F, T, F, T, F])
    assert best_accuracy(scores, same) == (pytest.approx(4 / 6), pytest.approx(0.2))
    # The first gap is the widest; and accepting all, or nothing, has none.
    scores = np.array([1.0, 0.4, 0.3, 0.25])
    assert best_accuracy(scores, np.array([T, F, T, F])) == (0.75, pytest.approx(0.7))
    scores, same = np.array([0.9, 0.5, 0.4]), np.array([T, F, T])
    assert best_accuracy(scores, same) == (pytest.approx(2 / 3), pytest.approx(0.7))
    assert best_accuracy(-scores, ~same) == (pytest.approx(2 / 3), pytest.approx(-0.7))


def test_accepting_all_or_nothing_can_be_best():
    scores, same = np.float32([0.1, 0.9, 0.8, 0.7]), np.array([T, F, F, F])
    accuracy, threshold = best_accuracy(scores, same)
    assert accuracy == 0.75 == accuracy_at(scores, same, threshold)
    assert threshold > 0.9
    accuracy, threshold = best_accuracy(-scores, ~same)
    assert accuracy == 0.75 == accuracy_at(-scores, ~same, threshold)
    assert threshold == pytest.approx(-0.9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("low", [0.0, 0.3, -1.5, 5e-324])
def test_thresholds_separate_neighbouring_floats(dtype, low):
    low = dtype(low)
    high = np.nextafter(low, dtype(1), dtype=dtype)
    scores, same = np.array([high, low], dtype), np.array([T, F])
    for figure in (best_accuracy, equal_error_rate):
        threshold = figure(scores, same)[1]
        assert accuracy_at(scores, same, threshold) == 1.0
        assert ((scores >= dtype(threshold)) == same).all(), "also after rounding to the dtype"


def test_infinite_scores():
    scores, same = np.array([np.inf, 1.0, -np.inf, 0.0]), np.array([T, T, F, F])
    assert best_accuracy(scores, same) == (1.0, 0.5)
    assert best_accuracy(np.array([np.inf, -np.inf]), np.array([T, F]))[0] == 1.0


def test_accuracy_at_includes_the_threshold():
    scores, same = np.float32([0.1, 0.5, 0.9]), np.array([F, T, T])
    assert accuracy_at(scores, same, 0.5) == 1.0
    assert accuracy_at(scores, same, 0.1) == pytest.approx(2 / 3)
    assert accuracy_at(scores, np.array([T, T, T]), 0.5) == pytest.approx(2 / 3)


@pytest.mark.parametrize("figure", [roc_auc, equal_error_rate, best_accuracy])
@pytest.mark.parametrize(
    ("same", "text"), [([T, T], "all 2 pairs are same"), ([F, F], "all 2 pairs are different")]
)
def test_one_kind_of_pair_is_an_error(figure, same, text):
    with pytest.raises(ValueError, match=f"{text}: this figure needs same and different pairs"):
        figure(np.array([0.1, 0.2]), np.array(same))


def at_half(scores, same):
    return accuracy_at(scores, same, 0.5)


@pytest.mark.parametrize("figure", [roc_auc, equal_error_rate, best_accuracy, at_half])
def test_empty_and_nan_are_errors(figure):
    with pytest.raises(ValueError, match="no pairs"):
        figure(np.zeros(0), np.zeros(0, bool))
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        figure(np.array([0.1, np.nan]), np.array([T, F]))


@pytest.mark.parametrize("seed", range(3))
def test_platt_finds_the_logistic_curve_that_made_the_labels(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(3.0, 2.0, 40_000)
    same = rng.random(40_000) < 1 / (1 + np.exp(-(1.5 * scores - 4.0)))
    slope, offset = platt(scores, same)
    # both kinds weigh the same: the offset moves by the log odds of the kinds
    odds = np.log(same.mean() / (1 - same.mean()))
    assert slope == pytest.approx(1.5, rel=0.05)
    assert offset + odds == pytest.approx(-4.0, rel=0.05)


def test_platt_of_separable_or_inverted_scores_is_finite_and_never_turns_round():
    scores = np.array([0.0, 1.0, 10.0, 11.0])
    same = np.array([False, False, True, True])
    slope, offset = platt(scores, same)
    assert 0 < slope < 10
    assert -offset / slope == pytest.approx(5.5, abs=1e-6)
    assert platt(scores, ~same)[0] == 0.0
    with pytest.raises(ValueError):
        platt(scores, np.ones(4, bool))


def test_platt_of_inverted_scores_is_the_best_constant():
    # One of many same pairs lies far off among four different ones: its score says nothing.
    scores = np.concatenate([np.linspace(0, 1, 300), [-100.0], np.linspace(2, 3, 4)])
    same = np.arange(305) < 301
    slope, offset = platt(scores, same)
    mean = (302 / 303 + 1 / 6) / 2
    assert (slope, offset) == (0.0, pytest.approx(np.log(mean / (1 - mean))))


def test_platt_of_constant_scores_is_the_mean_of_the_targets():
    slope, offset = platt(np.ones(4), np.array([T, F, F, F]))
    # Of one same pair the target is 2/3, of three different ones 1/5; both kinds weigh a half.
    mean = (2 / 3 + 1 / 5) / 2
    assert slope == 0.0
    assert offset == pytest.approx(np.log(mean / (1 - mean)))


@pytest.mark.parametrize("outlier", [0.5, 30.0, 1e6])
def test_platt_finds_the_minimum_beside_an_outlier_too(outlier):
    scores = np.array([0.0, 0.1, 0.2, 0.3, 0.4, outlier])
    same = np.array([F, F, F, T, T, T])
    slope, offset = platt(scores, same)

    def cost(slope, offset):
        z = slope * scores + offset
        return np.mean(np.logaddexp(0, z) - np.where(same, 0.8, 0.2) * z)

    found = cost(slope, offset)
    for factor in (0.99, 1.01):
        assert found <= cost(slope * factor, offset)
        assert found <= cost(slope, offset * factor)
        assert found <= cost(slope * factor, offset * factor)
