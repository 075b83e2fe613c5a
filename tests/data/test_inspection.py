import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from siamjax.config import base
from siamjax.data import DataNotFound
from siamjax.data.folder import LAYOUTS
from siamjax.data.inspection import inspect
from siamjax.data.inspection_text import as_text


def scene(number):
    """A picture that is like no other: `number` chooses it."""
    coarse = np.random.default_rng([number, 1]).integers(0, 256, (6, 8), np.uint8)
    return Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)


def draw(root, *paths, start=0):
    for number, path in enumerate(paths, start):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        scene(number).save(root / path)
    return root


def tree(classes, images, top=""):
    return [f"{top}c{c}/{i}.png" for c in range(classes) for i in range(images)]


def look_at(place, **data):
    config = base()
    config.data.update(data)
    config.eval.way = 2
    return inspect(place, config)


# ------------------------------------------------------------------------------------------ layouts


def test_a_healthy_folder(tmp_path):
    found = look_at(draw(tmp_path / "pets", *tree(6, 3), "c9/0.png", "c9/1.png"))
    assert found.layout == "class/image"
    assert found.source == "folder"
    counts = found.splits["all"]
    assert (counts.images, counts.classes, counts.groups) == (20, 7, 1)
    assert (counts.smallest, counts.median, counts.largest) == (2, 3.0, 3)
    assert counts.histogram == [(2, 2, 1), (3, 4, 6)]
    assert counts.few[0] == ("c9", 2)
    assert found.sizes == [(48, 64, 20)]
    assert found.kinds == {"grey": 20}
    assert found.formats == {"PNG": 20}
    for nothing in (found.exact, found.near, found.leaks, found.problems, found.unreadable):
        assert nothing == []
    text = as_text(found)
    assert "no two images show the same picture" in text
    assert text.endswith("Ready for training: --config.data.source=folder")


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (tree(2, 2, "g/") + tree(2, 2, "h/"), "group/class/image"),
        (tree(2, 2, "train/") + tree(2, 2, "val/"), "split/class/image with train, validation"),
        (
            tree(2, 2, "train/") + tree(2, 2, "test/") + tree(2, 2, "valid/"),
            "split/class/image with train, validation, test",
        ),
    ],
)
def test_layouts(tmp_path, names, layout):
    assert look_at(draw(tmp_path / "d", *names)).layout == layout


def test_a_zip_is_read_in_place(tmp_path):
    draw(tmp_path / "d", *tree(4, 2))
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for name in tree(4, 2):
            archive.write(tmp_path / "d" / name, f"top/{name}")
    found = look_at(tmp_path / "d.zip")
    assert found.layout == "class/image"
    assert found.images == 8


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["1.png", "2.png"], "looks like the folder of one class: give the folder above it"),
        (["x/a/b/c/1.png", "x/d/e/f/1.png", "y/d/e/f/1.png"], "too high a level.*such as x/a"),
        (["a/1.png", "b/c/1.png"], "Move the images"),
    ],
)
def test_a_wrong_level_is_named_and_the_layouts_are_drawn(tmp_path, names, words):
    with pytest.raises(ValueError, match=re.compile(words, re.DOTALL)) as error:
        look_at(draw(tmp_path / "d", *names))
    assert LAYOUTS in str(error.value)


def test_nothing_there_and_zips_only(tmp_path):
    with pytest.raises(DataNotFound, match=r"there is no .*nowhere"):
        look_at(tmp_path / "nowhere")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds no image, but 1 zip\(s\): give one.*a\.zip"):
        look_at(tmp_path)


# --------------------------------------------------------------------------------------- duplicates


def test_twins_across_classes_and_splits_are_leaks(tmp_path):
    root = draw(
        tmp_path / "d", *tree(3, 3, "train/"), *(f"val/v{c}/{i}.png" for c in "ab" for i in "12")
    )
    (root / "val/va/9.bmp").parent.mkdir(exist_ok=True)
    Image.open(root / "train/c0/0.png").convert("RGB").save(root / "val/va/9.bmp")
    Image.open(root / "train/c1/1.png").save(root / "train/c2/again.jpg", quality=60)
    found = look_at(root)
    (exact,), (near,) = found.exact, found.near
    assert exact.paths == ["train/c0/0.png", "val/va/9.bmp"]
    assert exact.classes == ["c0", "va"]
    assert exact.splits == ["train", "validation"]
    assert near.paths == ["train/c1/1.png", "train/c2/again.jpg"]
    assert near.splits == ["train"]
    (leak,) = found.leaks
    assert leak.startswith("LEAK: 1 pictures are the same in training and validation, so")
    text = as_text(found)
    assert "2 images, in 1 groups, show the same picture:" in text
    assert "1 of the groups lie across classes" in text
    assert "but look at the above" in text


