import numpy as np
import pytest
from scipy import ndimage

from siamjax.data import handwriting
from siamjax.data.glyphs import SHAPES
from siamjax.data.handwriting import Stroke, basis, draw, hands


def test_a_stroke_blends_polyline_and_spline():
    at = np.array([0.0, 1.0, 1.5, 3.0])
    line = basis(at, 4, 0.0)
    assert line.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]
    spline = basis(at, 4, 1.0)
    assert spline[2].tolist() == [-1 / 16, 9 / 16, 9 / 16, -1 / 16]  # Catmull-Rom's midpoint
    assert np.array_equal(spline[[0, 1, 3]], line[[0, 1, 3]])  # both pass through the points
    assert np.allclose(basis(at, 4, 0.5), (line + spline) / 2)
    assert np.allclose(basis(np.linspace(0, 2, 9), 3, 1.0).sum(1), 1)


def test_the_pen_is_a_disc_of_5_pixels_and_a_fine_one_of_4():
    dots = np.zeros((2, 9, 9), bool)
    dots[:, 4, 4] = True
    broad, fine = handwriting._thicken(dots, np.array([False, True]))
    assert broad[2:7, 2:7].astype(int).tolist() == [
        [0, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [0, 1, 1, 1, 0],
    ]
    assert broad.sum() == 21
    assert fine[3:7, 3:7].astype(int).tolist() == [
        [0, 1, 1, 0],
        [1, 1, 1, 1],
        [1, 1, 1, 1],
        [0, 1, 1, 0],
    ]
    assert fine.sum() == 12


@pytest.mark.parametrize("name", ["maze", "curl", "zed"])
def test_a_stroke_is_drawn_without_gaps(name):
    roundness, points = SHAPES[name]
    stroke = Stroke(np.array(points, float), roundness)
    rngs = [np.random.default_rng(d) for d in range(20)]
    images = draw([stroke], hands(0), rngs)
    for image in images:
        assert ndimage.label(image == 0, np.ones((3, 3)))[1] == 1
