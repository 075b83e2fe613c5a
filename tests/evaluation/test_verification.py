"""Every figure against scikit-learn or a loop, with ties; and the whole of it by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from siamjax.evaluation.decision import DecisionCard
from siamjax.evaluation.verification import (
    average_precision,
    confused_classes,
    decided,
    hardest,
    precision_recall,
    reliability,
    roc,
    true_accepts_at,
    verify,
)


@st.composite
def scored(draw):
    """Scores with many ties, and a truth of both kinds."""
    n = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    values = draw(st.sampled_from([2, 5, 1000]))
    same = rng.random(n) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    same[:2] = True, False
    scores = rng.integers(0, values, n) / values + 0.2 * same * draw(st.sampled_from([0, 1]))
    return scores.astype(draw(st.sampled_from([np.float32, np.float64]))), same


@settings(max_examples=60, deadline=None)
@given(scored())
def test_roc_agrees_with_scikit_learn(pair):
    scores, same = pair
    expected = oracle.roc_curve(same, scores, drop_intermediate=False)
    for found, wanted in zip(roc(scores, same), expected, strict=False):
        np.testing.assert_allclose(found, wanted)


@settings(max_examples=60, deadline=None)
@given(scored())
def test_precision_and_recall_agree_with_scikit_learn(pair):
    scores, same = pair
    precision, recall, _ = oracle.precision_recall_curve(same, scores)
    found = precision_recall(scores, same)
    np.testing.assert_allclose(found[0], precision[:-1][::-1])
    np.testing.assert_allclose(found[1], recall[:-1][::-1])
    expected = oracle.average_precision_score(same, scores)
    assert average_precision(scores, same) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(scored(), st.sampled_from([0.01, 0.1, 0.3, 1.0]))
def test_true_accepts_agree_with_every_threshold_tried(pair, rate):
    scores, same = pair
    found = true_accepts_at(scores, same, rate)
    if (~same).sum() * rate < 1:
        assert found is None
        return
    tried = [np.inf, *scores]
    allowed = [t for t in tried if (scores[~same] >= t).mean() <= rate]
    assert found == pytest.approx(max((scores[same] >= t).mean() for t in allowed))


def test_a_collapsed_network_accepts_nothing_at_a_low_rate():
    same = np.arange(2000) % 2 == 0
    scores = np.zeros(2000)
    assert true_accepts_at(scores, same, 0.01) == 0.0
    assert true_accepts_at(scores, same, 0.0001) is None
    assert average_precision(scores, same) == 0.5


def test_reliability_agrees_with_scikit_learn_on_as_many_pairs_of_each_kind():
    rng = np.random.default_rng(0)
    similarity = rng.random(4000)
    same = rng.random(4000) < similarity**2
    few = min(same.sum(), (~same).sum())
    keep = np.sort(np.concatenate([np.flatnonzero(same)[:few], np.flatnonzero(~same)[:few]]))
    similarity, same = similarity[keep], same[keep]
    table = reliability(similarity, same)
    found, claimed = calibration_curve(same, similarity, n_bins=15)
    np.testing.assert_allclose(table.found, found)
    np.testing.assert_allclose(table.claimed, claimed)
    assert table.pairs.sum() == len(same)
    error = sum(n * abs(f - c) for n, f, c in zip(table.pairs, found, claimed, strict=True))
    assert table.error == pytest.approx(error / len(same))
    assert table.error > 0.05


def test_reliability_does_not_depend_on_how_many_different_pairs_were_drawn():
    similarity = np.array([0.95, 0.9, 0.2, 0.1, 0.6])
    same = np.array([True, True, False, False, False])
    more = np.concatenate([similarity, similarity[~same]]), np.concatenate([same, same[~same]])
    one, two = reliability(similarity, same), reliability(*more)
    assert one.error == pytest.approx(two.error)
    np.testing.assert_allclose(one.found, two.found)
    assert two.pairs.sum() == 8


def test_reliability_by_hand():
    # One pair of each kind: each weighs a half, and is off by 0.1 and by 0.3.
    table = reliability(np.array([0.9, 0.3]), np.array([True, False]))
    assert table.error == pytest.approx(0.2)
    # Of one kind alone: off by 0.1 and 0.2, in two bins.
    table = reliability(np.array([0.9, 0.8]), np.array([True, True]))
    assert table.error == pytest.approx(0.15)


def test_reliability_at_the_ends():
    table = reliability(np.array([0.0, 1.0, 1.0]), np.array([False, True, True]))
    assert table.error == 0.0
    assert (table.pairs[0], table.pairs[-1]) == (1, 2)
    assert len(table.pairs) == len(table.found) == 15
    assert np.isnan(table.found[1:-1]).all()


def test_a_threshold_by_hand():
    similarity = np.array([0.9, 0.5, 0.4, 0.5, 0.1])
    same = np.array([True, True, True, False, False])
    found = decided(similarity, same, 0.5)
    assert found == (0.5, pytest.approx(1 / 3), 0.5, pytest.approx(3 / 5))
    assert decided(similarity, same, 0.51)[1:] == (pytest.approx(2 / 3), 0.0, pytest.approx(3 / 5))


def test_the_hardest_errors_come_first():
    scores = np.array([5.0, 1.0, 9.0, 7.0, 2.0])
    wrong = np.array([True, True, False, True, True])
    assert hardest(scores, wrong, most_alike=True).tolist() == [3, 0, 4, 1]
    assert hardest(scores, wrong, most_alike=False, count=2).tolist() == [1, 4]


def test_confused_classes_agree_with_a_loop():
    rng = np.random.default_rng(3)
    left, right = rng.integers(0, 4, (2, 300))
    accepted = rng.random(300) < np.where(left + right == 5, 0.7, 0.2)
    found = confused_classes(left, right, accepted)
    tally = {}
    for a, b, taken in zip(left, right, accepted, strict=True):
        if a != b:
            row = tally.setdefault((min(a, b), max(a, b)), [0, 0])
            row[0] += taken
            row[1] += 1
    assert {(a, b): [t, n] for a, b, t, n in found} == tally
    assert found[0][:2] == (2, 3)
    taken = [row[2] for row in found]
    assert taken == sorted(taken, reverse=True)
    assert confused_classes(left, left, accepted) == []
    assert confused_classes(left, right, np.zeros(300, bool)) == []


def test_lists_of_errors_have_an_end():
    scores = np.arange(60.0)
    assert len(hardest(scores, scores >= 0, most_alike=True)) == 50
    left, right = np.triu_indices(8, 1)  # 28 pairs of classes
    assert len(confused_classes(left, right, np.full(28, True))) == 20


def test_of_classes_confused_as_often_the_larger_share_comes_first():
    left, right = np.array([0, 0, 0, 1, 1, 1]), np.array([1, 1, 1, 2, 2, 3])
    accepted = np.array([True, False, False, True, False, True])
    expected = [(1, 3, 1, 1), (1, 2, 1, 2), (0, 1, 1, 3)]
    assert confused_classes(left, right, accepted) == expected


def test_pairs_at_the_threshold_and_the_order_of_what_was_missed():
    similarity = np.array([0.5, 0.2, 0.1, 0.5])
    same = np.array([True, True, True, False])
    names = [(f"l{i}", f"r{i}") for i in range(4)]
    card = DecisionCard((1.0, 0.0), {"calibrated": 0.5})
    v = verify(similarity, same, similarity, card, pairs="four", names=names)
    assert v.false_accepts == [("l3", "r3", 0.5)]
    assert v.false_rejects == [("l2", "r2", 0.1), ("l1", "r1", 0.2)], "the worst first"
    assert verify(similarity, same, similarity, None, pairs="four", names=names).at == {}


def test_all_of_it_by_hand():
    similarity = np.array([0.9, 0.7, 0.2, 0.8, 0.6, 0.1])
    same = np.array([True, True, True, False, False, False])
    card = DecisionCard((1.0, 0.0), {"calibrated": 0.5, "far_1": 0.85}, source="fitted on hands")
    v = verify(
        similarity * 4,
        same,
        similarity,
        card,
        pairs="six pairs",
        names=[(f"l{i}", f"r{i}") for i in range(6)],
        classes=(np.array([0, 1, 2, 0, 1, 2]), np.array([0, 1, 2, 1, 0, 0]), ("a", "b", "c")),
    )
    assert (v.same, v.different, v.card_source) == (3, 3, "fitted on hands")
    assert v.auc == pytest.approx(oracle.roc_auc_score(same, similarity))
    assert v.at["calibrated"][1:] == (pytest.approx(1 / 3), pytest.approx(2 / 3), 0.5)
    assert v.at["far_1"][1:] == (pytest.approx(2 / 3), 0.0, pytest.approx(4 / 6))
    assert v.true_accepts == {"far_1": None, "far_0.1": None}
    assert v.false_accepts == [("l3", "r3", 0.8), ("l4", "r4", 0.6)]
    assert v.false_rejects == [("l2", "r2", 0.2)]
    assert v.confused == [("a", "b", 2, 2)]
    np.testing.assert_array_equal(v.det, [v.roc[0], 1 - v.roc[1]])
    assert v.eer == pytest.approx(1 / 3)
    assert v.histogram is not None
    assert v.histogram.shape == (3, 51)
    assert v.histogram[1].sum() == v.histogram[2].sum() == 3
    assert (v.histogram[1, 45], v.histogram[2, 40]) == (1, 1)


def test_a_baseline_has_no_threshold():
    v = verify(
        np.array([2.0, 1.0]), np.array([True, False]), None, None, pairs="two", names=[("", "")] * 2
    )
    assert (v.auc, v.at, v.reliability, v.histogram, v.false_accepts) == (1.0, {}, None, None, [])


@pytest.mark.parametrize(
    ("scores", "same", "text"),
    [
        ([1.0, 2.0], [True, True], "all 2 pairs are same"),
        ([np.nan, 2.0], [True, False], "1 of 2 scores are NaN"),
    ],
)
def test_what_cannot_be_measured_says_why(scores, same, text):
    with pytest.raises(ValueError, match=text):
        verify(np.array(scores), np.array(same), None, None, pairs="", names=[("", "")] * 2)
