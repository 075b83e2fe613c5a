"""Which images are evaluated, and what is said of them."""

import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from shrunk import pair_folder
from synthetic import labelled

from siamjax import config as configuration
from siamjax.data import load
from siamjax.evaluation.subject import _merged, other_subject, own_subject
from siamjax.types import PairTable


@pytest.fixture
def config(tmp_path):
    c = configuration.base()
    c.data.size = (8, 8)
    c.data.cache_dir = str(tmp_path / "cache")
    return c.lock()


def classes(root, names, each=3):
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(1, each + 1):
            noise = rng.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(noise).save(root / name / f"0000_{i:02}.png")
    return root


def test_the_runs_own_data_by_split(config, tmp_path):
    names = [f"{part}/{name}" for part in ("train", "val", "test") for name in ("a", "b")]
    with config.unlocked():
        config.data.source, config.data.dir = "folder", str(classes(tmp_path / "in", names))
    found = own_subject(load(config))
    assert (found.split, len(found.images), found.images.class_names) == (
        "split test",
        6,
        ("a", "b"),
    )
    assert found.title.endswith(
        "split test: 2 classes, 6 images; classes: all of 2 seen in training"
    )
    found = own_subject(load(config), "validation")
    assert found.seen.endswith("they also chose the checkpoint and the thresholds")
    assert len(own_subject(load(config), "all").images) == 18
    assert "training images are among them" in own_subject(load(config), "all").seen
    assert own_subject(load(config), trained=False).seen == "nothing was trained"


def test_a_split_that_is_not_there_is_named(config):
    with config.unlocked():
        config.data.source, config.data.glyph_alphabets = "glyphs", (2, 2)
    assert own_subject(load(config)).split == "split validation"
    assert "not seen in training" in own_subject(load(config)).seen
    with pytest.raises(
        ValueError, match=r"has no test images; it has train, validation \(--split\)"
    ):
        own_subject(load(config), "test")


def test_omniglots_validation_alphabets_come_first(config, tmp_path):
    root = tmp_path / "data"
    classes(root / "images_background", [f"Greek/character{i:02}" for i in (1, 2)])
    classes(root / "images_evaluation", ["ULOG/character01", "Tibetan/character01"])
    with config.unlocked():
        config.data.dir = str(root)
    assert own_subject(load(config)).images.group_names == ("ULOG",)
    assert own_subject(load(config), "test").images.group_names == ("Tibetan",)
    assert other_subject(config, root).images.group_names == ("ULOG",)
    alone = other_subject(config, root / "images_evaluation")
    assert set(alone.images.group_names) == {"ULOG", "Tibetan"}
    assert set(alone.images.drawers) == {1, 2, 3}
    shutil.rmtree(root / "images_background")
    assert len(other_subject(config, root).images) == 6


def test_other_class_folders_are_used_whole(config, tmp_path):
    place = classes(tmp_path / "photos", ["cat", "dog", "owl"])
    found = other_subject(config, place, training_classes=["dog"])
    assert (found.name, found.split, len(found.images)) == ("photos", "split all", 9)
    assert found.seen == "classes: 1 of 3 seen in training"
    assert found.images.images.shape == (9, 8, 8, 1)
    file = np.array(Image.open(place / found.images.paths[4]))
    np.testing.assert_array_equal(found.images.images[4, ..., 0], file)
    assert "not known whether training saw" in other_subject(config, place).seen
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in place.rglob("*.png"):
            archive.write(path, path.relative_to(tmp_path).as_posix())
    zipped = other_subject(config, tmp_path / "photos.zip")
    np.testing.assert_array_equal(zipped.images.images, found.images.images)


def test_other_class_folders_with_splits_give_their_test_images(config, tmp_path):
    place = classes(tmp_path / "in", ["train/a", "train/b", "test/c", "test/d"])
    assert other_subject(config, place).images.class_names == ("c", "d")
    assert other_subject(config, place, "train").images.class_names == ("a", "b")
    assert len(other_subject(config, place, "all").images) == 12
    with pytest.raises(ValueError, match=r"in has no validation images; it has train, test"):
        other_subject(config, place, "validation")


def test_tables_of_pairs(config, tmp_path):
    with config.unlocked():
        config.data.source = "pair_table"
    found = other_subject(config, pair_folder(tmp_path / "pairs"))
    assert found.pairs is not None
    assert (found.split, len(found.pairs.same), len(found.images)) == ("split test", 12, 24)
    assert "12 pairs of 24 images" in found.title


def test_a_csv_without_splits_is_used_whole_by_any_run(config, tmp_path):
    classes(tmp_path, ["a", "b", "c", "d", "e"], each=2)
    rows = [f"{x}/0000_01.png,{x}/0000_02.png,1" for x in "abcde"]
    rows += [f"{x}/0000_01.png,{y}/0000_01.png,0" for x, y in zip("abcde", "bcdea", strict=True)]
    table = tmp_path / "pairs.csv"
    table.write_text("left,right,same\n" + "\n".join(rows) + "\n")
    found = other_subject(config, table)
    assert found.pairs is not None
    assert (len(found.pairs.same), found.pairs.same.sum(), len(found.images)) == (10, 5, 10)
    for left, right, same in zip(*found.pairs, strict=True):
        a, b = found.images.paths[left], found.images.paths[right]
        assert same == (a[0] == b[0])
        assert f"{a},{b},{int(same)}" in rows


def test_what_is_not_there_is_named(config, tmp_path):
    with pytest.raises(ValueError, match=r"there is no .*gone \(--data\)"):
        other_subject(config, tmp_path / "gone")


def test_merged_splits_keep_every_image_once():
    images = labelled(classes=3, each=2, groups=1, size=(4, 4))
    named = type(images)(**{**images.__dict__, "paths": tuple(f"{i}.png" for i in range(6))})
    first, second = named.select(np.array([0, 1, 2])), named.select(np.array([2, 3, 5]))
    tables = [
        PairTable(np.int32([0]), np.int32([2]), np.array([False])),
        PairTable(np.int32([0, 2]), np.int32([1, 1]), np.array([True, False])),
    ]
    merged, pairs = _merged([first, second], tables)
    assert merged.paths == ("0.png", "1.png", "2.png", "3.png", "5.png")
    assert merged.class_names == ("class0", "class1", "class2")
    assert merged.labels.tolist() == [0, 0, 1, 1, 2]
    np.testing.assert_array_equal(merged.images, images.images[[0, 1, 2, 3, 5]])
    assert pairs is not None
    assert [pairs.left.tolist(), pairs.right.tolist()] == [[0, 2, 4], [2, 3, 3]]
