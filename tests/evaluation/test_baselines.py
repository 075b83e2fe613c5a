"""Pixels and ink against loops one can read."""

import math

import numpy as np
import pytest

from siamjax.evaluation.baselines import (
    BASELINES,
    cosine_score,
    hausdorff_score,
    ink,
    ink_points,
    l2_score,
    modified_hausdorff,
)


def paper(*strokes, size=(9, 7)):
    """White images with black pixels: `uint8 [n, h, w, 1]`."""
    images = np.full((len(strokes), *size, 1), 255, np.uint8)
    for image, stroke in zip(images, strokes, strict=True):
        for row, column in stroke:
            image[row, column] = 0
    return images


def slow_hausdorff(left, right):
    """As in Lake's demo: ink, centred on its mean, the mean nearest distances, the larger."""
    sets = []
    for image in (left, right):
        points = [
            (r, c)
            for r in range(image.shape[0])
            for c in range(image.shape[1])
            if image[r, c, 0] == 0
        ]
        mean = [sum(p[k] for p in points) / len(points) for k in (0, 1)]
        sets.append([(r - mean[0], c - mean[1]) for r, c in points])

    def one_way(a, b):
        return sum(min(math.dist(p, q) for q in b) for p in a) / len(a)

    return max(one_way(*sets), one_way(*sets[::-1]))


def test_hausdorff_agrees_with_a_double_loop():
    rng = np.random.default_rng(0)
    images = np.where(rng.random((12, 9, 7, 1)) < rng.uniform(0.05, 0.4, (12, 1, 1, 1)), 0, 255)
    images[:, 4, 3] = 0
    images = images.astype(np.uint8)
    z = ink_points(images)
    left, right = np.repeat(np.arange(12), 12), np.tile(np.arange(12), 12)
    slow = [slow_hausdorff(images[a], images[b]) for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(-hausdorff_score(z[left], z[right]), slow, atol=1e-12)
    assert len({round(d, 9) for d in slow}) > 50, "else this shows little"


def test_hausdorff_by_hand():
    # Centred: (-1, 0), (1, 0) and (0, -2), (0, 2). Every nearest distance is sqrt(5).
    images = paper([(0, 0), (2, 0)], [(5, 1), (5, 5)])
    z = ink_points(images)
    assert z.shape == (2, 4)
    np.testing.assert_allclose(hausdorff_score(z[:1], z[1:]), [-math.sqrt(5)])
    # (0) against (-3, 3): 3 one way, 3 the other; against (-1, 0, 1): 0 and 2/3.
    assert modified_hausdorff(np.zeros((1, 1)), np.array([[-3.0, 3.0]])) == 3.0
    one_sided = modified_hausdorff(np.zeros((1, 1)), np.array([[-1.0, 0.0, 1.0]]))
    assert one_sided == pytest.approx(2 / 3)


def test_hausdorff_ignores_where_on_the_paper_a_character_stands():
    z = ink_points(paper([(0, 0), (1, 1), (2, 0)], [(5, 3), (6, 4), (7, 3)], [(5, 3), (6, 4)]))
    assert hausdorff_score(z[:1], z[1:2])[0] == pytest.approx(0, abs=1e-12)
    assert hausdorff_score(z[:1], z[2:])[0] < -0.1


def test_an_image_without_ink_is_refused():
    with pytest.raises(ValueError, match="1 of 2 images have no ink"):
        ink_points(paper([(0, 0)], []))


def test_pixels_by_hand():
    images = paper([(0, 0), (0, 1)], [(0, 1), (0, 2)], [(8, 6)], [])
    z = ink(images)
    assert z.dtype == np.float32
    assert z[0].sum() == 2.0
    np.testing.assert_allclose(cosine_score(z[[0, 0, 0, 0]], z), [1, 0.5, 0, 0], atol=1e-6)
    squares = [0, 2, 3, 2]
    np.testing.assert_allclose(l2_score(z[[0, 0, 0, 0]], z), -np.sqrt(squares), atol=1e-6)


@pytest.mark.parametrize("name", ["pixel-cosine", "pixel-l2", "hausdorff"])
def test_every_baseline_finds_an_image_most_like_itself(name):
    rng = np.random.default_rng(1)
    images = np.where(rng.random((6, 10, 10, 1)) < 0.3, 0, 255).astype(np.uint8)
    baseline = BASELINES[name]
    assert baseline.name == name
    z = baseline.embed(images)
    for i in range(6):
        found = baseline.score(np.broadcast_to(z[i], z.shape), z)
        assert found.shape == (6,)
        assert found.argmax() == i
        assert (np.sort(found)[-2] < found[i] - 1e-3).all()
