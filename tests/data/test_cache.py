import json
import multiprocessing
import os
import time

import numpy as np
import pytest

from siamjax.config import base
from siamjax.data import cache
from siamjax.data.cache import Collected, Entry, cache_directory, cache_key, cached
from siamjax.preprocess import Preprocess

RUN = Preprocess(size=(2, 3))
PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 2, 3, 1)
ENTRIES = (
    Entry("B/x/1.png", "B/x", "B", drawer=3, split="train"),
    Entry("B/x/2.png", "B/x", "B", drawer=4, split="train"),
    Entry("A/y/1.png", "A/y", "A", drawer=3, split="train"),
    Entry("A/z/1.png", "A/z", "A", drawer=9, split="validation"),
)
KEY = cache_key("test", "abc", RUN)


def collect(write):
    for image in PIXELS:
        write(image)
    return Collected(ENTRIES, ["one note"], "2×3, grey")


def never(write):
    raise AssertionError("the cache was not used")


def check(found):
    np.testing.assert_array_equal(found.images.images, PIXELS)
    assert found.images.labels.tolist() == [0, 0, 1, 2]
    assert found.images.groups.tolist() == [0, 0, 1, 1]
    assert found.images.drawers.tolist() == [3, 4, 3, 9]
    assert found.images.class_names == ("B/x", "A/y", "A/z")
    assert found.images.group_names == ("B", "A")
    assert found.images.paths == tuple(e.path for e in ENTRIES)
    assert found.split.tolist() == ["train", "train", "train", "validation"]
    assert found.notes[0] == "one note"
    assert found.pixels == "2×3, grey"
    assert found.key == KEY
    assert not found.images.images.flags.writeable


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def test_the_second_start_decodes_nothing(tmp_path):
    check(cached(tmp_path, "set", KEY, RUN, collect))
    check(cached(tmp_path, "set", KEY, RUN, never))
    assert files(tmp_path) == [f"set-{KEY[:16]}.json", f"set-{KEY[:16]}.npy"]


def test_the_pixels_are_an_ordinary_npy_mapped_into_memory(tmp_path):
    found = cached(tmp_path, "set", KEY, RUN, collect)
    np.testing.assert_array_equal(np.load(tmp_path / f"set-{KEY[:16]}.npy"), PIXELS)
    assert isinstance(found.images.images.base, np.memmap)


def test_the_key_depends_on_files_source_preprocessing_and_format(monkeypatch):
    keys = {
        KEY,
        cache_key("other", "abc", RUN),
        cache_key("test", "abd", RUN),
        cache_key("test", "abc", Preprocess((2, 3), invert=True)),
        cache_key("test", "abc", Preprocess((3, 2))),
    }
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    keys.add(cache_key("test", "abc", RUN))
    assert len(keys) == 6


def truncate(npy):
    npy.write_bytes(npy.read_bytes()[:-1])


def flip(npy):
    data = bytearray(npy.read_bytes())
    data[-5] ^= 1
    npy.write_bytes(data)


def empty(npy):
    npy.write_bytes(b"")


def alter_labels(npy):
    sidecar = npy.with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace('"labels": [0, 0, 1', '"labels": [0, 1, 1'))


def cut_sidecar(npy):
    sidecar = npy.with_suffix(".json")
    sidecar.write_text(sidecar.read_text()[:100])


def empty_sidecar(npy):
    npy.with_suffix(".json").write_text("[]")


def other_shape(npy):
    np.save(npy, PIXELS[:3])


@pytest.mark.parametrize(
    "damage", [truncate, flip, empty, alter_labels, cut_sidecar, empty_sidecar, other_shape]
)
def test_damage_is_noticed_and_mended(tmp_path, damage):
    cached(tmp_path, "set", KEY, RUN, collect)
    damage(tmp_path / f"set-{KEY[:16]}.npy")
    again = cached(tmp_path, "set", KEY, RUN, collect)
    check(again)
    assert "were damaged" in again.notes[-1]
    assert "decoded again" in again.notes[-1]
    healed = cached(tmp_path, "set", KEY, RUN, never)
    check(healed)
    assert healed.notes == ("one note",)


def test_pixels_without_a_sidecar_are_an_unfinished_build(tmp_path):
    cached(tmp_path, "set", KEY, RUN, collect)
    (tmp_path / f"set-{KEY[:16]}.json").unlink()
    assert cached(tmp_path, "set", KEY, RUN, collect).notes == ("one note",)


def test_an_unwritable_place_means_memory_and_a_note(tmp_path):
    (tmp_path / "file").write_text("in the way")
    found = cached(tmp_path / "file" / "cache", "set", KEY, RUN, collect)
    check(found)
    assert "in memory only" in found.notes[-1]
    assert "config.data.cache_dir" in found.notes[-1]


def test_a_full_disc_means_memory_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    found = cached(tmp_path, "set", KEY, RUN, collect)
    check(found)
    assert "No space left" in found.notes[-1]
    assert files(tmp_path) == []


def test_an_error_while_collecting_leaves_nothing(tmp_path):
    def breaks(write):
        write(PIXELS[0])
        raise ValueError("not a picture")

    with pytest.raises(ValueError, match="not a picture"):
        cached(tmp_path, "set", KEY, RUN, breaks)
    assert files(tmp_path) == []


def test_old_leftovers_of_killed_builds_are_swept_and_young_ones_left(tmp_path):
    old, young = tmp_path / ".building-a.npy", tmp_path / ".building-b.npy"
    old.write_text("x")
    young.write_text("x")
    day_before = time.time() - 2 * cache.STALE
    os.utime(old, (day_before, day_before))
    cached(tmp_path, "set", KEY, RUN, collect)
    assert not old.exists()
    assert young.exists()


def test_a_checksum_covers_every_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 7)
    cached(tmp_path, "set", KEY, RUN, collect)
    npy = tmp_path / f"set-{KEY[:16]}.npy"
    assert len(json.loads(npy.with_suffix(".json").read_text())["content"]["checksums"]) == 4
    for byte in (1, 9, 16, 24):
        data = bytearray(npy.read_bytes())
        data[-byte] ^= 128
        npy.write_bytes(data)
        assert "damaged" in cached(tmp_path, "set", KEY, RUN, collect).notes[-1]


def _build(folder, barrier, results):
    def slow(write):
        barrier.wait(30)  # both are in the midst of building
        return collect(write)

    found = cached(folder, "set", KEY, RUN, slow)
    results.put((found.images.images.sum().item(), found.notes))


def test_two_processes_may_build_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_build, args=(tmp_path, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
        worker.close()
    assert found == [(PIXELS.sum(), ("one note",))] * 2
    assert len(files(tmp_path)) == 2
    check(cached(tmp_path, "set", KEY, RUN, never))


def test_where_the_cache_lies(monkeypatch, tmp_path):
    config = base()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory(config) == tmp_path / "xdg" / "siamjax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory(config) == tmp_path / "home" / ".cache" / "siamjax"
    config.data.cache_dir = "~/elsewhere"
    assert cache_directory(config) == tmp_path / "home" / "elsewhere"
