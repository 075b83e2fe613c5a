import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from siamjax.evaluation.encoder import Encoder
from siamjax.evaluation.explanation import explanation
from siamjax.explain import gradient_map, occlusion_map
from siamjax.inference import Comparator
from siamjax.models import HEADS, TOWERS, Siamese
from siamjax.preprocess import Preprocess

SIZE = (9, 8)


def made(head="cosine", channels=1, **options):
    model = Siamese(TOWERS["mlp"](features=(16, 8)), HEADS[head](**options))
    image = np.zeros((1, *SIZE, channels), np.float32)
    weights = dict(model.init(jax.random.key(1), image, image))
    weights.setdefault("batch_stats", {})
    return Comparator(Encoder(model, weights), Preprocess(SIZE, channels=channels))


@pytest.fixture(scope="module")
def pair():
    """Noise on a black border: the background is black."""
    rng = np.random.default_rng(0)
    images = np.zeros((2, *SIZE), np.uint8)
    images[:, 1:-1, 1:-1] = rng.integers(1, 256, (2, 7, 6))
    return images


def score(comparator, a, b):
    z = comparator.embed([a, b])
    return float(comparator.encoder.score(z[:1], z[1:])[0])


@pytest.mark.parametrize("head", ["cosine", "euclidean"])
def test_occlusion_is_what_a_slow_loop_finds(head, pair):
    comparator = made(head)
    maps = occlusion_map(comparator, *pair, patch=3, stride=2, batch=5)
    whole = score(comparator, *pair)
    for side, found in enumerate(maps):
        total, count = np.zeros(SIZE), np.zeros(SIZE)
        for y in (0, 2, 4, 6):
            for x in (0, 2, 4, 5):  # the last square ends at the border
                covered = pair.copy()
                covered[side, y : y + 3, x : x + 3] = 0
                total[y : y + 3, x : x + 3] += whole - score(comparator, *covered)
                count[y : y + 3, x : x + 3] += 1
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, total / count, atol=1e-5)
        assert np.abs(found).max() > 1e-3


def test_occluding_paper_changes_nothing(pair):
    images = pair.copy()
    images[:, :, :4] = 0
    maps = occlusion_map(made(), *images, patch=2, stride=1)
    assert not maps.left[:, :3].any()
    assert maps.left[:, 4:].any()


def test_the_sign_tells_alike_from_unlike():
    comparator = made("euclidean")
    a = np.zeros(SIZE, np.uint8)
    a[4, 4] = 255
    covered = occlusion_map(comparator, a, a, patch=3, stride=1)
    assert covered.left[4, 4] > 0  # without it the two would be less alike
    b = np.zeros(SIZE, np.uint8)
    assert occlusion_map(comparator, a, b, patch=3, stride=1).left[4, 4] < 0


@pytest.mark.parametrize("channels", [1, 3])
def test_gradient_is_the_slope_of_the_score(channels, pair):
    comparator = made(channels=channels)
    maps = gradient_map(comparator, *pair, smooth=0)
    encoder = comparator.encoder
    images = np.stack([comparator.pixels(image) for image in pair]) / np.float64(255)

    def value(x):
        z = encoder.model.apply(encoder.weights, jnp.asarray(x, jnp.float32), method="embed")
        return float(encoder.score(np.asarray(z[:1]), np.asarray(z[1:]))[0])

    for side, y, x in ((0, 3, 4), (1, 5, 2), (1, 0, 0)):
        slope = 0.0
        for channel in range(channels):
            up, down = images.copy(), images.copy()
            up[side, y, x, channel] += 1e-2
            down[side, y, x, channel] -= 1e-2
            slope += abs(value(up) - value(down)) / 2e-2
        assert maps[side][y, x] == pytest.approx(slope, rel=0.03, abs=2e-4)


# The relational head compares an image's places with each other, so its own image moves it.
@pytest.mark.parametrize("head", [head for head in HEADS if head != "relational"])
def test_equal_images_have_no_slope_rather_than_noise(head, pair):
    maps = gradient_map(made(head), pair[0], pair[0])
    assert not maps.left.any()
    assert not maps.right.any()


def test_smoothing_keeps_a_flat_map_and_spreads_a_point(pair):
    from siamjax.explain import _smoothed

    np.testing.assert_allclose(_smoothed(np.ones((5, 4), np.float32), 1.5), 1, atol=1e-6)
    point = np.zeros((9, 9), np.float32)
    point[4, 4] = 1
    blurred = _smoothed(point, 1.0)
    assert blurred[4, 4] == pytest.approx(1 / (2 * np.pi), rel=0.01)  # a Gaussian's peak
    assert blurred[4, 5] / blurred[4, 4] == pytest.approx(np.exp(-0.5), rel=1e-4)
    np.testing.assert_allclose(blurred, blurred.T, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"patch": 9}, "1 to 8 pixels, as the image; got 9"),
        ({"patch": 0}, "1 to 8 pixels"),
        ({"patch": 2, "stride": 3}, "1 to 2, the patch, or leave gaps; got 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, text, pair):
    with pytest.raises(ValueError, match=text):
        occlusion_map(made(), *pair, **options)


def test_a_negative_blur_is_refused(pair):
    with pytest.raises(ValueError, match="at least 0; got -1"):
        gradient_map(made(), *pair, smooth=-1)


def test_the_picture_shows_maps_or_says_why_not(pair, tmp_path):
    images = [image[..., None] for image in pair]
    rng = np.random.default_rng(0)
    maps = [rng.random(SIZE, np.float32) - 0.5 for _ in range(2)]
    zeros = [np.zeros(SIZE, np.float32)] * 2
    sizes = []
    for name, pictures, gradient in (
        ("maps", images, [np.abs(m) for m in maps]),
        ("flat", images, zeros),
        ("equal", [images[0]] * 2, zeros),
    ):
        path = tmp_path / f"{name}.png"
        explanation(
            pictures, maps, gradient, path,
            similarity=0.7, threshold=0.5, names=["a$b", "中"], origin="a run", patch=3,
        )  # fmt: skip
        with Image.open(path) as picture:
            sizes.append(picture.size)
    assert sizes == [(1100, 760)] * 3
    assert len({(tmp_path / f"{n}.png").read_bytes() for n in ("maps", "flat", "equal")}) == 3
