"""Trials and pairs by name: what is drawn, what is refused."""

import numpy as np
import pytest
from synthetic import labelled

from siamjax.evaluation.baselines import BASELINES
from siamjax.evaluation.protocols import (
    PROTOCOLS,
    check_names,
    compare_pairs,
    draw_episodes,
    evaluation_pairs,
)
from siamjax.evaluation.subject import Subject
from siamjax.types import LabelledImages, PairTable


def subject(images, pairs=None):
    return Subject(images, pairs, "made up", "split all", "")


def keys(table):
    return {(min(a, b), max(a, b)) for a, b in zip(table.left, table.right, strict=True)}


def test_names():
    check_names(list(PROTOCOLS))
    with pytest.raises(ValueError, match=r"no protocol 'lake-20run'; .*did you mean lake-20runs\?"):
        check_names(["lake-20run"])


@pytest.mark.parametrize(
    ("protocol", "way", "shot", "shape"),
    [
        ("within-alphabet", 4, 2, (30, 4, 2)),
        ("random-class", 7, 3, (30, 7, 3)),
        ("koch-within", 5, 1, (400, 20, 1)),
    ],
)
def test_trials_carry_their_protocol(protocol, way, shot, shape):
    images = labelled(classes=200, each=5, groups=10, size=(2, 2))
    drawn = draw_episodes(images, protocol, way=way, shot=shot, trials=30, seed=0)
    assert drawn.protocol == protocol
    assert drawn.support.shape == shape
    right = drawn.support[np.arange(len(drawn.query)), drawn.answer, 0]
    np.testing.assert_array_equal(images.labels[drawn.query], images.labels[right])
    if protocol != "random-class":
        assert (images.groups[drawn.support] == images.groups[drawn.query][:, None, None]).all()


def test_within_alphabet_is_refused_where_there_are_no_alphabets():
    data = labelled(classes=8, each=4)
    flat = LabelledImages(
        data.images, data.labels, np.zeros(32, np.int32), np.full(32, -1, np.int32),
        data.class_names,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"within-alphabet needs classes in groups.*random-class"):
        draw_episodes(flat, "within-alphabet", way=3, shot=1, trials=5, seed=0)


@pytest.mark.parametrize("pairs", [20, 200, 0])
def test_balanced_pairs_are_half_and_half_and_none_twice(pairs):
    images = labelled(classes=6, each=5)
    table, said = evaluation_pairs(subject(images), pairs=pairs, balanced=True, seed=0)
    # 6 * 10 pairs of one class are all there are.
    each = 10 if pairs == 20 else 60
    assert table.same.sum() == (~table.same).sum() == each
    assert len(keys(table)) == 2 * each
    np.testing.assert_array_equal(
        table.same, images.labels[table.left] == images.labels[table.right]
    )
    assert (table.left != table.right).all()
    assert said == f"{2 * each} pairs by seed 0, half of them same"


def test_balanced_pairs_stop_where_different_ones_run_out():
    images = labelled(classes=2, each=6).select(np.arange(7))
    table, _ = evaluation_pairs(subject(images), pairs=100, balanced=True, seed=0)
    assert table.same.sum() == (~table.same).sum() == 6
    assert len(keys(table)) == 12


def test_natural_pairs_are_as_they_occur():
    images = labelled(classes=10, each=10)
    table, said = evaluation_pairs(subject(images), pairs=0, balanced=False, seed=0)
    assert (len(table.left), table.same.sum(), said) == (4950, 450, "all 4,950 pairs")
    table, said = evaluation_pairs(subject(images), pairs=1000, balanced=False, seed=3)
    assert len(keys(table)) == 1000
    assert 50 < table.same.sum() < 135
    assert said == "1,000 of 4,950 pairs by seed 3, as they occur"
    again, _ = evaluation_pairs(subject(images), pairs=1000, balanced=False, seed=3)
    other, _ = evaluation_pairs(subject(images), pairs=1000, balanced=False, seed=4)
    assert keys(again) == keys(table) != keys(other)


def test_stated_pairs_are_used_as_they_are():
    stated = PairTable(np.int32([0, 1]), np.int32([2, 3]), np.array([True, False]))
    table, said = evaluation_pairs(subject(labelled(), stated), pairs=9, balanced=True, seed=0)
    assert table is stated
    assert said == "the pairs that the data state"


def test_pairs_of_one_kind_are_refused():
    one = labelled(classes=2, each=3)
    with pytest.raises(ValueError, match="the data have none of one class"):
        evaluation_pairs(subject(one.select(np.array([0, 3]))), pairs=9, balanced=True, seed=0)
    with pytest.raises(ValueError, match="the data have none of two classes"):
        evaluation_pairs(subject(one.select(np.arange(3))), pairs=9, balanced=True, seed=0)
    with pytest.raises(ValueError, match=r"at least 2 pairs; got 1 \(--num_pairs\)"):
        evaluation_pairs(subject(one), pairs=1, balanced=True, seed=0)


def test_pairs_are_compared_in_chunks(monkeypatch):
    from siamjax.evaluation import protocols

    z = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    left, right = np.random.default_rng(1).integers(0, 20, (2, 50))
    whole, none = compare_pairs(BASELINES["pixel-l2"], z, left, right)
    assert none is None
    np.testing.assert_allclose(whole, -np.linalg.norm(z[left] - z[right], axis=1))
    monkeypatch.setattr(protocols, "PAIR_CHUNK", 7)
    np.testing.assert_array_equal(compare_pairs(BASELINES["pixel-l2"], z, left, right)[0], whole)
