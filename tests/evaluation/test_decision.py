import json

import numpy as np
import pytest

from siamjax.evaluation import decision
from siamjax.evaluation.decision import DecisionCard


def scores(n=2000, seed=0, gap=1.5):
    rng = np.random.default_rng(seed)
    same = np.arange(n) % 2 == 0
    return (rng.normal(size=n) + gap * same).astype(np.float32), same


def test_every_threshold_keeps_its_promise_on_the_pairs_it_was_fitted_to():
    s, same = scores()
    card = decision.fit(s, same, "made-up pairs")
    assert list(card.thresholds) == ["calibrated", "accuracy", "eer", "far_1", "far_0.1"]
    similarity = card.similarity(s)
    for name, cut in card.thresholds.items():
        accepted = similarity >= cut
        assert card.false_accepts[name] == accepted[~same].mean()
        assert card.false_rejects[name] == (~accepted[same]).mean()
    assert card.false_accepts["far_1"] == 0.01  # 10 of 1,000
    assert card.false_accepts["far_0.1"] == 0.001
    assert abs(card.false_accepts["eer"] - card.false_rejects["eer"]) <= 0.002
    rates = {n: card.false_accepts[n] + card.false_rejects[n] for n in card.thresholds}
    assert min(rates, key=rates.get) == "accuracy"
    assert card.source == "fitted on made-up pairs: 1,000 same and 1,000 different"


def test_a_rate_that_too_few_pairs_can_show_is_left_out_and_said():
    card = decision.fit(*scores(400), "few pairs")
    assert "far_1" in card.thresholds
    assert "far_0.1" not in card.thresholds
    with pytest.raises(ValueError, match=r"'far_0\.1' \(too few validation pairs.*choose calib"):
        card.threshold("far_0.1")


def test_thresholds_by_name_and_by_number():
    card = DecisionCard(thresholds={"calibrated": 0.5, "eer": 0.4})
    assert card.threshold("eer") == 0.4
    assert card.threshold("0.25") == card.threshold(0.25) == 0.25
    assert (card.threshold(0), card.threshold("1")) == (0.0, 1.0)
    for bad in ("err", "1.5", -0.1, "nan"):
        with pytest.raises(ValueError, match=r"choose calibrated, eer or a number in 0\.\.1"):
            card.threshold(bad)


def test_a_card_survives_json():
    card = decision.fit(*scores(), "pairs")
    assert DecisionCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
    assert DecisionCard.from_dict(None).thresholds == {"calibrated": 0.5}
    with pytest.raises(ValueError, match="not validated yet"):
        DecisionCard().similarity(np.zeros(2))


def test_probability_follows_bayes():
    p = decision.probability(np.array([0.2, 0.9]), 0.1)
    # 10 same pairs among 100: odds 1/9 of those on the card
    np.testing.assert_allclose(p / (1 - p), np.array([0.25, 9.0]) / 9)
    for bad in (0, 1, -1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            decision.probability(np.array([0.5]), bad)


def test_calibrated_similarity_is_ordered_and_balanced():
    s, same = scores()
    card = decision.fit(s, same, "pairs")
    similarity = card.similarity(np.sort(s))
    assert similarity.dtype == np.float32
    assert (np.diff(similarity) >= 0).all()
    assert similarity.min() >= 0
    assert similarity.max() <= 1
    assert card.similarity(s).mean() == pytest.approx(0.5, abs=0.01)


def test_a_calibrated_score_is_a_sigmoid():
    s = np.array([-2.0, 0.3, 1.0])
    expected = 1 / (1 + np.exp(-(2.5 * s - 0.7)))
    np.testing.assert_allclose(decision.calibrated(s, (2.5, -0.7)), expected, rtol=1e-12)


def test_a_pair_at_the_threshold_counts_as_same():
    same = np.arange(400) % 2 == 0
    card = decision.fit(np.zeros(400), same, "a collapsed network")
    assert card.thresholds["calibrated"] == 0.5 == card.similarity(np.zeros(1))[0]
    assert (card.false_accepts["calibrated"], card.false_rejects["calibrated"]) == (1.0, 0.0)
