import gzip
import struct
import sys

import numpy as np
import pooch
import pytest
import requests

from siamjax.config import base
from siamjax.data import DataNotFound, download, mnist
from siamjax.data.download import MNIST
from siamjax.data.mnist import FILES, digits, find, read_idx
from siamjax.preprocess import Preprocess


def idx(array):
    header = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + header + array.tobytes()


def small(seed=0, train=40, test=20, classes=10):
    """Four little arrays under MNIST's names."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, n in (("train", train), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(n)[::-1] % classes).astype(np.uint8)
    return arrays


def write(folder, arrays, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        data = idx(array)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(data) if suffix == ".gz" else data)


def config_for(place, tmp_path, **data):
    config = base()
    config.data.update(source="mnist", dir=str(place), cache_dir=str(tmp_path / "cache"))
    config.data.size = (28, 28)
    config.data.update(data)
    return config


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(url):
        raise AssertionError(f"a test asked for {url}")

    monkeypatch.setattr(download, "unreachable", refuse)


# ---------------------------------------------------------------------- the real thing


def test_mnist_itself(real_data, tmp_path):
    splits = mnist.mnist(config_for(real_data, tmp_path, holdout=0.0))
    assert splits.name == "mnist"
    assert splits.summary == "10 classes, 70,000 images, 28×28, grey"
    assert splits.train.images.shape == (60_000, 28, 28, 1)
    assert splits.validation.images.shape == (10_000, 28, 28, 1)
    assert splits.test is None
    assert splits.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert splits.validation.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(splits.train.labels).min() == 5421
    assert np.bincount(splits.validation.labels).min() == 892
    assert splits.train.class_names == tuple("0123456789")
    assert splits.train.images[:, 0, 0].max() == 0  # paper is black
    assert splits.train.images.mean() == pytest.approx(0.1306604762738429 * 255, rel=1e-6)
    assert any("the test images are the validation images" in note for note in splits.notes)
    assert not any("NOT MNIST" in note for note in splits.notes)
    assert not (tmp_path / "cache").exists()


# ---------------------------------------------------------------------- layouts


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_where_the_files_may_lie(tmp_path, folder, suffix):
    arrays = small()
    write(tmp_path / "d" / folder, arrays, suffix)
    splits = mnist.mnist(config_for(tmp_path / "d", tmp_path, holdout=0.0))
    assert (splits.train.images[..., 0] == arrays["train-images-idx3-ubyte"]).all()
    assert (splits.validation.images[..., 0] == arrays["t10k-images-idx3-ubyte"]).all()
    assert splits.train.labels.tolist() == arrays["train-labels-idx1-ubyte"].tolist()
    assert splits.validation.labels.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    assert splits.train.paths[:2] == ("train/0", "train/1")
    assert splits.validation.paths[-1] == "test/19"


def test_the_other_spelling_and_a_gz_that_is_none(tmp_path):
    arrays = small()
    write(tmp_path, arrays, "")
    images, labels = list(FILES)[:2]
    (tmp_path / images).rename(tmp_path / "train-images.idx3-ubyte")
    (tmp_path / labels).rename(tmp_path / f"{labels}.gz")  # unpacked, but the name was kept
    assert find(tmp_path)[images].name == "train-images.idx3-ubyte"
    splits = mnist.mnist(config_for(tmp_path, tmp_path))
    assert splits.summary.startswith("10 classes, 60 images")


def test_packed_and_unpacked_are_the_same_data(tmp_path):
    prints = set()
    for suffix in (".gz", ""):
        write(tmp_path / f"d{suffix}", small(), suffix)
        prints.add(mnist.mnist(config_for(tmp_path / f"d{suffix}", tmp_path)).fingerprint)
    write(tmp_path / "other", small(seed=1))
    other = mnist.mnist(config_for(tmp_path / "other", tmp_path)).fingerprint
    inverted = mnist.mnist(config_for(tmp_path / "other", tmp_path, invert=True)).fingerprint
    assert len(prints) == 1
    assert len({*prints, other, inverted}) == 3


def test_other_data_of_that_name_are_not_called_mnist(tmp_path):
    write(tmp_path / "fashion", small())
    splits = mnist.mnist(config_for(tmp_path / "fashion", tmp_path))
    assert splits.name == "idx:fashion"
    assert any(note.startswith("NOT MNIST: the files in ") for note in splits.notes)


def test_validation_is_held_out_by_image(tmp_path):
    write(tmp_path, small())
    splits = mnist.mnist(config_for(tmp_path, tmp_path, holdout=0.25))
    assert splits.test is not None
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [20, 20, 20]
    assert not set(splits.train.paths) & set(splits.validation.paths)
    assert any(
        "held out for validation: 20 of 40 images, so classes: seen" in n for n in splits.notes
    )


def test_drawers_are_not_known(tmp_path):
    for source in (mnist.mnist, digits):
        with pytest.raises(ValueError, match="needs to know who drew each image"):
            source(config_for(tmp_path, tmp_path, split="drawer"))


# ---------------------------------------------------------------------- preprocessing


@pytest.mark.parametrize(
    "settings", [{"invert": True}, {"channels": 3}, {"channels": 3, "invert": True}, {}]
)
def test_without_resizing_it_is_what_preprocess_does_and_is_not_cached(tmp_path, settings):
    arrays = small()
    write(tmp_path / "d", arrays)
    splits = mnist.mnist(config_for(tmp_path / "d", tmp_path, holdout=0.0, **settings))
    preprocess = Preprocess(size=(28, 28), **settings)
    expected = [preprocess(image) for image in arrays["train-images-idx3-ubyte"]]
    np.testing.assert_array_equal(splits.train.images, expected)
    assert not (tmp_path / "cache").exists()


def test_resized_images_are_cached_and_keep_their_labels(tmp_path):
    arrays = small()
    write(tmp_path / "d", arrays)
    config = config_for(tmp_path / "d", tmp_path, holdout=0.0)
    config.data.size = (14, 20)
    for _ in range(2):
        splits = mnist.mnist(config)
        expected = [Preprocess((14, 20))(image) for image in arrays["train-images-idx3-ubyte"]]
        np.testing.assert_array_equal(splits.train.images, expected)
        assert splits.train.labels.tolist() == arrays["train-labels-idx1-ubyte"].tolist()
        assert splits.train.class_names == tuple("0123456789")
        assert len(list((tmp_path / "cache").glob("mnist-*.npy"))) == 1


# ---------------------------------------------------------------------- damaged files


def test_read_idx_by_hand(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 9, 8, 7, 6, 5, 4]))
    assert read_idx(path).tolist() == [[[9, 8, 7], [6, 5, 4]]]
    path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 1, 1]) + bytes(range(256)) + b"\x07")
    assert read_idx(path).tolist() == [*range(256), 7]


LABELS = idx(np.arange(10, dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is not an IDX file of bytes: it begins with , not with 00 00 08 01"),
        (b"<!DOCTYPE html>", "begins with 3c 21 44 4f"),
        (b"\0\0\x0d\x01" + LABELS[4:], "begins with 00 00 0d 01"),  # floats
        (b"\0\0\x08\x02" + bytes(16), "begins with 00 00 08 02"),
        (LABELS[:6], "ends within its header"),
        (LABELS[:-1], r"should hold 10 bytes \(10\) after its header, but holds 9: fetch"),
        (LABELS + b"\0", r"should hold 10 bytes \(10\) after its header, but holds more"),
        (
            b"\0\0\x08\x03" + b"\xff" * 12,
            f"says it holds {0xFFFFFFFF**3:,} bytes; at most 1,073,741,824 pass",
        ),
        (gzip.compress(LABELS, mtime=0)[:-12], "is not a whole gzip file .* delete it"),
        (b"\x1f\x8b" + bytes(20), "is not a whole gzip file"),
        (gzip.compress(LABELS, mtime=0)[:12] + bytes(20), "is not a whole gzip file"),
        (gzip.compress(LABELS[:-1] + bytes(10**7), mtime=0), "but holds more"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_damaged_files(tmp_path, content, text):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=text) as error:
        read_idx(tmp_path / "x")
    assert str(tmp_path / "x") in str(error.value)
    assert not isinstance(error.value, DataNotFound)  # a fall back would hide the damage


def test_files_that_do_not_belong_together(tmp_path):
    images, labels, other, _ = FILES
    arrays = small()
    write(tmp_path / "a", {**arrays, labels: arrays[labels][:-1]})
    with pytest.raises(ValueError, match=r"\(40×28×28\) and .* \(39\) do not belong together"):
        mnist.mnist(config_for(tmp_path / "a", tmp_path))
    write(tmp_path / "b", {**arrays, other: np.zeros((20, 5, 28), np.uint8)})
    with pytest.raises(
        ValueError, match=r"\(28, 28\), test images \(5, 28\).* different data sets"
    ):
        mnist.mnist(config_for(tmp_path / "b", tmp_path))
    write(tmp_path / "c", {**arrays, images: arrays[labels], labels: arrays[images]})
    with pytest.raises(ValueError, match=r"do not belong together: expected n×28×28 images"):
        mnist.mnist(config_for(tmp_path / "c", tmp_path))


# ---------------------------------------------------------------------- downloads


@pytest.fixture
def network(monkeypatch):
    """A server that has the small arrays, and a list of what was asked of it."""
    asked, arrays = [], small()

    def retrieve(url, known_hash, fname, path, downloader):
        asked.append((url, known_hash))
        (path / fname).write_bytes(gzip.compress(idx(arrays[fname.removesuffix(".gz")])))
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setattr(download, "unreachable", lambda url: "")
    return asked


def test_what_is_missing_is_downloaded_with_its_checksum(network, tmp_path, capsys):
    images, labels = list(FILES)[:2]
    write(tmp_path / "d", {images: small()[images]})
    splits = mnist.mnist(config_for(tmp_path / "d", tmp_path))
    assert len(network) == 3
    assert network[0] == (
        f"{MNIST.base}{labels}.gz",
        "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    )
    assert "1.6 MiB" in capsys.readouterr().err
    assert splits.notes[0].startswith(f"downloaded to {tmp_path / 'd' / 'mnist'}: {labels}.gz")
    network.clear()
    mnist.mnist(config_for(tmp_path / "d", tmp_path))
    assert network == []


def test_a_data_directory_that_cannot_be_written_means_the_cache(network, tmp_path):
    (tmp_path / "d").write_text("a file in the way")
    for count in (4, 4):  # the second time it is there
        mnist.mnist(config_for(tmp_path / "d", tmp_path))
        assert len(network) == count
    assert find(tmp_path / "cache")["t10k-labels-idx1-ubyte"].parent.name == "mnist"
    (tmp_path / "cache2").write_text("another")
    with pytest.raises(DataNotFound, match=r"neither .* nor .* can be written"):
        mnist.mnist(config_for(tmp_path / "d", tmp_path, cache_dir=str(tmp_path / "cache2")))


def test_off_line_says_what_where_and_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "unreachable", lambda url: "ConnectionError")
    with pytest.raises(DataNotFound) as error:
        mnist.mnist(config_for(tmp_path / "d", tmp_path))
    text = str(error.value)
    for name in FILES:
        assert f"{MNIST.base}{name}.gz" in text
    assert "(ConnectionError)" in text
    assert f"into {tmp_path / 'd' / 'mnist'}" in text
    assert 'config.data.fallback = "digits"' in text
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("fault", [requests.ConnectionError("cut"), ValueError("wrong hash")])
def test_a_download_that_fails_half_way(network, monkeypatch, tmp_path, fault):
    def retrieve(*_, **__):
        raise fault

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(DataNotFound, match=str(fault)):
        mnist.mnist(config_for(tmp_path, tmp_path))


# ---------------------------------------------------------------------- digits


def test_digits(tmp_path):
    config = config_for(tmp_path, tmp_path, holdout=0.0)
    config.data.size = (8, 8)
    splits = digits(config)
    assert splits.name == "digits"
    assert splits.summary == (
        "10 classes, 1,797 images, 8×8, grey (scikit-learn's digits, not MNIST)"
    )
    assert splits.notes[0] == "scikit-learn's digits, 8×8, brought to 8×8: not MNIST"
    assert (len(splits.train), len(splits.validation), splits.test) == (1437, 360, None)
    assert splits.train.labels[:12].tolist() == [*range(10), 0, 1]
    # The first row of the first image is 0 0 5 13 9 1 0 0 of 16.
    assert splits.train.images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert splits.train.images.max() == 255


def test_digits_are_enlarged_and_divided(tmp_path):
    splits = digits(config_for(tmp_path, tmp_path, channels=3, invert=True))
    assert splits.train.images.shape[1:] == (28, 28, 3)
    assert splits.test is not None
    assert len(splits.train) + len(splits.validation) == 1437
    assert len(splits.test) == 360
    assert splits.fingerprint != digits(config_for(tmp_path, tmp_path)).fingerprint
    assert splits.train.images[:, 0, 0].mean() > 240  # paper is white


def test_digits_without_scikit_learn(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataNotFound, match="not installed: pip install scikit-learn"):
        digits(config_for(tmp_path, tmp_path))
