import dataclasses
import hashlib

import numpy as np
import pytest

from siamjax.config import base
from siamjax.data import glyphs as module
from siamjax.data import handwriting, load
from siamjax.data.glyphs import beside, glyphs, make_alphabet
from siamjax.data.handwriting import Stroke
from siamjax.preprocess import Preprocess


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory):
    """The user's cache directory for these tests: what one has drawn, the next need not draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def config(alphabets=(2, 1), seed=0, **data):
    c = base()
    c.data.glyph_alphabets = alphabets
    c.data.glyph_seed = seed
    for key, value in data.items():
        c.data[key] = value
    return c


BAR = Stroke(np.array([(0.0, -1.0), (0.0, 1.0)]), 0.0)


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


def test_a_second_start_maps_what_the_first_one_drew(tmp_path, monkeypatch):
    # Bars alone: that the pixels are drawn once is the same whatever they show.
    monkeypatch.setattr(module, "make_alphabet", lambda seed, number: [[BAR], [BAR, BAR]])
    c = config(alphabets=(1, 1), cache_dir=str(tmp_path))
    first = glyphs(c)
    monkeypatch.setattr(handwriting, "draw", None)  # from here on, drawing is a TypeError
    c.seed = 7  # of training: runs over seeds share their data
    second = glyphs(c)
    assert isinstance(second.train.images.base, np.memmap)
    assert second.train.images.tobytes() == first.train.images.tobytes()
    assert second.validation.images.tobytes() == first.validation.images.tobytes()
    assert (second.fingerprint, second.summary) == (first.fingerprint, first.summary)
    assert second.notes == ()
    for field in ("labels", "groups", "drawers", "class_names", "group_names", "paths"):
        assert np.array_equal(getattr(second.train, field), getattr(first.train, field))
    assert second.train.paths[21] == "glyphs-000/character02/02"


def test_what_changes_the_pixels_is_drawn_anew_and_has_another_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "make_alphabet", lambda seed, number: [[BAR], [BAR]])
    drawn = []
    original = handwriting.draw
    monkeypatch.setattr(handwriting, "draw", lambda *args: (drawn.append(1), original(*args))[1])
    fingerprints = set()
    for change, characters in (
        ({}, 4),
        ({"seed": 1}, 4),
        ({"alphabets": (1, 2)}, 4),  # training is there already
        ({"size": (35, 35)}, 4),
        ({"invert": True}, 4),
        ({"channels": 3}, 4),
        ({"fit": "crop"}, 4),
        ({"split": "drawer"}, 0),  # the same pixels, fewer of them used
    ):
        drawn.clear()
        settings = {"alphabets": (1, 1), "cache_dir": str(tmp_path)} | change
        fingerprints.add(glyphs(config(**settings)).fingerprint)
        assert len(drawn) == characters, change
    assert len(fingerprints) == 8


def test_a_cache_that_cannot_be_written_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "make_alphabet", lambda seed, number: [[BAR]])
    (tmp_path / "file").write_text("")
    splits = glyphs(config(alphabets=(1, 1), cache_dir=str(tmp_path / "file")))
    (note,) = splits.notes
    assert "kept in memory only, not cached" in note
    assert len(splits.train) == 20


@pytest.mark.parametrize("alphabets", [(30,), (0, 10), (30, 1.5)])
def test_glyph_alphabets_must_be_two_positive_integers(alphabets):
    c = config()
    with c.ignore_type():
        c.data.glyph_alphabets = alphabets
    message = r"config\.data\.glyph_alphabets must be two positive integers, .*\(30, 10\); got \("
    with pytest.raises(ValueError, match=message):
        glyphs(c)


# ------------------------------------------------------------------------------- preprocessing


def test_size_channels_and_invert_are_honoured(tmp_path, monkeypatch, splits):
    few = make_alphabet(0, 0)[:3]
    monkeypatch.setattr(module, "make_alphabet", lambda seed, number: few)
    settings = {"size": (28, 35), "channels": 3, "invert": True, "cache_dir": str(tmp_path)}
    small = glyphs(config(**settings)).train.images
    preprocess = Preprocess((28, 35), channels=3, invert=True)
    assert small.shape == (120, 28, 35, 3)
    for i in (0, 59):
        assert np.array_equal(small[i], preprocess(splits.train.images[i]))


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
        outlines = [handwriting.signature(handwriting.outline(c)) for c in make_alphabet(3, number)]
        counts.append(len(outlines))
        apart = [handwriting.nearest(outlines[i], outlines[:i]) for i in range(1, len(outlines))]
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


def test_drawn_alphabets_train_beside_a_source_and_are_not_its_own(splits):
    c = config()
    c.data.source, c.data.drawn_alphabets = "glyphs", 2
    with_more = load(c)
    train, own = with_more.train, len(splits.train)
    np.testing.assert_array_equal(train.images[:own], splits.train.images)
    assert train.group_names == ("glyphs-000", "glyphs-001", "glyphs-003", "glyphs-004")
    assert train.class_names[train.labels[own]] == "glyphs-003/character01"
    assert train.group_names[train.groups[own]] == "glyphs-003"
    assert train.paths[own] == "glyphs-003/character01/01"
    assert len(np.unique(train.labels)) == len(train.class_names) == len(set(train.class_names))
    assert with_more.validation.group_names == ("glyphs-002",)
    more = len(train) - own
    assert with_more.summary.endswith(
        f"; 2 drawn alphabets (seed 0) train beside them: {more // 20} characters, {more:,} images"
    )
    assert with_more.fingerprint != splits.fingerprint


def test_drawn_alphabets_cannot_join_fixed_pairs(splits):
    c = config()
    c.data.drawn_alphabets = 1
    with pytest.raises(ValueError, match="fixed pairs, which drawn alphabets cannot join"):
        beside(c, dataclasses.replace(splits, pairs={"train": None}))
