import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from siamjax.config import base
from siamjax.data import DataNotFound, load
from siamjax.data import omniglot as module
from siamjax.data.omniglot import VALIDATION_ALPHABETS, omniglot, read_paths

BACKGROUND = ("Greek", "Latin", "Korean", "Futurama", "Braille")
DRAWERS = 20


def png(value):
    stream = io.BytesIO()
    Image.new("1", (5, 5), value).save(stream, "PNG")
    return stream.getvalue()


INK, PAPER = png(0), png(1)


def write_set(folder, name, alphabets, *, zipped=True, characters=2, drawers=DRAWERS):
    """A small set in Lake's layout; the ink of an image is its drawer's parity."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        f"{name}/{alphabet}/character{c:02d}/{c:04d}_{d:02d}.png": INK if d % 2 else PAPER
        for alphabet in alphabets
        for c in range(1, characters + 1)
        for d in range(1, drawers + 1)
    }
    if zipped:
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for path, data in files.items():
                archive.writestr(path, data)
    else:
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def offline(*_):
        raise DataNotFound("Omniglot is not here")

    monkeypatch.setattr(module, "fetch", offline)


def config_for(tmp_path, **data):
    config = base()
    config.data.dir, config.data.cache_dir = str(tmp_path / "data"), str(tmp_path / "cache")
    config.data.size = (5, 5)
    with config.ignore_type():
        config.data.update(data)
    return config


def run(tmp_path, **data):
    return omniglot(config_for(tmp_path, **data))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("folder", ["", "omniglot", "python", "omniglot/python"])
def test_zips_and_folders_in_every_place(tmp_path, zipped, folder):
    place = tmp_path / "data" / folder
    write_set(place, "images_background", BACKGROUND, zipped=zipped, drawers=2)
    write_set(place, "images_validation", ["ULOG", "Keble"], zipped=zipped, drawers=2)
    splits = run(tmp_path)
    assert splits.name == "omniglot"
    assert splits.summary == "7 alphabets, 14 classes, 28 images, 5×5, 1-bit"
    assert splits.train.group_names == tuple(sorted(BACKGROUND))
    assert splits.validation.group_names == ("Keble", "ULOG")
    assert splits.test is None
    assert splits.notes == ()
    assert splits.train.class_names[:2] == ("Braille/character01", "Braille/character02")
    assert splits.train.drawers[:3].tolist() == [1, 2, 1]
    assert splits.train.labels[:5].tolist() == [0, 0, 1, 1, 2]
    assert splits.train.groups[:5].tolist() == [0, 0, 0, 0, 1]
    for drawer, image in zip(splits.train.drawers, splits.train.images, strict=True):
        assert (image == (0 if drawer % 2 else 255)).all()


def test_the_evaluation_set_is_divided_into_validation_and_test(tmp_path):
    tests = ["Tibetan", "Tengwar"]
    write_set(tmp_path / "data", "images_background", BACKGROUND)
    write_set(tmp_path / "data", "images_evaluation", [*VALIDATION_ALPHABETS, *tests])
    splits = run(tmp_path)
    assert splits.validation.group_names == tuple(sorted(VALIDATION_ALPHABETS))
    assert splits.test.group_names == ("Tengwar", "Tibetan")
    assert len(VALIDATION_ALPHABETS) == 10
    assert splits.summary.startswith("17 alphabets, 34 classes, 680 images")


def test_validation_and_evaluation_zips_side_by_side(tmp_path):
    write_set(tmp_path / "data", "images_background", BACKGROUND)
    write_set(tmp_path / "data", "images_validation", ["ULOG"])
    write_set(tmp_path / "data", "images_evaluation", ["Tibetan"])
    splits = run(tmp_path)
    assert splits.validation.group_names == ("ULOG",)
    assert splits.test.group_names == ("Tibetan",)


def test_the_validation_set_is_not_read_beside_a_whole_evaluation_set(tmp_path):
    write_set(tmp_path / "data", "images_background", BACKGROUND)
    write_set(tmp_path / "data", "images_evaluation", ["ULOG", "Tibetan"])
    write_set(tmp_path / "data", "images_validation", ["Keble"])
    assert run(tmp_path).validation.group_names == ("ULOG",)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_validation_alphabets_of_your_own_choice(tmp_path):
    write_set(tmp_path / "data", "images_background", BACKGROUND)
    write_set(tmp_path / "data", "images_validation", ["ULOG", "Tibetan"])
    splits = run(tmp_path)
    assert splits.validation.group_names == ("Tibetan", "ULOG")
    assert splits.test is None


def test_without_an_evaluation_set_alphabets_are_held_out_and_named(tmp_path):
    write_set(tmp_path / "data", "images_background", BACKGROUND)
    splits = run(tmp_path, holdout=0.4)
    assert len(splits.validation.group_names) == 2
    assert not set(splits.validation.group_names) & set(splits.train.group_names)
    (note,) = splits.notes
    assert f"2 of 5 alphabets ({', '.join(splits.validation.group_names)})" in note
    assert "put images_evaluation.zip beside" in note


def test_split_by_drawer(tmp_path):
    write_set(tmp_path / "data", "images_background", BACKGROUND)
    write_set(tmp_path / "data", "images_evaluation", ["ULOG", "Tibetan"])
    splits = run(tmp_path, split="drawer")
    parts = (splits.train, splits.validation, splits.test)
    drawers = [set(part.drawers.tolist()) for part in parts]
    assert [len(d) for d in drawers] == [12, 4, 4]
    assert set.union(*drawers) == set(range(1, 21))
    assert [len(part) for part in parts] == [5 * 2 * 12, 2 * 4, 2 * 4]
    assert splits.validation.group_names == ("ULOG",)
    note = splits.notes[-1]
    assert f"validation {', '.join(map(str, sorted(drawers[1])))};" in note
    other = config_for(tmp_path, split="drawer")
    other.seed = 1
    assert set(omniglot(other).train.drawers.tolist()) != drawers[0]


def test_too_few_drawers(tmp_path):
    write_set(tmp_path / "data", "images_background", BACKGROUND, drawers=2)
    with pytest.raises(ValueError, match=r"at least 3 drawers; found \[1, 2\]"):
        run(tmp_path, split="drawer")


def test_a_file_not_named_as_omniglots_is_named(tmp_path):
    write_set(tmp_path / "data", "images_background", BACKGROUND, zipped=False, drawers=2)
    write_set(tmp_path / "data", "images_validation", ["ULOG"], drawers=2)
    (tmp_path / "data" / "images_background" / "Greek" / "mine.png").write_bytes(INK)
    splits = run(tmp_path)
    assert "not named as Omniglot's, not used: Greek/mine.png" in splits.notes[0]
    assert len(splits.train) == 20


def test_something_else_under_the_name(tmp_path):
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "images_background.zip", "w") as archive:
        archive.writestr("cats/1.png", INK)
    with pytest.raises(ValueError, match=r"does not hold Omniglot: expected .*found cats/1\.png"):
        run(tmp_path)


def test_a_cut_zip(tmp_path):
    write_set(tmp_path / "data", "images_background", BACKGROUND)
    place = tmp_path / "data" / "images_background.zip"
    place.write_bytes(place.read_bytes()[:5000])
    with pytest.raises(ValueError, match="interrupted download"):
        run(tmp_path)


def test_nothing_here(tmp_path):
    with pytest.raises(DataNotFound):
        run(tmp_path)


def test_data_dir_defaults_to_the_environment(tmp_path, monkeypatch):
    write_set(tmp_path / "elsewhere", "images_background", BACKGROUND, drawers=2)
    monkeypatch.setenv("SIAMJAX_DATA", str(tmp_path / "elsewhere"))
    assert run(tmp_path, dir=None).summary.startswith("5 alphabets")


def test_read_paths():
    paths = ["x/ULOG/character12/1234_20.png", "ULOG/character1/1_05.PNG", "ULOG/1_05.png"]
    entries, strange = read_paths(paths)
    assert [(e.class_name, e.group_name, e.drawer) for e in entries] == [
        ("ULOG/character12", "ULOG", 20),
        ("ULOG/character1", "ULOG", 5),
    ]
    assert strange == ["ULOG/1_05.png"]


def test_the_real_one(real_data, tmp_path, monkeypatch):
    config = base()
    config.data.dir, config.data.cache_dir = str(real_data), str(tmp_path)
    config.data.invert = True
    splits = load(config)
    parts = {"train": splits.train, "validation": splits.validation}
    assert len(splits.train) == 19_280
    assert len(splits.train.class_names) == 964
    assert len(splits.train.group_names) == 30
    assert set(splits.validation.group_names) == VALIDATION_ALPHABETS
    assert len(splits.validation) == 5_540
    assert len(splits.validation.class_names) == 277
    assert "105×105, 1-bit" in splits.summary
    for part in parts.values():
        assert part.images.shape[1:] == (105, 105, 1)
        assert (np.bincount(part.labels) == 20).all()
        assert (np.bincount(part.drawers)[1:] == len(part) / 20).all()
        # Ink is white now, and little of the paper is inked.
        assert 0.03 < part.images[::97].mean() / 255 < 0.12

    def never(*_, **__):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", never)
    again = load(config)
    assert again.fingerprint == splits.fingerprint
    np.testing.assert_array_equal(again.validation.images, splits.validation.images)
