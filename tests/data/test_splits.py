import numpy as np
import pytest

from siamjax.config import base
from siamjax.data.splits import (
    data_root,
    divide,
    hold_out,
    name_some,
    part,
    seen_note,
    singles_note,
    summarise,
)
from siamjax.types import LabelledImages


def make(counts, groups=None):
    """Images of `counts[i]` per class i; each pixel is the number of the image."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    groups = np.zeros(len(counts), np.int32) if groups is None else np.array(groups, np.int32)
    n = len(labels)
    return LabelledImages(
        images=np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1),
        labels=labels,
        groups=groups[labels],
        drawers=np.full(n, -1, np.int32),
        class_names=tuple(f"c{i}" for i in range(len(counts))),
        group_names=tuple(f"g{i}" for i in range(groups.max() + 1)),
        paths=tuple(f"{i}.png" for i in range(n)),
    )


def same(a, b):
    for name in ("images", "labels", "groups", "drawers"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.class_names, a.group_names, a.paths) == (b.class_names, b.group_names, b.paths)


@pytest.mark.parametrize("keep", [[2, 3, 4, 5], [0, 5], [], range(12), [3, 2]])
def test_part_is_select(keep):
    images = make([3] * 4, [0, 1, 2, 2])
    same(part(images, np.array(list(keep), int)), images.select(np.array(list(keep), int)))


def test_a_contiguous_part_copies_no_pixels():
    images = make([3] * 4)
    mask = np.arange(12) // 3 == 2
    assert np.shares_memory(part(images, mask).images, images.images)


def test_whole_groups_are_held_out():
    images = make([2] * 20, np.repeat(np.arange(10), 2))
    train, validation, note = hold_out(images, 0.2, seed=3)
    assert len(train.group_names) == 8
    assert len(validation.group_names) == 2
    assert not set(train.group_names) & set(validation.group_names)
    assert not set(train.paths) & set(validation.paths)
    assert len(train) + len(validation) == 40
    expected = "2 of 10 groups (" + ", ".join(validation.group_names) + ")"
    assert expected in note
    assert "seed 3" in note


def test_the_seed_chooses():
    images = make([2] * 20, np.repeat(np.arange(10), 2))
    picks = {hold_out(images, 0.2, seed)[1].group_names for seed in range(8)}
    assert len(picks) > 3
    same(hold_out(images, 0.2, 5)[1], hold_out(images, 0.2, 5)[1])


def test_groups_of_one_class_are_joined_until_two_classes_are_held_out():
    validation = hold_out(make([2] * 10, range(10)), 0.1, seed=0)[1]
    assert len(validation.class_names) == 2


def test_whole_classes_where_there_are_few_groups():
    images = make([4] * 10, [0] * 5 + [1] * 5)
    train, validation, note = hold_out(images, 0.3, seed=0)
    assert (len(train.class_names), len(validation.class_names)) == (7, 3)
    assert not set(train.class_names) & set(validation.class_names)
    assert "3 of 10 classes" in note


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_two_classes_stay_on_each_side(share):
    train, validation, _ = hold_out(make([4] * 6), share, seed=0)
    assert min(len(train.class_names), len(validation.class_names)) == 2


@pytest.mark.parametrize("seed", range(5))
def test_classes_of_one_image_stay_in_training(seed):
    counts = [1, 5, 1, 1, 5, 1, 5, 1]
    train, validation, _ = hold_out(make(counts), 0.5, seed)
    assert set(validation.class_names) <= {"c1", "c4", "c6"}
    assert len(validation.class_names) == 3
    assert len(train.class_names) == 5


def test_images_where_there_are_few_classes():
    train, validation, note = hold_out(make([10, 1, 3]), 0.2, seed=0)
    assert np.bincount(validation.labels).tolist() == [2, 1]  # c0 and c2
    assert validation.class_names == ("c0", "c2")
    assert np.bincount(train.labels).tolist() == [8, 1, 2]
    assert not set(train.paths) & set(validation.paths)
    assert "3 of 14 images" in note
    assert "classes: seen" in note


def test_two_images_on_each_side_where_there_are_four():
    train, validation, _ = hold_out(make([10, 4]), 0.01, seed=0)
    assert np.bincount(validation.labels).tolist() == [2, 2]
    assert np.bincount(hold_out(make([10, 4]), 0.99, seed=0)[0].labels).tolist() == [2, 2]
    assert len(train) == 10


def test_groups_are_not_held_out_if_one_class_would_remain():
    train, _, note = hold_out(make([4] * 3, range(3)), 0.3, seed=0)
    assert len(train.class_names) == 3
    assert "images" in note


def test_what_cannot_be_held_out():
    with pytest.raises(ValueError, match=r"1 class\(es\) found \(c0\).*at least two"):
        hold_out(make([9]), 0.2, 0)
    with pytest.raises(ValueError, match="nothing can be held out: 3 classes of one image each"):
        hold_out(make([1, 1, 1]), 0.2, 0)


# ------------------------------------------------------------------------------------------- divide


def test_seeds_may_share_a_split():
    images = make([2] * 20)

    def held(seed, split_seed=None):
        config = base()
        config.seed, config.data.split_seed = seed, split_seed
        return divide(images, np.array([""] * 40), config)[1].class_names

    assert held(1) != held(2)
    assert held(1, 5) == held(2, 5) == held(5)
    assert held(2, 0) == held(0)


def divided(images, split, holdout=0.25):
    config = base()
    config.data.holdout = holdout
    return divide(images, np.array(split), config)


def test_given_splits_are_kept():
    images = make([2] * 6)
    train, validation, test, notes = divided(
        images, ["train"] * 6 + ["validation"] * 2 + ["test"] * 4
    )
    assert train.class_names == ("c0", "c1", "c2")
    assert validation.class_names == ("c3",)
    assert test.class_names == ("c4", "c5")
    assert notes == []
    assert np.shares_memory(train.images, images.images)


def test_validation_is_held_out_by_image_if_the_test_classes_are_seen():
    images = make([8, 8, 8, 8])
    split = (["train"] * 6 + ["test"] * 2) * 4
    train, validation, test, notes = divided(images, split)
    assert train.class_names == validation.class_names == test.class_names
    assert np.bincount(validation.labels).tolist() == [2] * 4
    assert any("classes: seen (every test class" in note for note in notes)


def test_validation_is_held_out_by_class_if_the_test_classes_are_new():
    images = make([2] * 6)
    train, validation, test, _ = divided(images, ["train"] * 8 + ["test"] * 4)
    names = [set(s.class_names) for s in (train, validation, test)]
    assert names[2] == {"c4", "c5"}
    assert names[0] | names[1] == {"c0", "c1", "c2", "c3"}
    assert not names[0] & names[1]


def test_holdout_zero_makes_the_test_the_validation():
    images = make([2] * 4)
    train, validation, test, notes = divided(images, ["train"] * 4 + ["test"] * 4, holdout=0.0)
    assert (len(train), len(validation), test) == (4, 4, None)
    assert "test images are the validation images" in notes[0]
    with pytest.raises(ValueError, match="holdout = 0, but"):
        divided(images, [""] * 8, holdout=0.0)


def test_splits_without_training_images():
    with pytest.raises(ValueError, match="no training images: the splits are test, validation"):
        divided(make([2, 2]), ["test", "test", "validation", "validation"])


def test_one_training_class_is_too_few():
    with pytest.raises(ValueError, match="at least two"):
        divided(make([2, 2]), ["train", "train", "validation", "validation"])


# -------------------------------------------------------------------------------------------- words


def test_seen_note():
    abc = make([1, 1, 1])
    assert seen_note(abc.select([0]), abc.select([1, 2]), "test") is None
    assert seen_note(abc, abc.select([1]), "test") == (
        "classes: seen (every test class is a training class too)"
    )
    partly = seen_note(abc.select([0, 1]), abc.select([1, 2]), "validation")
    assert partly == "classes: 1 of 2 validation classes seen (c1 are training classes too)"


def test_singles_note():
    assert singles_note(make([2, 3])) is None
    assert singles_note(make([2, 1, 1])).startswith("2 of 3 classes have one image (c1, c2): ")


def test_summarise_counts_each_class_once():
    images = make([600, 700], [0, 1])
    line = summarise([images, images.select(np.arange(600))], "8×8, grey", "alphabets")
    assert line == "2 alphabets, 2 classes, 1,900 images, 8×8, grey"
    assert summarise([images], "", groups=False) == "2 classes, 1,300 images"


def test_names_of_any_bytes_can_be_printed():
    assert name_some(["caf\udce9.png"]) == r"caf\udce9.png"


def test_data_root(monkeypatch, tmp_path):
    config = base()
    monkeypatch.delenv("SIAMJAX_DATA", raising=False)
    assert str(data_root(config)) == "data"
    monkeypatch.setenv("SIAMJAX_DATA", str(tmp_path))
    assert data_root(config) == tmp_path
    config.data.dir = "/elsewhere"
    assert str(data_root(config)) == "/elsewhere"
