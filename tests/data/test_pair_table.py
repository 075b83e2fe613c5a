import re

import numpy as np
import pytest
from PIL import Image
from synthetic import labelled

from siamjax.config import base
from siamjax.data.pair_table import pair_table, write_pair_folder
from siamjax.data.splits import DataNotFound
from siamjax.types import LabelledImages


def paint(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), grey).save(path)


def write(folder, lines, columns="left,right,same"):
    """A CSV, and an image for each name in it: "7.png" is of grey 7."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.csv").write_text("\n".join([columns, *lines]) + "\n")
    for line in lines:
        for name in line.split(",")[:2]:
            paint(folder / name, int(name.split("/")[-1].split(".")[0]))
    return folder


def islands(count, first=0):
    """Pairs that share no image with each other, same and different in turns."""
    return [f"{first + 2 * i}.png,{first + 2 * i + 1}.png,{(i + 1) % 2}" for i in range(count)]


def load(place, tmp_path, **data):
    config = base()
    config.data.update(source="pair_table", dir=str(place), cache_dir=str(tmp_path / "cache"))
    config.data.size = (4, 4)
    config.data.update(data)
    return pair_table(config)


def stated(splits, split):
    """The pairs of a split as the greys of their images."""
    images, table = getattr(splits, split), splits.pairs[split]
    grey = images.images[:, 0, 0, 0]
    return set(zip(grey[table.left].tolist(), grey[table.right].tolist(), table.same.tolist(),
                   strict=True))  # fmt: skip


# ---------------------------------------------------------------------- what is read


def test_a_csv(tmp_path):
    lines = islands(20)
    splits = load(write(tmp_path / "cats", lines), tmp_path)
    assert splits.name == "pairs:cats"
    assert splits.summary == "20 pairs (10 same, 10 different), 40 images, 4×4, grey"
    everything = {(2 * i, 2 * i + 1, i % 2 == 0) for i in range(20)}
    train, validation = stated(splits, "train"), stated(splits, "validation")
    assert train | validation == everything
    assert (len(train), len(validation)) == (16, 4)
    assert splits.test is None
    assert set(splits.pairs) == {"train", "validation"}
    for split in ("train", "validation"):
        images = getattr(splits, split)
        for path, image in zip(images.paths, images.images, strict=True):
            assert (image == int(path.split(".")[0])).all()
        assert len(set(images.paths)) == len(images)


def test_the_csv_may_be_named_itself_and_paths_be_absolute_or_elsewhere(tmp_path):
    write(tmp_path / "lists", islands(4))
    for i in range(8):
        paint(tmp_path / "images" / f"{i}.png", i)
    lines = [f"../images/{2 * i}.png,{tmp_path}/images/{2 * i + 1}.png,{i % 2}" for i in range(4)]
    (tmp_path / "lists" / "two.csv").write_text("\n".join(["left,right,label", *lines]))
    splits = load(tmp_path / "lists" / "two.csv", tmp_path, holdout=0.5)
    assert splits.name == "pairs:two"
    assert stated(splits, "train") | stated(splits, "validation") == {
        (2 * i, 2 * i + 1, i % 2 == 1) for i in range(4)
    }


def test_folders_of_two_images(tmp_path):
    """Rows are matched in natural order, whatever the order in which the system lists folders."""
    numbers = [*range(1, 13)]
    same = [n % 3 == 0 for n in numbers]
    for n in reversed(numbers):
        folder = tmp_path / "d/init_data/data" / ("train" if n < 9 else "test") / str(n)
        paint(folder / "a.png", 2 * n)
        paint(folder / "b.png", 2 * n + 1)
    labels = "\n".join(["label", *(str(int(s)) for s in same)])
    (tmp_path / "d/init_data/data/annos.csv").write_text(labels)
    splits = load(tmp_path / "d", tmp_path, holdout=0.0)
    truth = [(2 * n, 2 * n + 1, s) for n, s in zip(numbers, same, strict=True)]
    assert stated(splits, "train") == set(truth[:8])
    assert stated(splits, "validation") == set(truth[8:])
    assert splits.test is None
    assert any("the test pairs are the validation pairs" in note for note in splits.notes)
    splits = load(tmp_path / "d", tmp_path, holdout=0.5)
    assert stated(splits, "train") | stated(splits, "validation") == set(truth[:8])
    assert stated(splits, "test") == set(truth[8:])


def test_labels_are_what_same_pairs_join(tmp_path):
    lines = ["1.png,2.png,1", "3.png,2.png,1", "4.png,1.png,0", "5.png,6.png,1", "5.png,4.png,0"]
    lines += ["7.png,8.png,0,", "7.png,9.png,1"]
    lines = [f"{line.strip(',')},{'train' if i < 5 else 'val'}" for i, line in enumerate(lines)]
    splits = load(write(tmp_path / "d", lines, "left,right,same,split"), tmp_path)
    by_label = {}
    for path, label in zip(splits.train.paths, splits.train.labels, strict=True):
        by_label.setdefault(int(label), set()).add(path)
    assert sorted(map(sorted, by_label.values())) == [
        ["1.png", "2.png", "3.png"],
        ["4.png"],
        ["5.png", "6.png"],
    ]
    assert len(splits.validation.class_names) == 2
    assert splits.notes == ()


def test_the_same_images_are_decoded_once_and_other_labels_are_other_data(tmp_path):
    folder = write(tmp_path / "d", islands(10))
    first = load(folder, tmp_path)
    assert load(folder, tmp_path).fingerprint == first.fingerprint
    text = (folder / "pairs.csv").read_text()
    (folder / "pairs.csv").write_text(text.replace("0.png,1.png,1", "0.png,1.png,0"))
    second = load(folder, tmp_path)
    assert second.fingerprint != first.fingerprint
    assert len(list((tmp_path / "cache").glob("pairs-*.npy"))) == 1
    assert (0, 1, False) in stated(second, "train") | stated(second, "validation")


# ---------------------------------------------------------------------- faults


def test_all_faults_at_once(tmp_path):
    folder = write(
        tmp_path / "d", [*islands(6), "20.png,21.png,1", "21.png,20.png,0", "9.png,9.png,0"]
    )
    (folder / "2.png").unlink()
    (folder / "4.png").write_bytes(b"not a picture")
    (folder / "5.png").write_bytes((folder / "6.png").read_bytes()[:40])
    with (folder / "pairs.csv").open("a") as stream:
        stream.write("8.png,7.png,maybe\nno\0where.png,7.png,1\n")
    with pytest.raises(ValueError) as error:
        load(folder, tmp_path)
    text = str(error.value)
    assert text.startswith(f"{folder / 'pairs.csv'} has 8 fault(s); nothing is trained until")
    assert (
        "\n  - labels that are none of 0, 1, true, false, same, different: 1 (line 11: 'maybe')"
        in text
    )
    assert "\n  - images that are not there: 2 (line 3: '2.png', No such file or directory" in text
    # Each Python says it in its own words.
    assert re.search(r"line 12: 'no\\x00where.png', .*embedded null ", text)
    assert "\n  - images that cannot be read: 2 (4.png (UnidentifiedImageError: cannot" in text
    assert "5.png (" in text
    assert "\n  - pairs said to be both same and different: 3 (line 8, line 9, line 10)" in text


def test_not_one_image_can_be_read(tmp_path):
    folder = write(tmp_path / "d", islands(2))
    for path in folder.glob("*.png"):
        path.write_bytes(b"no")
    with pytest.raises(ValueError, match=r"images that cannot be read: 4 \(none of 4 images could"):
        load(folder, tmp_path)
    for path in folder.glob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="images that are not there: 4 "):
        load(folder, tmp_path)


def test_a_table_that_nothing_can_be_learned_from(tmp_path):
    folder = write(tmp_path / "d", [])
    with pytest.raises(ValueError, match="holds no pair"):
        load(folder, tmp_path)
    write(folder, ["1.png,2.png,1", "3.png,4.png,1", "5.png,6.png,1"])
    with pytest.raises(ValueError, match=r"train pairs: .*\n.*no pair is of different classes"):
        load(folder, tmp_path)
    write(folder, ["1.png,2.png,1", "3.png,4.png,0"])
    with pytest.raises(ValueError, match="no pair is of"):
        load(folder, tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(DataNotFound, match=r"there is no .*\n.*a CSV"):
        load(tmp_path / "nowhere", tmp_path)
    with pytest.raises(ValueError, match="needs to know who drew"):
        load(tmp_path, tmp_path, split="drawer")


# ---------------------------------------------------------------------- what is only remarked


def test_repeated_rows_and_chains_are_told(tmp_path):
    lines = [*islands(10), "1.png,0.png,1", "40.png,41.png,1", "41.png,42.png,1", "42.png,40.png,0"]
    notes = load(write(tmp_path / "d", lines), tmp_path).notes
    assert "1 rows repeat an earlier pair, and count again: line 12" in notes
    chain = "1 rows call images different that other rows join by a chain of same pairs: line 15"
    assert chain in notes


def test_identical_pictures_that_contradict_each_other_are_told(tmp_path):
    folder = write(tmp_path / "d", [*islands(10), "100.png,101.png,1", "102.png,103.png,0"])
    paint(folder / "102.png", 100)
    paint(folder / "103.png", 101)
    notes = load(folder, tmp_path).notes
    assert any(
        note.startswith("2 rows contradict others") and "line 12, line 13" in note for note in notes
    )


def test_a_leak_is_told(tmp_path):
    lines = [f"{line},train" for line in islands(4)] + [f"{line},test" for line in islands(2, 50)]
    folder = write(tmp_path / "d", lines, "left,right,same,split")
    quiet = load(folder, tmp_path, holdout=0.0)
    assert not any("LEAK" in note for note in quiet.notes)
    paint(folder / "52.png", 3)  # other files, the same pictures
    paint(folder / "53.png", 6)
    notes = load(folder, tmp_path, holdout=0.0).notes
    assert (
        "LEAK: 2 of 4 pictures of the test pairs are in training pairs too, so figures on them are"
        " too high: 3.png, 6.png"
    ) in notes


# ---------------------------------------------------------------------- holding out


def test_pairs_that_share_no_image_are_held_out_where_there_are_enough(tmp_path):
    lines = [
        line
        for i in range(0, 60, 3)
        for line in (
            f"{i}.png,{i + 1}.png,1",
            f"{i}.png,{i + 2}.png,0",
            f"{i + 1}.png,{i + 2}.png,0",
        )
    ]
    splits = load(write(tmp_path / "d", lines), tmp_path)
    assert not set(splits.train.paths) & set(splits.validation.paths)
    assert len(splits.pairs["validation"].left) == 12
    (note,) = splits.notes
    assert note.endswith("by seed 0: 12 of 60 pairs, no image of which is in a training pair")
    chosen = set()
    for seed in range(4):
        config = base()
        config.data.update(dir=str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"))
        config.data.size, config.seed = (4, 4), seed
        chosen.add(pair_table(config).validation.paths)
    assert len(chosen) == 4


def test_one_web_of_pairs_is_held_out_by_pair_and_says_so(tmp_path):
    lines = [f"{i}.png,{i + 1}.png,{i % 2}" for i in range(40)]
    splits = load(write(tmp_path / "d", lines), tmp_path)
    table = splits.pairs["validation"]
    assert len(table.left) == 8
    assert int(table.same.sum()) == 4
    assert any("8 of 40 pairs, by pair, so images: seen" in note for note in splits.notes)


def test_no_share_and_no_test_pairs(tmp_path):
    with pytest.raises(ValueError, match=r"so config\.data\.holdout must be above 0"):
        load(write(tmp_path / "d", islands(4)), tmp_path, holdout=0.0)


def test_rows_that_say_no_split_beside_rows_that_do(tmp_path):
    lines = [f"{x},{'val' if i < 4 else ''}" for i, x in enumerate(islands(12))]
    splits = load(write(tmp_path / "d", lines, "left,right,same,split"), tmp_path)
    assert [len(splits.pairs[s].left) for s in ("train", "validation")] == [8, 4]
    assert splits.notes == ("8 rows say no split: they are for training",)


# ---------------------------------------------------------------------- writing


def test_what_is_written_is_read_again(tmp_path):
    train, test = labelled(classes=8, each=6, channels=3), labelled(classes=5, each=4, seed=9)
    out = tmp_path / "out"
    write_pair_folder(out, (train, 40), (test, 10), seed=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    lines = (out / "init_data/data/annos.csv").read_text().splitlines()
    assert lines[0] == "label,folder"
    assert [line.split(",")[1] for line in lines[40:42]] == ["train/40", "test/41"]
    splits = load(out, tmp_path, holdout=0.0, size=(12, 12), channels=3)
    assert splits.summary == "50 pairs (25 same, 25 different), 100 images, 12×12, RGB and grey"
    assert int(splits.pairs["train"].same.sum()) == 20
    for images, split in ((train, "train"), (test, "validation")):
        table, read = splits.pairs[split], getattr(splits, split).images
        # Each JPEG looks like one original image above all: so its class is known.
        pixels = np.broadcast_to(images.images, (*images.images.shape[:3], 3)).astype(float)
        nearest = [int(np.abs(pixels - image).mean((1, 2, 3)).argmin()) for image in read]
        classes = images.labels[nearest]
        assert ((classes[table.left] == classes[table.right]) == table.same).all()


def test_nothing_is_overwritten_and_nothing_half_done_remains(tmp_path):
    images = labelled(classes=3, each=3)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(ValueError, match="out is there already and is not overwritten"):
        write_pair_folder(out, (images, 4), (images, 2), seed=0)
    with pytest.raises(ValueError, match="9 different pairs of one class; 20 are wanted"):
        write_pair_folder(tmp_path / "new", (images, 4), (images, 40), seed=0)
    broken = LabelledImages(
        images.images[..., :0], images.labels, images.groups, images.drawers, images.class_names
    )
    with pytest.raises((ValueError, TypeError, OSError)):
        write_pair_folder(tmp_path / "new", (images, 4), (broken, 2), seed=0)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (out / "mine.txt").unlink()
    write_pair_folder(out, (images, 4), (images, 2), seed=0)  # an empty folder is no loss
    assert (out / "init_data/data/train/4/b.jpg").is_file()
