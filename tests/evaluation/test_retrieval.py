"""Retrieval and open sets against slow loops; ties must never flatter."""

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic import labelled

from siamjax.evaluation import retrieval
from siamjax.evaluation.retrieval import (
    draw_rounds,
    map_at_r,
    one_to_many,
    open_set,
    pessimistic_ranks,
    retrieve,
)


def near(left, right):
    return -np.abs(left - right).sum(1)


def slow(z, labels, queries):
    """Sorts everything, wrong ones first where scores tie, and counts."""
    rows = []
    for q in queries:
        others = [i for i in range(len(z)) if i != q]
        score = {i: float(near(z[[q]], z[[i]])[0]) for i in others}
        order = sorted(others, key=lambda i: (-score[i], labels[i] == labels[q]))
        hit = [labels[i] == labels[q] for i in order]
        r = sum(hit)
        mean = sum(sum(hit[: i + 1]) / (i + 1) for i in range(r) if hit[i]) / r
        rows.append([
            *(any(hit[:k]) for k in (1, 5, 10)), *(sum(hit[:k]) / k for k in (1, 5, 10)),
            sum(hit[:r]) / r, mean,
        ])  # fmt: skip
    return np.mean(rows, 0)


def figures(found):
    return [*found.recall.values(), *found.precision.values(), found.r_precision, found.map_at_r]


@pytest.mark.parametrize("rounded", [0, 1, 6])
def test_retrieval_agrees_with_a_slow_sort(rounded):
    images = labelled(classes=6, each=5)
    noise = np.random.default_rng(0).normal(size=(30, 3))
    z = (noise + images.labels[:, None] * 0.5).round(rounded).astype(np.float32)
    found = retrieve(z, images, near)
    np.testing.assert_allclose(figures(found), slow(z, images.labels, range(30)))
    assert (found.tie_rate > 0) == (rounded < 6)
    assert 0.05 < found.map_at_r < 0.9


def test_a_collapsed_network_finds_nothing():
    images = labelled(classes=4, each=5)
    found = retrieve(np.zeros((20, 2), np.float32), images, near)
    assert figures(found) == [0.0] * 8
    assert found.tie_rate == 1.0


def test_a_perfect_network_finds_all():
    images = labelled(classes=4, each=12)
    found = retrieve(images.labels[:, None].astype(np.float32), images, near)
    assert figures(found) == [1.0] * 8
    assert found.confused == []


def test_chunks_change_nothing(monkeypatch):
    images = labelled(classes=4, each=5)
    z = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    whole = one_to_many(z, 3, near)
    sizes = []
    monkeypatch.setattr(retrieval, "CHUNK", 7)
    chunked = one_to_many(z, 3, lambda a, b: (sizes.append(len(a)), near(a, b))[1])
    np.testing.assert_array_equal(whole, chunked)
    assert sizes == [7, 7, 6]
    assert retrieve(z, images, near).queries == 20


def test_queries_are_drawn_and_images_alone_in_their_class_are_not_looked_up():
    images = labelled(classes=5, each=4).select(np.arange(17))
    z = np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)
    found = retrieve(z, images, near)
    assert (found.queries, found.images, found.alone) == (16, 17, 1)
    np.testing.assert_allclose(figures(found), slow(z, images.labels, range(16)))
    few = retrieve(z, images, near, queries=6, seed=1)
    assert few.queries == 6
    assert figures(few) == figures(retrieve(z, images, near, queries=6, seed=1))
    assert figures(few) != figures(retrieve(z, images, near, queries=6, seed=2))
    with pytest.raises(ValueError, match="retrieval needs a class with two images"):
        retrieve(z[[0, 4]], images.select(np.array([0, 4])), near)
    with pytest.raises(ValueError, match="scores are NaN"):
        retrieve(z * np.nan, images, near)


def test_the_most_confused_classes():
    images = labelled(classes=3, each=2)
    z = np.float32([[0], [9], [0.15], [0.2], [20], [20.1]])
    found = retrieve(z, images, near)
    assert found.confused == [("class0", "class1", 2)]
    assert str(found).endswith("\n  mistaken: class0, nearest class1 in 2 queries")
    odd = replace(found, confused=[("a\x1b[2J", "\udcff", 2)])
    assert str(odd).endswith(r"  mistaken: a\x1b[2J, nearest \udcff in 2 queries")


