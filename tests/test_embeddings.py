import numpy as np
import pytest
from PIL import Image
from untrained import untrained_run

import siamjax
from siamjax import embeddings
from siamjax.data import files
from siamjax.embeddings import embed_folder, embed_stream, image_files


@pytest.fixture(scope="module")
def comparator(tmp_path_factory):
    return siamjax.load(untrained_run(tmp_path_factory.mktemp("run")))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("b/10.png", "b/2.png", "a/x/1.png", "top.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).save(tmp_path / name)
    return tmp_path


def test_files_in_natural_order_with_their_folders(folder):
    (folder / "notes.txt").write_text("x")
    files, notes = image_files(folder)
    assert [(f.name, f.label) for f in files] == [
        ("a/x/1.png", "a/x"), ("b/2.png", "b"), ("b/10.png", "b"), ("top.png", ""),
    ]  # fmt: skip
    assert "notes.txt" in notes[0]
    with pytest.raises(ValueError, match="is not a folder of images"):
        image_files(folder / "top.png")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image in .*empty"):
        image_files(folder / "empty")


def test_a_stream_is_the_same_in_any_batch(comparator, folder):
    (folder / "b/3.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    files = [file.path for file in image_files(folder)[0]]
    good = [0, 1, 3, 4]
    expected = comparator.embed([files[i] for i in good])
    for batch in (1, 2, 10):
        faults, places, parts = [], [], []
        for some, z in embed_stream(comparator, iter(files), faults, batch):
            places += some
            parts.append(z)
        assert places == good
        np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5)
        assert len(faults) == 1
        assert faults[0].startswith(f"{folder}/b/3.png cannot be read as an image: ")
    with pytest.raises(ValueError, match=r"3\.png cannot be read"):
        list(embed_stream(comparator, files))


def test_no_more_than_a_batch_is_decoded_at_a_time(comparator, folder, monkeypatch):
    read = []
    original = comparator.pixels
    monkeypatch.setattr(comparator, "pixels", lambda i: (read.append(i), original(i))[1])
    stream = embed_stream(comparator, [f.path for f in image_files(folder)[0]], batch=2)
    assert not read
    next(stream)
    assert len(read) == 2


def test_a_folder_is_saved_without_pickle(comparator, folder):
    found = embed_folder(comparator, folder)
    path = folder / "new" / "out"
    found.save(path)
    with np.load(path, allow_pickle=False) as file:
        assert (
            file["paths"].tolist() == found.names == ["a/x/1.png", "b/2.png", "b/10.png", "top.png"]
        )
        assert file["labels"].tolist() == ["a/x", "b", "b", ""]
        np.testing.assert_array_equal(file["embeddings"], found.embeddings)
        assert file["embeddings"].dtype == np.float32


def test_a_folder_of_many_batches(comparator, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(embeddings.BATCH + 3):
        Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).save(tmp_path / f"{i}.png")
    found = embed_folder(comparator, tmp_path)
    assert found.names == [f"{i}.png" for i in range(embeddings.BATCH + 3)]
    last = comparator.embed([tmp_path / found.names[-1]])
    np.testing.assert_allclose(found.embeddings[-1:], last, atol=1e-5)


def test_nothing_readable_is_an_error(comparator, tmp_path):
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(ValueError, match="none of the 1 images"):
        embed_folder(comparator, tmp_path, faults=[])


def test_what_is_too_large_is_not_unpacked(comparator, folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 143)
    with pytest.raises(ValueError, match="12×12 is more than Pillow's limit"):
        list(embed_stream(comparator, [folder / "top.png"]))
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="more than the 10 a picture may have"):
        comparator.pixels(folder / "top.png")


def test_weights_that_are_not_finite_are_named(comparator, folder, monkeypatch):
    bad = np.full((1, 8), np.nan, np.float32)
    monkeypatch.setattr(comparator.encoder, "embed", lambda x: bad)
    with pytest.raises(ValueError, match="embeddings that are not finite"):
        list(embed_stream(comparator, [folder / "top.png"]))
