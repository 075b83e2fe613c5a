import subprocess
import sys

import numpy as np
import pytest

from siamjax import data
from siamjax.config import base
from siamjax.data import SOURCES, DataNotFound, load
from siamjax.types import DataSplits, LabelledImages


def tiny(name):
    images = LabelledImages(
        images=np.zeros((2, 1, 1, 1), np.uint8),
        labels=np.array([0, 1], np.int32),
        groups=np.zeros(2, np.int32),
        drawers=np.full(2, -1, np.int32),
        class_names=("a", "b"),
    )
    return DataSplits(images, images, None, name, "2 classes, 2 images", ("its own note",))


@pytest.fixture
def sources(monkeypatch):
    def missing(config):
        raise DataNotFound("no such folder /x, fetch it by hand")

    def broken(config):
        raise ValueError("damaged")

    monkeypatch.setitem(data.SOURCES, "omniglot", missing)
    monkeypatch.setitem(data.SOURCES, "folder", broken)
    monkeypatch.setitem(data.SOURCES, "glyphs", lambda config: tiny("glyphs"))


def configured(source, fallback=None):
    config = base()
    config.data.source, config.data.fallback = source, fallback
    return config


def test_the_names():
    assert list(SOURCES) == [
        "omniglot", "folder", "tfds", "mnist", "digits", "pair_table", "glyphs"
    ]  # fmt: skip


def test_load_runs_the_source(sources):
    assert load(configured("glyphs")).notes == ("its own note",)


def test_a_fall_back_says_so_first(sources):
    splits = load(configured("omniglot", "glyphs"))
    assert splits.name == "glyphs"
    note, own = splits.notes
    assert own == "its own note"
    assert note.startswith("NOT OMNIGLOT: ")
    assert '"glyphs" is used INSTEAD' in note
    assert "no such folder /x, fetch it by hand" in note


@pytest.mark.parametrize("fallback", [None, "omniglot"])
def test_without_a_fallback_the_error_stands(monkeypatch, fallback):
    calls = []

    def missing(config):
        calls.append(config)
        raise DataNotFound("fetch it by hand")

    monkeypatch.setitem(data.SOURCES, "omniglot", missing)
    with pytest.raises(DataNotFound, match="fetch it by hand"):
        load(configured("omniglot", fallback))
    assert len(calls) == 1  # looking twice would be waiting twice


def test_damage_is_no_reason_to_fall_back(sources):
    with pytest.raises(ValueError, match="damaged"):
        load(configured("folder", "glyphs"))


def test_unknown_names():
    with pytest.raises(ValueError, match=r"config\.data\.source must be one of omniglot, .*glyph"):
        load(configured("glyph"))
    with pytest.raises(ValueError, match=r"config\.data\.fallback .*did you mean glyphs\?"):
        load(configured("omniglot", "glyfs"))


def test_data_not_found_is_a_value_error():
    assert issubclass(DataNotFound, ValueError)


def test_importing_brings_in_no_library_that_only_some_sources_need():
    code = (
        "import sys, siamjax.data\n"
        "import siamjax.data.omniglot, siamjax.data.folder, siamjax.data.tfds\n"
        "heavy = ('PIL', 'pooch', 'requests', 'tensorflow_datasets', 'tensorflow', 'matplotlib')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
