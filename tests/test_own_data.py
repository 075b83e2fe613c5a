"""Own data however small: every scheme draws what it says, or gives a sentence; none hangs."""

import io
import json

import jax
import numpy as np
import pytest
from PIL import Image
from shrunk import recipe_file, shrunk
from synthetic import labelled

from siamjax import config as configuration
from siamjax import recipe, run
from siamjax.data.folder import folder
from siamjax.types import DataSplits, LabelledImages, PairDraw

SCHEMES = ("balanced", "within-group", "triples", "in-batch", "all-once", "consecutive")


def of_counts(*counts, groups=1):
    """A class of each of these sizes, every class in the next group."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    images = np.arange(len(labels) * 4, dtype=np.uint8).reshape(-1, 2, 2, 1)
    return LabelledImages(
        images=images,
        labels=labels,
        groups=labels % groups,
        drawers=np.full(len(labels), -1, np.int32),
        class_names=tuple(f"c{i}" for i in range(len(counts))),
        group_names=tuple(f"g{i}" for i in range(groups)),
    )


def config_of(scheme, batch_size=12, **pairs):
    config = configuration.base()
    config.batch_size = batch_size
    config.eval.update(way=2, trials=4, pairs=8)
    config.augment.name = "affine"
    config.pairs.update(scheme=scheme, **pairs)
    return config


def drawn(scheme, images, **settings):
    """A batch of pairs or of images, as arrays; or the sentence."""
    config = config_of(scheme, **settings)
    recipe.validate(config)
    splits = DataSplits(images, labelled(), None, name="own", summary="")
    feed = recipe.build_feed(config, splits)
    draw = recipe.build_scheme(config)(jax.random.key(0), 0, feed.table)
    return jax.tree.map(np.asarray, draw)


def check(draw, images, self_allowed=()):
    if isinstance(draw, PairDraw):
        left, right = (images.labels[side] for side in (draw.left, draw.right))
        used = draw.weight > 0
        np.testing.assert_array_equal((left == right)[used], draw.same[used])
        itself = (draw.left == draw.right) & used
        assert set(left[itself].tolist()) <= set(self_allowed)
        return
    used = draw.weight > 0
    np.testing.assert_array_equal(images.labels[draw.index][used], draw.label[used])
    for index, there in zip(draw.index, used, strict=True):  # a group may come twice
        assert len(set(index[there].tolist())) == there.sum()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("counts", [(1, 2), (3, 1, 2000)])
def test_a_handful_of_images_gives_pairs(scheme, counts):
    images = of_counts(*counts)
    check(drawn(scheme, images), images)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((5,), "need at least two classes"),
        ((1,), "need at least two classes"),
        ((1, 1, 1), "need a class with at least two images"),
    ],
)
def test_what_gives_no_pairs_gives_a_sentence(scheme, counts, text):
    with pytest.raises(ValueError, match=text):
        drawn(scheme, of_counts(*counts))


@pytest.mark.parametrize("scheme", ["within-group", "in-batch"])
def test_groups_of_one_class_give_a_sentence(scheme):
    with pytest.raises(ValueError, match="no group of the training images has two"):
        drawn(scheme, of_counts(3, 3, 3, groups=3))


@pytest.mark.parametrize("scheme", ["balanced", "within-group", "triples"])
def test_singletons_meet_themselves_when_asked(scheme):
    images = of_counts(1, 1, 1, 4)
    draw = drawn(scheme, images, batch_size=128, augment_singletons=True)
    check(draw, images, self_allowed=(0, 1, 2))
    itself = draw.same & (draw.left == draw.right)
    assert itself.any()
    assert set(images.labels[draw.left[draw.same]].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("scheme", "name", "text"),
    [
        ("balanced", "none", "teaches nothing unless the two are warped: set config.augment.name"),
        ("in-batch", "affine", "needs config.pairs.scheme balanced, within-group or triples"),
        ("all-once", "affine", "needs config.pairs.scheme balanced, within-group or triples"),
    ],
)
def test_where_singletons_cannot_be_augmented(scheme, name, text):
    config = config_of(scheme, augment_singletons=True)
    config.augment.name = name
    with pytest.raises(ValueError, match=text):
        recipe.validate(config)


@pytest.mark.slow
def test_a_run_on_one_image_a_class(tmp_path):
    """Positives are two warps of one image; validation has real ones."""
    rng = np.random.default_rng(0)
    names = [f"train/c{c}/only.png" for c in range(12)]
    names += [f"validation/v{c}/{i}.png" for c in range(5) for i in range(2)]
    for name in names:
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(path)
    config = configuration.from_json(
        configuration.to_json(shrunk(recipe_file("mnist_mlp"), tmp_path / "cache"))
    )
    with config.unlocked():
        config.data.update(source="folder", dir=str(tmp_path / "d"))
        config.pairs.update(scheme="balanced", augment_singletons=True)
        config.augment.name = "affine"
        config.batch_size = 8
        config.eval.update(way=5, trials=10)
        config.train.update(mode="iterations", steps=3, log_every=1)
    run.train(config, tmp_path / "run", lambda _: None)
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses
    assert np.isfinite(losses).all()


# ----------------------------------------------------------------------- pixels of every kind


def saved(picture, kind, **how):
    stream = io.BytesIO()
    picture.save(stream, kind, **how)
    return stream.getvalue()


def kinds():
    """Files of 4×6 whose left half is black and right half is grey 128, each in its own way."""
    half = np.full((4, 6), 128, np.uint8)
    half[:, :3] = 0
    grey = Image.fromarray(half)
    clear = np.dstack([half, half, half, np.full((4, 6), 255, np.uint8)])
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned right by a quarter when shown
    lying = grey.transpose(Image.Transpose.ROTATE_90)
    other = Image.new("L", (6, 4), 255)
    return {
        "grey.png": saved(grey, "PNG"),
        "rgb.bmp": saved(grey.convert("RGB"), "BMP"),
        "rgba.png": saved(Image.fromarray(clear), "PNG"),
        "wide.png": saved(Image.fromarray(half.astype(np.uint16) * 257), "PNG"),
        "wide.tif": saved(Image.fromarray(half.astype(np.uint16) * 257), "TIFF"),
        "cmyk.tif": saved(grey.convert("RGB").convert("CMYK"), "TIFF"),
        "palette.gif": saved(grey.convert("P"), "GIF"),
        "moves.gif": saved(grey, "GIF", save_all=True, append_images=[other]),
        "pages.tif": saved(grey, "TIFF", save_all=True, append_images=[other]),
        "turned.png": saved(lying, "PNG", exif=turned),
        "wrong.jpg": saved(grey, "PNG"),
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_file_shows_the_same_pixels(tmp_path, channels):
    for c in range(2):
        for name, data in kinds().items():
            path = tmp_path / f"d/c{c}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    config = configuration.base()
    config.data.update(source="folder", dir=str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"))
    config.data.update(size=(4, 6), channels=channels)
    splits = folder(config)
    assert len(splits.train) + len(splits.validation) == 2 * len(kinds())
    for part in (splits.train, splits.validation):
        for path, image in zip(part.paths, part.images, strict=True):
            assert (image[:, :3] == 0).all(), path
            assert (image[:, 3:] == 128).all(), path
    assert "4 images have several frames or pages" in " ".join(splits.notes)


def test_rectangles_are_fitted(tmp_path):
    """A wide stroke stays in the middle whatever the fit; letterbox pads with paper."""
    wide = np.full((4, 16), 255, np.uint8)
    wide[:, 6:10] = 0
    for c in range(2):
        (tmp_path / f"d/c{c}").mkdir(parents=True)
        for i in range(2):
            Image.fromarray(wide).save(tmp_path / f"d/c{c}/{i}.png")
    expected = {
        "resize": np.tile([255, 255, 255, 0, 0, 255, 255, 255], (8, 1)),
        "crop": np.zeros((8, 8)),  # the middle 4×4 is all stroke
    }
    for fit in ("resize", "crop", "letterbox"):
        config = configuration.base()
        config.data.update(
            source="folder", dir=str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"),
            fit=fit, size=(8, 8),
        )  # fmt: skip
        (image, *_) = folder(config).train.images
        if fit == "letterbox":
            assert (image[:3] == 255).all()
            assert (image[5:] == 255).all()
            assert (image[3:5, 3:5] < 64).all()
        else:
            assert np.abs(image[..., 0].astype(int) - expected[fit]).mean() < 32
