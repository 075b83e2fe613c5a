import hashlib

import numpy as np
import pytest
from scipy import ndimage

from siamjax.config import base
from siamjax.data import glyphs as module
from siamjax.data.glyphs import Stroke, glyphs, make_alphabet
from siamjax.preprocess import Preprocess


def config(alphabets=(2, 1), seed=0, **data):
    c = base()
    c.seed = seed
    c.data.glyph_alphabets = alphabets
    for key, value in data.items():
        c.data[key] = value
    return c


@pytest.fixture(scope="module")
def splits():
    return glyphs(config())


def ink(images):
    """`[characters, 20, 105, 105]`."""
    return (images[..., 0] < 128).reshape(-1, 20, 105, 105)


# ------------------------------------------------------------------------------------ the splits


def test_what_comes_out(splits):
    train = splits.train
    classes = len(train.class_names)
    assert train.images.shape == (classes * 20, 105, 105, 1)
    assert train.images.dtype == np.uint8
    assert train.labels.tolist() == [k for k in range(classes) for _ in range(20)]
    assert train.drawers.tolist() == list(range(1, 21)) * classes
    assert train.group_names == ("glyphs-000", "glyphs-001")
    assert train.class_names[0] == "glyphs-000/character01"
    groups = train.groups.reshape(-1, 20)
    for name, group in zip(train.class_names, groups, strict=True):
        assert set(group) == {train.group_names.index(name.split("/")[0])}
    assert splits.test is None
    assert splits.name == "glyphs"
    assert splits.notes == ()
    validation = len(splits.validation.class_names)
    assert splits.summary == (
        f"glyphs (drawn, seed 0): 2 + 1 alphabets, {classes} + {validation} characters,"
        f" {20 * classes:,} + {20 * validation} images"
    )


def test_training_and_validation_share_no_alphabet(splits):
    assert splits.validation.group_names == ("glyphs-002",)
    assert not set(splits.train.class_names) & set(splits.validation.class_names)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(splits):
    again = glyphs(config(alphabets=(1, 2)))
    # Alphabet 1 is the second of training there and the first of validation here.
    there = splits.train.images[splits.train.groups == 1]
    here = again.validation.images[again.validation.groups == 0]
    assert there.tobytes() == here.tobytes()
    other = glyphs(config(alphabets=(1, 1), seed=1)).train.images
    assert other[:20].tobytes() != splits.train.images[:20].tobytes()


def test_the_drawings_are_those_of_this_version(splits):
    # If this fails for a change that was meant, raise VERSION and put the new digest here.
    assert module.VERSION == 1
    digest = hashlib.sha256(splits.train.images[:400].tobytes()).hexdigest()
    assert digest[:16] == "b0d6884f3f623bfa"


def test_drawer_split_shares_no_drawer_either():
    splits = glyphs(config(alphabets=(1, 1), split="drawer"))
    assert set(splits.train.drawers) == set(range(1, 13))
    assert set(splits.validation.drawers) == {13, 14, 15, 16}
    assert len(splits.train) == 12 * len(splits.train.class_names)
    assert "drawers: 1-12 train, 13-16 validate; 17-20 are left out" in splits.notes[0]


def test_fingerprint_knows_what_the_pixels_depend_on(splits):
    assert splits.fingerprint == module._fingerprint(config())
    changed = [
        config(seed=1),
        config(alphabets=(1, 2)),
        config(size=(35, 35)),
        config(invert=True),
        config(channels=3),
        config(fit="crop"),
        config(split="drawer"),
    ]
    fingerprints = {module._fingerprint(c) for c in [config(), *changed]}
    assert len(fingerprints) == 1 + len(changed)


@pytest.mark.parametrize("alphabets", [(30,), (0, 10), (30, 1.5)])
def test_glyph_alphabets_must_be_two_positive_integers(alphabets):
    c = config()
    with c.ignore_type():
        c.data.glyph_alphabets = alphabets
    message = r"config\.data\.glyph_alphabets must be two positive integers, .*\(30, 10\); got \("
    with pytest.raises(ValueError, match=message):
        glyphs(c)


# ------------------------------------------------------------------------------- preprocessing


def test_size_channels_and_invert_are_honoured(monkeypatch, splits):
    few = make_alphabet(0, 0)[:3]
    monkeypatch.setattr(module, "make_alphabet", lambda seed, number: few)
    small = glyphs(config(size=(28, 35), channels=3, invert=True)).train.images
    preprocess = Preprocess((28, 35), channels=3, invert=True)
    assert small.shape == (120, 28, 35, 3)
    for i in (0, 59):
        assert np.array_equal(small[i], preprocess(splits.train.images[i]))