def test_by_hand():
    scores, relevant = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([0, 1, 0, 1, 1]) > 0
    assert pessimistic_ranks(scores, relevant).tolist() == [3, 4, 5]
    assert map_at_r(np.array([3, 4, 5])) == pytest.approx(1 / 3 / 3)
    assert map_at_r(np.array([1, 2, 5])) == pytest.approx(2 / 3)
    assert map_at_r(np.array([4, 5, 6])) == 0.0


def test_text_and_json():
    images = labelled(classes=4, each=3)
    found = retrieve(images.labels[:, None].astype(np.float32), images, near)
    text = str(found)
    assert "retrieval, leave-one-out, 12 queries among 12 images (ties count as wrong, in" in text
    assert "recall@1 100.00 %, recall@5 100.00 %" in text
    assert "precision@1 100.00 %, precision@5 40.00 %" in text
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert values["precision"] == pytest.approx({"1": 1.0, "5": 0.4, "10": 0.2})


# --------------------------------------------------------------------------------- open set


def test_rounds_never_show_a_query_nor_know_a_stranger():
    images = labelled(classes=9, each=4)
    rounds = draw_rounds(images, way=4, shot=2, trials=30, seed=0)
    assert rounds.gallery.shape == (8, 4, 2)
    assert rounds.known.shape == rounds.unknown.shape == (8, 4)
    for gallery, known, unknown in zip(*rounds, strict=True):
        classes = images.labels[gallery]
        assert (classes == classes[:, :1]).all()
        np.testing.assert_array_equal(images.labels[known], classes[:, 0])
        assert len(set(classes[:, 0])) == 4
        assert not set(known) & set(gallery.ravel())
        assert not set(images.labels[unknown]) & set(classes[:, 0])
    again = draw_rounds(images, way=4, shot=2, trials=30, seed=0)
    np.testing.assert_array_equal(rounds.unknown, again.unknown)
    with pytest.raises(
        ValueError, match=r"open-set needs 9 classes with 2 images or more, and one"
    ):
        draw_rounds(images, way=9, shot=1, trials=5, seed=0)
    with pytest.raises(ValueError, match="there are 0 of 9"):
        draw_rounds(images, way=3, shot=4, trials=5, seed=0)


def test_open_set_agrees_with_a_slow_loop():
    images = labelled(classes=9, each=4)
    z = np.random.default_rng(0).normal(size=36) + images.labels
    rounds = draw_rounds(images, way=4, shot=2, trials=30, seed=0)

    def compare(left, right):
        score = -np.abs(z[left] - z[right])
        return score, 1 / (1 - score)

    found = open_set(compare, rounds, {"low": 0.3, "high": 0.6}, "by hand")
    for name, cut in (("low", 0.3), ("high", 0.6)):
        right = wrong = intruders = 0
        for gallery, known, unknown in zip(*rounds, strict=True):
            for query in [*known, *unknown]:
                means = [np.mean([compare(query, i) for i in images_], 0) for images_ in gallery]
                best = int(np.argmax([m[0] for m in means]))
                if means[best][1] < cut:
                    continue
                intruders += query in unknown
                right += images.labels[gallery[best][0]] == images.labels[query]
                wrong += query in known and images.labels[gallery[best][0]] != images.labels[query]
        n = rounds.known.size
        expected = (right / n, wrong / n, 1 - (right + wrong) / n, intruders / n)
        np.testing.assert_allclose(found.at[name][1:], expected)
    assert found.at["low"].intruders > found.at["high"].intruders > 0
    assert found.known == found.unknown == 32
    assert "known identified" in str(found)
    assert str(found).startswith("open-set, galleries of 4 classes by 2 image(s), 32 known and 32")
    json.dumps(found.to_json(), allow_nan=False)


def test_an_open_set_of_a_collapsed_network_is_chance():
    images = labelled(classes=9, each=4)
    rounds = draw_rounds(images, way=4, shot=1, trials=40, seed=0)
    found = open_set(
        lambda a, b: (np.zeros(len(a)), np.full(len(a), 0.7)), rounds, {"x": 0.5}, ""
    ).at["x"]
    assert found[1:] == (0.25, 0.75, 0.0, 1.0)
