import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from siamjax.data import duplicates
from siamjax.data.duplicates import exact_groups, look, near_groups, perceptual_hash
from siamjax.preprocess import plain

RNG = np.random.default_rng(0)


def scene(seed=0, size=(96, 128)):
    """A smooth random picture with an edge, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    picture = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC)).copy()
    picture[:, : size[1] // 3] //= 2
    return Image.fromarray(picture)


def again(picture, kind="JPEG", **how):
    stream = io.BytesIO()
    picture.save(stream, kind, **how)
    return Image.open(stream)


def arrays(pictures):
    looks = [look(plain(p)) for p in pictures]
    digests = np.array([np.void(k.digest) for k in looks])
    return (
        digests,
        np.array([k.hash for k in looks], np.uint64),
        np.stack([k.thumb.reshape(-1) for k in looks]),
    )


def test_equal_pixels_are_equal_whatever_the_format_and_mode():
    grey = Image.fromarray(RNG.integers(0, 256, (20, 30), np.uint8))
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    turned = again(grey.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif(6))
    others = [grey.convert("RGB"), again(grey, "BMP"), grey.convert("RGBA"), wide, turned]
    digests, _, _ = arrays([grey, scene(), *others])
    assert [g.tolist() for g in exact_groups(digests)] == [[0, 2, 3, 4, 5, 6]]


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def test_one_pixel_or_another_shape_is_another_picture():
    grey = np.zeros((4, 6), np.uint8)
    other = grey.copy()
    other[3, 5] = 1
    digests, _, _ = arrays(map(Image.fromarray, (grey, other, grey.reshape(6, 4))))
    assert exact_groups(digests) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda p: again(p, quality=40),
        lambda p: p.resize((70, 50)),
        lambda p: p.resize((256, 192)),
        lambda p: ImageEnhance.Brightness(p).enhance(0.85),
        lambda p: p.convert("L"),
        lambda p: again(p, "GIF"),
    ],
    ids=["jpeg", "smaller", "larger", "darker", "grey", "palette"],
)
def test_a_picture_made_anew_is_nearly_the_same(change):
    pictures = [scene(i) for i in range(20)]
    _, hashes, thumbs = arrays([*pictures, change(scene(7))])
    groups, whole = near_groups(hashes, thumbs)
    assert [g.tolist() for g in groups] == [[7, 20]]
    assert whole


def test_other_pictures_are_not():
    _, hashes, thumbs = arrays([scene(i) for i in range(300)])
    assert near_groups(hashes, thumbs) == ([], True)


def test_flat_pictures_are_alike_only_in_equal_grey():
    greys = [Image.new("L", (20, 20), grey) for grey in (0, 128, 255)]
    _, hashes, thumbs = arrays([*greys, Image.new("L", (30, 10), 128)])
    assert [g.tolist() for g in near_groups(hashes, thumbs)[0]] == [[1, 3]]


def test_half_of_the_bits_are_set_of_a_sparse_drawing_too():
    drawing = np.full((32, 32), 255, np.uint8)
    drawing[10:22, 15] = 0
    assert perceptual_hash(RNG.integers(0, 256, (32, 32), np.uint8)).bit_count() in (31, 32)
    assert 8 <= perceptual_hash(drawing).bit_count() <= 32


def test_every_distance_up_to_four_is_found_wherever_the_bits_lie():
    """Against all pairs."""
    base = RNG.integers(0, 2**63, 40, np.uint64)
    flips = [RNG.choice(64, k, replace=False) for k in RNG.integers(0, 8, 200)]
    hashes = np.array([base[i % 40] ^ sum(1 << int(b) for b in f) for i, f in enumerate(flips)])
    hashes = hashes.astype(np.uint64)
    thumbs = np.tile(np.arange(256, dtype=np.uint8), (200, 1))  # all alike: only hashes decide
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= duplicates.DISTANCE
    left, right = np.nonzero(np.triu(near, 1))
    groups, whole = near_groups(hashes, thumbs)
    expected = duplicates.groups_of(duplicates.connected(200, left, right))
    assert [g.tolist() for g in groups] == [g.tolist() for g in expected]
    assert whole


def test_very_many_alike_take_bounded_time_and_say_so(monkeypatch):
    monkeypatch.setattr(duplicates, "NEIGHBOURS", 10)
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 500)
    hashes, thumbs = np.zeros(400, np.uint64), np.tile(np.arange(256, dtype=np.uint8), (400, 1))
    groups, whole = near_groups(hashes, thumbs)
    assert not whole
    assert [len(g) for g in groups] == [400]  # chained by neighbours


def test_fewer_than_two():
    assert near_groups(np.zeros(1, np.uint64), np.zeros((1, 256), np.uint8)) == ([], True)
    assert exact_groups(np.zeros(0, "V16")) == []


def test_equal_hashes_are_not_enough():
    thumbs = RNG.integers(0, 256, (2, 256), np.uint8)
    assert near_groups(np.zeros(2, np.uint64), thumbs) == ([], True)
