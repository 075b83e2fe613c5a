"""Accuracy against a slow loop, the padding of chunks, ties, and the printed sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamjax.evaluation.one_shot import OneShotResult, evaluate
from siamjax.metrics import wilson_interval
from siamjax.types import Episodes


def near(left, right):
    return -np.abs(left - right).sum(1)


def episodes(way=5, shot=3, trials=40, images=60, seed=0, protocol="random-class"):
    rng = np.random.default_rng(seed)
    picked = np.stack([rng.permutation(images)[: way * shot + 1] for _ in range(trials)])
    return Episodes(
        query=picked[:, 0].astype(np.int32),
        support=picked[:, 1:].reshape(trials, way, shot).astype(np.int32),
        answer=rng.integers(0, way, trials).astype(np.int32),
        protocol=protocol,
    )


def test_by_hand():
    z = np.float32([[0.0], [1.0], [0.2], [0.5], [0.9]])
    e = Episodes(
        query=np.int32([0, 1, 0]),
        support=np.int32([[[2], [4]], [[3], [4]], [[4], [2]]]),
        answer=np.int32([0, 0, 1]),
        protocol="random-class",
    )
    result = evaluate(z, near, e)
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.interval == wilson_interval(2, 3)
    assert (result.way, result.shot, result.trials, result.tie_rate) == (2, 1, 3, 0.0)


def test_shots_are_averaged_not_the_nearest_taken():
    z = np.float32([[0.0], [0.1], [3.0], [1.0], [1.2]])
    e = Episodes(np.int32([0]), np.int32([[[1, 2], [3, 4]]]), np.int32([1]), "random-class")
    assert evaluate(z, near, e).accuracy == 1.0


@pytest.mark.parametrize("chunk", [1, 7, 40, 600, 4096])
def test_a_slow_loop_agrees_whatever_the_chunk(chunk):
    z = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)
    e = episodes()
    credit = []
    for query, support, answer in zip(e.query, e.support, e.answer, strict=True):
        means = [np.mean([near(z[[query]], z[[s]])[0] for s in row]) for row in support]
        credit.append(np.argmax(means) == answer)
    result = evaluate(z, near, e, chunk=chunk)
    assert result.accuracy == pytest.approx(np.mean(credit))
    assert 0.05 < result.accuracy < 0.6, "neither all right nor all wrong, or this shows nothing"


def test_compare_sees_full_chunks_of_real_rows_and_compiles_once():
    shapes = []

    @jax.jit
    def cosine(left, right):
        shapes.append(left.shape)
        norm = jnp.linalg.norm(left, axis=1) * jnp.linalg.norm(right, axis=1)
        return (left * right).sum(1) / norm  # NaN for rows of zeros

    z = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)
    evaluate(jnp.asarray(z), cosine, episodes(way=5, shot=1, trials=9), chunk=32)
    assert shapes == [(32, 4)]


@pytest.mark.parametrize("constant", [0.0, 1.0, np.inf])
def test_a_collapsed_network_scores_chance(constant):
    e = episodes(way=4, shot=1)
    first = Episodes(e.query, e.support, np.zeros_like(e.answer), e.protocol)
    result = evaluate(np.zeros((60, 2)), lambda a, b: np.full(len(a), constant), first)
    assert result.accuracy == pytest.approx(0.25)
    assert result.tie_rate == 1.0
    assert result.interval == pytest.approx(wilson_interval(10, 40))
    assert "ties 100.0 % - WARNING: different classes get equal scores" in str(result)


def test_a_perfect_network_scores_one():
    e = episodes(way=4, shot=2)
    right = np.zeros((60, 60), bool)
    for query, support, answer in zip(e.query, e.support, e.answer, strict=True):
        right[query, support[answer]] = True
    keep = np.array(
        [right[q, s].all(1).sum() == 1 for q, s in zip(e.query, e.support, strict=True)]
    )
    e = Episodes(e.query[keep], e.support[keep], e.answer[keep], e.protocol)
    index = np.arange(60.0)[:, None]

    def oracle(left, right_):
        return right[left[:, 0].astype(int), right_[:, 0].astype(int)].astype(np.float32)

    result = evaluate(index, oracle, e)
    assert keep.sum() > 20
    assert (result.accuracy, result.tie_rate) == (1.0, 0.0)
    assert result.interval[1] == 1.0


def test_the_sentence():
    result = OneShotResult("within-alphabet", 20, 1, 320, 0.8724, (0.8312, 0.9041), 0.0)
    text = "within-alphabet 20-way 1-shot: 87.2 % [83.1, 90.4], 320 trials, ties 0.0 %"
    assert str(result) == text
    assert "WARNING" not in str(OneShotResult("p", 5, 1, 100, 0.5, (0.4, 0.6), 0.01))
    assert "WARNING" in str(OneShotResult("p", 5, 1, 100, 0.5, (0.4, 0.6), 0.011))


def test_the_row_names_its_protocol():
    result = OneShotResult("within-alphabet", 20, 5, 320, 0.5, (0.4, 0.6), 0.002)
    assert result.figures == {
        "one_shot_accuracy": 0.5,
        "one_shot_low": 0.4,
        "one_shot_high": 0.6,
        "one_shot_ties": 0.002,
        "protocol": "within-alphabet 20-way 5-shot",
    }


def test_errors():
    z, e = np.zeros((60, 2)), episodes()
    with pytest.raises(ValueError, match=r"point at image \d+, but there are 10 embeddings: embed"):
        evaluate(z[:10], near, e)
    with pytest.raises(ValueError, match=r"point at image 59, but there are 59 embeddings"):
        evaluate(z[:59], near, Episodes(e.query, np.full_like(e.support, 59), e.answer, "p"))
    with pytest.raises(ValueError, match=r"shape \(1024,\) for 1024 pairs; got \(1024, 1\)"):
        evaluate(z, lambda a, b: np.zeros((len(a), 1)), e)
    with pytest.raises(ValueError, match="40 of 40 one-shot trials have NaN scores"):
        evaluate(z, lambda a, b: np.full(len(a), np.nan), e)
    with pytest.raises(ValueError, match="chunk must be at least 1; got 0"):
        evaluate(z, near, e, chunk=0)
    with pytest.raises(ValueError, match="no trials"):
        evaluate(z, near, Episodes(e.query[:0], e.support[:0], e.answer[:0], "p"))