def test_a_leak_through_the_default_division_says_so(tmp_path):
    root = draw(tmp_path / "d", *tree(10, 2))
    for c in range(1, 10):  # one picture in all classes: wherever they fall, it leaks
        Image.open(root / "c0/0.png").save(root / f"c{c}/0.png")
    found = look_at(root)
    assert "held out for validation by seed 0: 2 of 10 classes" in found.held_out
    assert "in training and validation, as the default settings would divide them" in found.leaks[0]
    other = look_at(root, holdout=0.5)
    assert "5 of 10 classes" in other.held_out


def test_shared_classes_are_told(tmp_path):
    names = [*tree(3, 2, "train/"), *tree(2, 2, "val/"), "val/new/1.png"]
    (told,) = look_at(draw(tmp_path / "d", *names)).leaks
    assert told.startswith("2 of 3 validation classes are training classes too (c0, c1)")


# ---------------------------------------------------------------------------------------- odd files


def test_what_is_odd_is_listed(tmp_path):
    root = draw(tmp_path / "d", *tree(5, 3), "lonely/1.png")
    (root / "c0/broken.png").write_bytes(b"\x89PNG no")
    (root / "c0/notes.txt").write_text("x")
    scene(50).save(root / "c1/really.png", "JPEG")
    frames = [scene(60), scene(61)]
    frames[0].save(root / "c1/moves.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(70).save(root / "c2/turned.jpg", exif=exif)
    found = look_at(root)
    ((path, reason),) = found.unreadable
    assert path == "c0/broken.png"
    assert reason.startswith("UnidentifiedImageError: cannot identify image file")
    assert found.misnamed == ["c1/really.png"]
    assert found.moving == ["c1/moves.gif"]
    assert found.turned == ["c2/turned.jpg"]
    assert found.splits["all"].singletons == ["lonely"]
    assert "1 of 20 files cannot be read; training leaves them out" in found.problems
    assert any("1 file of other types not used: c0/notes.txt" in note for note in found.notes)
    text = as_text(found)
    assert "1 classes have one image, so no pair of their own: lonely" in text
    assert "c0/broken.png: UnidentifiedImageError" in text
    assert json.loads(json.dumps(found.to_dict()))["misnamed"] == ["c1/really.png"]


def test_names_that_would_write_on_the_terminal_are_spelt_out(tmp_path):
    root = draw(tmp_path / "d", *tree(4, 2), "c0/new\nline\x1b[2J.png", "猫/1.png")
    (root / "c0/new\nline\x1b[2J.png").write_bytes(b"x")
    text = as_text(look_at(root))
    assert r"c0/new\nline\x1b[2J.png" in text
    assert "\x1b" not in text
    assert "猫" in text


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (tree(1, 5), "1 class(es) found (c0), but a Siamese network learns from at least two"),
        (tree(4, 1), "of the training images, pairs of one class"),
        (tree(2, 1), "nothing can be held out: 2 classes of one image each"),
        (tree(2, 1, "train/") + tree(2, 2, "val/"), "of the training images, pairs of one class"),
        (tree(2, 2, "train/") + tree(2, 1, "val/"), "of the validation images, pairs of one"),
        (tree(2, 2, "train/") + tree(1, 2, "val/"), "of the validation images, pairs of different"),
    ],
)
def test_what_no_run_could_start_on(tmp_path, names, problem):
    found = look_at(draw(tmp_path / "d", *names))
    assert found.cannot_start
    assert problem in found.problems[0]
    assert as_text(found).endswith("Not ready for training: see PROBLEM above.")


def test_fewer_classes_than_ways(tmp_path):
    root = draw(tmp_path / "d", *tree(5, 3))
    found = inspect(root, base())
    assert not found.cannot_start
    assert found.problems == [
        "one-shot trials need 20 validation classes of two images or more, and 2 are there: set"
        " --config.eval.way=2"
    ]


