import json
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets

from siamjax.config import base
from siamjax.data import SOURCES, DataNotFound, load
from siamjax.data.tfds import find, tfds

CLASSES = ["a", "b", "c"]


def builder(name, splits, features=None, label=lambda i: i % 3):
    """A builder class that needs no TensorFlow; image i of a split is all i."""
    kinds = tensorflow_datasets.features
    features = features or {
        "image": kinds.Tensor(shape=(8, 6, 1), dtype=np.uint8),
        "label": kinds.ClassLabel(names=CLASSES),
    }

    def info(self):
        return tensorflow_datasets.core.DatasetInfo(
            builder=self, features=kinds.FeaturesDict(features)
        )

    def examples(self, count):
        for i in range(count):
            example = {"image": np.full((8, 6, 1), i, np.uint8), "label": label(i)}
            yield i, {key: example.get(key, 0) for key in features}

    def generators(self, _):
        return {split: self._generate_examples(count) for split, count in splits.items()}

    return type(
        name,
        (tensorflow_datasets.core.GeneratorBasedBuilder,),
        {
            "__module__": __name__,
            "VERSION": tensorflow_datasets.core.Version("1.0.0"),
            "_info": info,
            "_split_generators": generators,
            "_generate_examples": examples,
        },
        skip_registration=True,
    )


def prepare(root, name, splits, **keys):
    made = builder(name, splits, **keys)(data_dir=str(root), file_format="array_record")
    made.download_and_prepare()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    prepare(root, "Digits", {"train": 30, "test": 9})
    prepare(root, "Whole", {"train": 20, "validation": 6, "small": 3}, label=lambda i: i % 2)
    kinds = tensorflow_datasets.features
    text = {"text": kinds.Tensor(shape=(), dtype=np.int64), "label": kinds.ClassLabel(names=["a"])}
    prepare(root, "Words", {"train": 2}, features=text, label=lambda i: 0)
    numbered = {
        "image": kinds.Tensor(shape=(8, 6, 1), dtype=np.uint8),
        "label": kinds.Tensor(shape=(), dtype=np.int64),
    }
    prepare(root, "Numbered", {"train": 16}, features=numbered, label=lambda i: 10 * (i % 4) - 10)
    return root


def config_for(root, tmp_path, name, **data):
    config = base()
    config.data.update({"source": "tfds", "tfds_name": name, "size": (8, 6)})
    config.data.dir, config.data.cache_dir = str(root), str(tmp_path / "cache")
    with config.ignore_type():
        config.data.update(data)
    return config


def run(root, tmp_path, name, **data):
    return tfds(config_for(root, tmp_path, name, **data))


def test_train_and_test_as_mnist_has_them(prepared, tmp_path):
    splits = run(prepared, tmp_path, "digits")
    assert splits.name == "tfds:digits"
    assert splits.summary == "3 classes, 39 images, 8×6, grey"
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (24, 6, 9)
    # TFDS names are in the order of the labels, ours in the order of appearance.
    for part in (splits.train, splits.validation, splits.test):
        for image, label in zip(part.images, part.labels, strict=True):
            assert part.class_names[label] == CLASSES[image[0, 0, 0] % 3]
    assert any("classes: seen (every test class" in note for note in splits.notes)
    values = [
        int(image[0, 0, 0]) for part in (splits.train, splits.validation) for image in part.images
    ]
    assert sorted(values) == list(range(30))


def test_holdout_zero_trains_on_all_and_validates_on_the_test(prepared, tmp_path):
    splits = run(prepared, tmp_path, "digits", holdout=0.0)
    assert (len(splits.train), len(splits.validation), splits.test) == (30, 9, None)


def test_a_validation_split_is_used_and_others_are_named(prepared, tmp_path):
    splits = run(prepared, tmp_path, "whole:1.0.0")
    assert (len(splits.train), len(splits.validation), splits.test) == (20, 6, None)
    assert "splits not used: small" in splits.notes
    assert any("classes: seen (every validation class" in note for note in splits.notes)


def test_labels_that_are_numbers(prepared, tmp_path):
    splits = run(prepared, tmp_path, "numbered")
    assert {*splits.train.class_names, *splits.validation.class_names} == {"0", "10", "20"}
    assert "4 images left out: " in splits.notes[0]
    assert "its label is withheld" in splits.notes[0]


def test_the_second_start_does_not_import_tfds(prepared, tmp_path, monkeypatch):
    first = run(prepared, tmp_path, "digits")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # an import would fail
    again = run(prepared, tmp_path, "digits")
    np.testing.assert_array_equal(again.train.images, first.train.images)
    assert again.fingerprint == first.fingerprint


