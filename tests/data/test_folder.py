import zipfile

import numpy as np
import pytest
from PIL import Image

from siamjax.config import base
from siamjax.data import DataNotFound
from siamjax.data.folder import LAYOUTS, folder, read_layout


def draw(root, *paths, size=(6, 8), mode="L"):
    """Images whose grey tells their place in `paths`."""
    for i, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size[::-1], i if mode == "L" else (i, i, i)).save(root / path)
    return root


def tree(classes, images, groups=()):
    names = [f"class{c}/{i}.png" for c in range(classes) for i in range(images)]
    return [f"{g}/{n}" for g in groups for n in names] if groups else names


def load(place, tmp_path, **data):
    config = base()
    config.data.update(
        {"source": "folder", "dir": str(place), "cache_dir": str(tmp_path / "cache")}
    )
    config.data.size = (6, 8)
    with config.ignore_type():
        config.data.update(data)
    return folder(config)


def total(splits):
    parts = [s for s in (splits.train, splits.validation, splits.test) if s is not None]
    return sum(len(p) for p in parts)


# ------------------------------------------------------------------------------------------ layouts


def test_two_levels(tmp_path):
    root = draw(tmp_path / "pets", *tree(10, 3))
    splits = load(root, tmp_path)
    assert splits.summary == "10 classes, 30 images, 6×8, grey"
    assert splits.name == "folder:pets"
    assert len(splits.train.class_names) == 8
    assert len(splits.validation.class_names) == 2
    assert splits.test is None
    assert splits.train.group_names == ("all",)
    assert set(splits.train.drawers.tolist()) == {-1}
    assert total(splits) == 30
    for part in (splits.train, splits.validation):
        for path, label, image in zip(part.paths, part.labels, part.images, strict=True):
            assert path.startswith(part.class_names[label] + "/")
            assert (image == tree(10, 3).index(path)).all()


def test_three_levels(tmp_path):
    root = draw(tmp_path / "d", *tree(2, 2, groups=["Greek", "Latin", "Runes", "Tamil", "Thai"]))
    splits = load(root, tmp_path)
    assert splits.summary == "5 groups, 10 classes, 20 images, 6×8, grey"
    assert len(splits.validation.group_names) == 1
    held = splits.validation.group_names[0]
    assert splits.validation.class_names == (f"{held}/class0", f"{held}/class1")
    assert any(f"1 of 5 groups ({held})" in note for note in splits.notes)


def test_the_same_class_name_in_two_groups_is_two_classes(tmp_path):
    splits = load(draw(tmp_path / "d", *tree(3, 2, groups="ab")), tmp_path)
    assert splits.summary.startswith("2 groups, 6 classes")


def test_natural_order(tmp_path):
    root = draw(tmp_path / "d", *(f"{c}/{i}.png" for c in (10, 2, 1, 20, 3) for i in (10, 9)))
    train = load(root, tmp_path, holdout=0.01).train
    assert list(train.class_names) == sorted(train.class_names, key=int)
    assert [p.split("/")[1] for p in train.paths[:2]] == ["9.png", "10.png"]


@pytest.mark.parametrize("names", [tree(4, 2), tree(2, 2, groups="abc")])
def test_a_zip_with_wrapping_folders_is_the_same(tmp_path, names):
    root = draw(tmp_path / "wrapped" / "once" / "more", *names)
    draw(tmp_path / "plain", *names)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in names:
            archive.write(root / name, f"once/more/{name}")
    plain = load(tmp_path / "plain", tmp_path)
    for place in (tmp_path / "wrapped", tmp_path / "z.zip"):
        other = load(place, tmp_path)
        assert other.summary == plain.summary
        assert other.validation.class_names == plain.validation.class_names
        np.testing.assert_array_equal(other.train.images, plain.train.images)


@pytest.mark.parametrize("valid", ["validation", "val", "Valid"])
def test_split_folders(tmp_path, valid):
    names = [f"Train/a/{i}.png" for i in range(3)] + ["Train/b/0.png", "Train/b/1.png"]
    names += [f"{valid}/c/0.png", f"{valid}/d/0.png", "test/a/7.png"]
    splits = load(draw(tmp_path / "d", *names), tmp_path)
    assert splits.train.class_names == ("a", "b")
    assert splits.validation.class_names == ("c", "d")
    assert splits.test.class_names == ("a",)
    assert len(splits.train) == 5
    assert "classes: seen (every test class is a training class too)" in splits.notes
    assert splits.train.images.base is not None  # a view of the memory map


def test_train_and_test_only(tmp_path):
    names = [f"train/{n}" for n in tree(6, 4)] + [
        f"test/new{c}/{i}.png" for c in "ab" for i in "12"
    ]
    splits = load(draw(tmp_path / "d", *names), tmp_path)
    assert splits.test.class_names == ("newa", "newb")
    assert len(splits.validation.class_names) == 2
    assert not set(splits.validation.class_names) & set(splits.train.class_names)