@pytest.mark.parametrize(("channels", "invert"), [(1, False), (1, True), (3, True)])
def test_full_size_is_what_preprocess_gives(channels, invert):
    page = np.random.default_rng(0).integers(0, 256, (2, 105, 105), np.uint8)
    out = module._preprocess(page, config(channels=channels, invert=invert))
    preprocess = Preprocess((105, 105), channels=channels, invert=invert)
    assert np.array_equal(out, np.stack([preprocess(image) for image in page]))


# ----------------------------------------------------------------------------- like handwriting


def test_black_ink_on_white_paper_as_much_as_in_omniglot(splits):
    images = splits.train.images
    assert set(np.unique(images)) == {0, 255}
    share = ink(images).mean((2, 3))
    assert share.min() > 0.003
    assert share.max() < 0.3
    assert 0.05 < np.median(share) < 0.11  # Omniglot: 0.077


def test_nothing_is_drawn_over_the_edge(splits):
    paper = ~ink(splits.train.images)
    assert paper[..., 0, :].all()
    assert paper[..., -1, :].all()
    assert paper[..., 0].all()
    assert paper[..., -1].all()


def test_alphabets_have_14_to_40_characters_all_different():
    counts = []
    for number in range(5):
        outlines = [module._signature(module._outline(c)) for c in make_alphabet(3, number)]
        counts.append(len(outlines))
        apart = [module._nearest(outlines[i], outlines[:i]) for i in range(1, len(outlines))]
        assert np.mean(np.array(apart) >= module.DISTINCT) > 0.9
        assert min(apart) > 0.04
    assert 14 <= min(counts) < 27 < max(counts) <= 40


def test_drawers_have_a_hand_of_their_own(splits):
    """A drawer who writes large, or with a fine pen, does so in every alphabet."""
    reach, weight = [], []
    for images in (splits.train.images, splits.validation.images):
        rows = ink(images).any(3)
        reach.append(rows.sum(2).mean(0))
        weight.append(ink(images).mean((0, 2, 3)))
    assert np.corrcoef(reach)[0, 1] > 0.8
    assert np.corrcoef(weight)[0, 1] > 0.8


def test_drawings_of_a_character_differ_but_are_recognisable(splits):
    """20-way, another drawer's drawings, nearest by the cosine of pixels: Omniglot's is 21 %."""
    rng = np.random.default_rng(0)
    hits = []
    for images, groups in ((s.images, s.groups) for s in (splits.train, splits.validation)):
        for group in np.unique(groups):
            flat = ink(images[groups == group]).reshape(-1, 20, 105 * 105).astype(np.float32)
            flat /= np.linalg.norm(flat, axis=-1, keepdims=True)
            assert len(np.unique(flat.reshape(-1, 105 * 105), axis=0)) == flat.shape[0] * 20
            for _ in range(200):
                classes = rng.permutation(len(flat))[:20]
                one, other = rng.permutation(20)[:2]
                hits.append((flat[classes, one] @ flat[classes[0], other]).argmax() == 0)
    assert 0.15 < np.mean(hits) < 0.45


# ------------------------------------------------------------------------------------- the pen


def test_a_stroke_blends_polyline_and_spline():
    at = np.array([0.0, 1.0, 1.5, 3.0])
    line = module._basis(at, 4, 0.0)
    assert line.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]
    spline = module._basis(at, 4, 1.0)
    assert spline[2].tolist() == [-1 / 16, 9 / 16, 9 / 16, -1 / 16]  # Catmull-Rom's midpoint
    assert np.array_equal(spline[[0, 1, 3]], line[[0, 1, 3]])  # both pass through the points
    assert np.allclose(module._basis(at, 4, 0.5), (line + spline) / 2)
    assert np.allclose(module._basis(np.linspace(0, 2, 9), 3, 1.0).sum(1), 1)


def test_the_pen_is_a_disc_of_5_pixels_and_a_fine_one_of_4():
    dots = np.zeros((2, 9, 9), bool)
    dots[:, 4, 4] = True
    broad, fine = module._thicken(dots, np.array([False, True]))
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
    roundness, points = module.SHAPES[name]
    stroke = Stroke(np.array(points, float), roundness)
    rngs = [np.random.default_rng(d) for d in range(20)]
    images = module._draw([stroke], module._hands(0), rngs)
    for image in images:
        assert ndimage.label(image == 0, np.ones((3, 3)))[1] == 1