def test_reading_never_imports_tensorflow(prepared, tmp_path):
    code = (
        "import sys, json\n"
        "from siamjax.config import base\n"
        "from siamjax.data import load\n"
        "c = base()\n"
        "c.data.source, c.data.tfds_name, c.data.size = 'tfds', 'digits', (8, 6)\n"
        "c.data.dir, c.data.cache_dir = sys.argv[1:]\n"
        "print(len(load(c).train), 'tensorflow' in sys.modules, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(prepared), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["24", "False", "False"]


def test_not_prepared_gives_the_command_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # TFDS is not even asked
    start = time.monotonic()
    with pytest.raises(DataNotFound) as error:
        run(tmp_path, tmp_path, "mnist")
    assert time.monotonic() - start < 2
    text = str(error.value)
    assert '"mnist" is not prepared' in text
    assert str(tmp_path / "mnist") in text
    assert "pip install 'siamjax[tfds]'" in text
    assert (
        f"tfds.builder('mnist', file_format='array_record', data_dir='{tmp_path}')"
        ".download_and_prepare()"
    ) in text


def test_the_default_directory(tmp_path, monkeypatch):
    config = config_for("", tmp_path, "mnist", dir=None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "there"))
    with pytest.raises(DataNotFound, match="there/mnist") as error:
        find(config)
    assert "tfds.builder('mnist', file_format='array_record').download" in str(error.value)
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(DataNotFound, match="home/tensorflow_datasets/mnist"):
        find(config)


def pretend(root, path, kind="array_record"):
    (root / path).mkdir(parents=True)
    info = {"name": path.split("/")[0]} | ({"fileFormat": kind} if kind else {})
    (root / path / "dataset_info.json").write_text(json.dumps(info))


@pytest.mark.parametrize("kind", ["tfrecord", ""])
def test_prepared_as_tfrecord_says_so(tmp_path, kind):
    pretend(tmp_path, "mnist/3.0.1", kind)
    with pytest.raises(DataNotFound, match="prepared as tfrecord, which cannot be read") as error:
        find(config_for(tmp_path, tmp_path, "mnist"))
    assert f"data_dir='{tmp_path / 'array_record'}'" in str(error.value)
    assert "set config.data.dir = " in str(error.value)


def test_the_newest_version_that_can_be_read(tmp_path):
    for version in ("3.0.9", "3.0.10", "2.9.0"):
        pretend(tmp_path, f"mnist/{version}")
    pretend(tmp_path, "mnist/4.0.0", "tfrecord")
    pretend(tmp_path, "mnist/incomplete.AB_5.0.0")
    for name, version in (
        ("mnist", "3.0.10"),
        ("mnist:3.0.9", "3.0.9"),
        ("mnist:2.*.*", "2.9.0"),
    ):
        assert find(config_for(tmp_path, tmp_path, name)) == tmp_path / "mnist" / version
    with pytest.raises(DataNotFound, match=r'"mnist:1\.0\.0" is not prepared'):
        find(config_for(tmp_path, tmp_path, "mnist:1.0.0"))


def test_configurations(tmp_path):
    pretend(tmp_path, "corrupted/fog/1.0.0")
    assert find(config_for(tmp_path, tmp_path, "corrupted")).parent.name == "fog"
    pretend(tmp_path, "corrupted/snow/1.0.0")
    with pytest.raises(ValueError, match="to one of corrupted/fog, corrupted/snow"):
        find(config_for(tmp_path, tmp_path, "corrupted"))
    assert find(config_for(tmp_path, tmp_path, "corrupted/snow")).parent.name == "snow"


def test_a_set_without_images(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"has no feature image; it has .*text"):
        run(prepared, tmp_path, "words")


def test_no_name_and_no_drawers(tmp_path):
    with pytest.raises(ValueError, match=r"needs config\.data\.tfds_name"):
        run(tmp_path, tmp_path, None)
    with pytest.raises(ValueError, match="who drew"):
        run(tmp_path, tmp_path, "mnist", split="drawer")


def test_fall_back_from_a_set_that_is_not_prepared(prepared, tmp_path, monkeypatch):
    stand_in = run(prepared, tmp_path, "digits")
    monkeypatch.setitem(SOURCES, "glyphs", lambda config: stand_in)
    splits = load(config_for(tmp_path, tmp_path, "mnist", fallback="glyphs"))
    assert splits.notes[0].startswith("NOT TFDS: ")
    assert '"mnist" is not prepared' in splits.notes[0]