def test_images_outside_the_split_folders_are_named(tmp_path):
    names = [f"{s}/{n}" for s in ("train", "val") for n in tree(2, 2)] + ["extra/x/1.png"]
    splits = load(draw(tmp_path / "d", *names), tmp_path)
    assert total(splits) == 8
    assert "1 images outside train, val not used: extra/x/1.png" in splits.notes


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["1.png", "2.png"], r"2 image\(s\) directly in the folder, with no class, such as 1\.png"),
        (["a/1.png", "b/g/1.png"], r"1 image\(s\) 2 levels deep.*\n.*1 image\(s\) 3 levels deep"),
        (["a/b/c/1.png", "d/e/f/1.png"], r"2 image\(s\) 4 levels deep, such as a/b/c/1\.png"),
        (["a/1.png", "b/1.png", "x.png"], r"directly in the folder.*x\.png\n.*2 levels deep"),
        (["train/1.png", "val/1.png"], r"2 image\(s\) directly in the folder.*train/1"),
        (["train/a/1.png", "train/b/1.png", "val/1.png"], r"directly in.*val/1.*\n.*2 levels deep"),
        (["notes.txt"], r"no image in .*looked for files ending in \.bmp"),
    ],
)
def test_a_wrong_level_is_drawn_out(tmp_path, names, found):
    root = draw(tmp_path / "d", *(n for n in names if n.endswith("png")))
    root.mkdir(exist_ok=True)
    for name in set(names) - {n for n in names if n.endswith("png")}:
        (root / name).write_text("x")
    with pytest.raises(ValueError, match=found) as error:
        load(root, tmp_path)
    assert LAYOUTS in str(error.value)


def test_classes_may_be_called_train_and_test(tmp_path):
    names = [f"{c}/{i}.png" for c in ("bus", "car", "train", "test") for i in range(3)]
    assert load(draw(tmp_path / "d", *names), tmp_path).summary.startswith("4 classes, 12 images")


def test_read_layout_takes_no_pictures_to_test(tmp_path):
    entries, notes = read_layout(tmp_path, ["g/b/2.png", "g/b/10.png", "g/a/1.png", "h/a/1.png"])
    assert notes == []
    assert [e.path for e in entries] == ["g/a/1.png", "g/b/2.png", "g/b/10.png", "h/a/1.png"]
    assert [e.class_name for e in entries] == ["g/a", "g/b", "g/b", "h/a"]
    assert [e.group_name for e in entries] == ["g", "g", "g", "h"]


# ------------------------------------------------------------------------------------ what is said


def test_everything_odd_is_in_the_notes_and_nothing_crashes(tmp_path):
    root = draw(tmp_path / "d", *tree(5, 4), "lonely/1.png")
    (root / "class0" / "broken.png").write_bytes(b"\x89PNG no")
    (root / "class1" / "Thumbs.db").write_bytes(b"x")
    (root / "class1" / "about.txt").write_text("x")
    (root / "ruined").mkdir()
    (root / "ruined" / "1.jpg").write_bytes(b"x")
    (root / "empty").mkdir()
    splits = load(root, tmp_path)
    text = "\n".join(splits.notes)
    assert "1 hidden or system file not used: class1/Thumbs.db" in text
    assert "1 file of other types not used: class1/about.txt" in text
    assert "1 folder without an image: empty" in text
    assert "2 of 23 images could not be read and are left out: class0/broken.png (" in text
    assert "1 classes have no readable image: ruined" in text
    assert "1 of 6 classes have one image (lonely)" in text
    assert "lonely" in splits.train.class_names
    assert splits.summary == "6 classes, 21 images, 6×8, grey"
    assert load(root, tmp_path).notes == splits.notes  # also from the cache


def test_sizes_and_colours(tmp_path):
    draw(tmp_path / "d", *tree(4, 2), size=(480, 640), mode="RGB")
    draw(tmp_path / "d", "class0/5.png", size=(1200, 800), mode="RGB")
    assert load(tmp_path / "d", tmp_path).summary == "4 classes, 9 images, 480×640 to 1200×800, RGB"


def test_few_classes_are_held_out_by_image(tmp_path):
    splits = load(draw(tmp_path / "d", *tree(2, 10)), tmp_path)
    assert splits.train.class_names == splits.validation.class_names
    assert not set(splits.train.paths) & set(splits.validation.paths)
    assert any("classes: seen" in note for note in splits.notes)


# --------------------------------------------------------------------------------- cache and errors


def test_the_second_start_reads_no_image(tmp_path, monkeypatch):
    root = draw(tmp_path / "d", *tree(5, 2))
    first = load(root, tmp_path)

    def never(*_, **__):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", never)
    again = load(root, tmp_path)
    np.testing.assert_array_equal(again.train.images, first.train.images)
    assert again.fingerprint == first.fingerprint
    (root / "class0" / "new.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="an image was opened"):  # every file, so none is left
        load(root, tmp_path)


def test_fingerprint_depends_on_the_preprocessing(tmp_path):
    root = draw(tmp_path / "d", *tree(5, 2))
    assert load(root, tmp_path).fingerprint != load(root, tmp_path, invert=True).fingerprint


def test_a_missing_place(tmp_path):
    with pytest.raises(
        DataNotFound, match=r"there is no .*nowhere.*Set config\.data\.dir"
    ) as error:
        load(tmp_path / "nowhere", tmp_path)
    assert LAYOUTS in str(error.value)


def test_split_by_drawer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"needs to know who drew.*\"folder\" does not say"):
        load(draw(tmp_path / "d", *tree(5, 2)), tmp_path, split="drawer")


def test_real_omniglot_as_a_folder(real_data, tmp_path):
    """The zip of three levels, in a wrapping folder, as anyone's own data."""
    place = real_data / "omniglot" / "images_validation.zip"
    splits = load(place, tmp_path, size=(28, 28))
    assert splits.summary == "10 groups, 277 classes, 5,540 images, 105×105, 1-bit"
    assert len(splits.validation.group_names) == 2