def test_nothing_readable(tmp_path):
    root = draw(tmp_path / "d", *tree(2, 2))
    for path in root.rglob("*.png"):
        path.write_bytes(b"no")
    assert look_at(root).cannot_start


# -------------------------------------------------------------------------------------------- pairs


def table(root, *rows):
    (root / "pairs.csv").write_text("\n".join(["left,right,same,split", *rows]) + "\n")
    return root


def test_a_table_of_pairs(tmp_path):
    root = draw(tmp_path, *(f"{i}.png" for i in range(8)))
    Image.open(root / "0.png").save(root / "6.bmp")
    Image.open(root / "1.png").save(root / "6.jpg", quality=50)
    table(
        root, "0.png,1.png,1,train", "2.png,3.png,0,train", "4.png,6.bmp,1,val", "6.jpg,7.png,0,val"
    )
    found = look_at(root)
    assert found.layout == "pairs: a CSV of pairs"
    assert found.source == "pair_table"
    assert found.pairs == {
        "train, same": 1, "train, different": 1, "validation, same": 1, "validation, different": 1,
    }  # fmt: skip
    assert any("1 of 4 pictures of the validation pairs are in training" in x for x in found.leaks)
    assert any("nearly the same in training and validation" in leak for leak in found.leaks)
    assert look_at(root / "pairs.csv").pairs == found.pairs


def test_a_table_with_faults(tmp_path):
    root = table(draw(tmp_path, "0.png", "1.png"), "0.png,1.png,1,", "0.png,gone.png,0,", "a,b,x,")
    found = look_at(root)
    assert found.cannot_start
    assert "labels that are none of 0, 1" in found.problems[0]
    assert "1 of 3 files cannot be read" in found.problems[1]
    assert found.unreadable[0][0] == "gone.png"


def test_folders_of_two_images(tmp_path):
    for number, folder in enumerate(("train/1", "train/2", "train/3", "test/4", "test/5")):
        draw(tmp_path, f"{folder}/a.png", f"{folder}/b.png", start=2 * number)
    (tmp_path / "annos.csv").write_text("label\n1\n0\n1\n0\n1\n")
    found = look_at(tmp_path, holdout=0.0)
    assert found.layout == "pairs: folders of two images and annos.csv"
    assert sum(found.pairs.values()) == 5


# --------------------------------------------------------------------------------------- real data


@pytest.mark.slow
def test_omniglots_only_duplicate_is_found(real_data):
    found = inspect(real_data / "omniglot", base())
    assert found.source == "omniglot"
    assert found.splits["train"].classes == 964
    assert found.images == sum(counts.images for counts in found.splits.values())
    (twins,) = found.exact
    assert [path.split("/", 1)[1] for path in twins.paths] == [
        "Braille/character01/0192_03.png",
        "Braille/character01/0192_19.png",
    ]
    assert twins.classes == ["Braille/character01"]
    assert len(found.near) == 2
    assert not found.leaks
    assert not found.problems


def test_the_duplicate_of_braille_alone(real_data, tmp_path):
    """The alphabet of the zip, unpacked: what the slow test finds among all, in a second."""
    with zipfile.ZipFile(real_data / "omniglot/images_background.zip") as archive:
        names = [n for n in archive.namelist() if "/Braille/" in n or "/Greek/character01" in n]
        archive.extractall(tmp_path, names)
    found = look_at(tmp_path / "images_background")
    (twins,) = found.exact
    assert [path[-11:] for path in twins.paths] == ["0192_03.png", "0192_19.png"]
    assert any("0192_07.png" in path for near in found.near for path in near.paths)


def test_an_evaluation_set_is_validation_and_test(tmp_path):
    sets = (("background", "Greek"), ("evaluation", "Keble"), ("evaluation", "Tamil"))
    for name, alphabet in sets:
        for c in (1, 2):
            draw(
                tmp_path / f"images_{name}",
                *(f"{alphabet}/character0{c}/000{c}_0{i}.png" for i in (1, 2)),
                start=10 * c + 100 * ord(alphabet[0]),
            )
    found = look_at(tmp_path)
    assert {name: counts.images for name, counts in found.splits.items()} == {
        "train": 4, "validation": 4, "test": 4,
    }  # fmt: skip
    assert not found.cannot_start
