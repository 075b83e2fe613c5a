import threading
import time

import pooch
import pytest
import requests

from siamjax.data import download
from siamjax.data.download import OMNIGLOT, fetch, unreachable
from siamjax.data.splits import DataNotFound


@pytest.fixture
def network(monkeypatch):
    """A network that gives a file for each request, and a list of what was asked."""
    asked = []

    def retrieve(url, known_hash, fname, path, downloader):
        asked.append((url, known_hash))
        (path / fname).write_bytes(b"zip")
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setattr(download, "unreachable", lambda url: "")
    return asked


def test_both_zips_with_their_checksums(network, tmp_path, capsys):
    places, notes = fetch(OMNIGLOT, tmp_path / "data", tmp_path / "cache", {})
    here = tmp_path / "data" / "omniglot"
    assert places == {name: here / f"{name}.zip" for name in OMNIGLOT.files}
    base = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
    first = "sha256:ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640"
    second = "sha256:1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee"
    assert network == [
        (base + "images_background.zip", first),
        (base + "images_evaluation.zip", second),
    ]
    said = capsys.readouterr().err
    for text in (str(here), "9.0 MiB", "6.2 MiB", "a re-run uses what is complete"):
        assert text in said
    assert str(here) in notes[0]


def test_only_what_is_missing(network, tmp_path):
    have = {"images_evaluation": tmp_path / "images_evaluation.zip"}
    places, _ = fetch(OMNIGLOT, tmp_path, tmp_path / "cache", have)
    assert len(network) == 1
    assert places["images_evaluation"] == have["images_evaluation"]


def test_an_unwritable_data_directory_means_the_cache_and_a_second_run_reuses_it(network, tmp_path):
    (tmp_path / "data").write_text("a file in the way")
    first, _ = fetch(OMNIGLOT, tmp_path / "data", tmp_path / "cache", {})
    assert first["images_background"].parent == tmp_path / "cache" / "omniglot"
    network.clear()
    again, notes = fetch(OMNIGLOT, tmp_path / "data", tmp_path / "cache", {})
    assert again == first
    assert network == []
    assert notes == ()


def test_off_line_says_what_where_and_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "unreachable", lambda url: "ConnectionError")
    with pytest.raises(DataNotFound) as error:
        fetch(OMNIGLOT, tmp_path, tmp_path / "cache", {})
    text = str(error.value)
    assert "looked for images_background.zip or images_background/ in " + str(tmp_path) in text
    assert "ConnectionError" in text
    assert "master/python/images_background.zip" in text
    assert "master/python/images_evaluation.zip" in text
    assert f"into {tmp_path / 'omniglot'}" in text
    assert 'config.data.fallback = "glyphs"' in text
    assert not (tmp_path / "omniglot").exists()


@pytest.mark.parametrize(
    "fault", [requests.ConnectionError("cut"), ValueError("hash does not match"), OSError("full")]
)
def test_a_download_that_fails_half_way(network, monkeypatch, tmp_path, fault):
    def retrieve(*_, **__):
        raise fault

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(DataNotFound, match=str(fault)):
        fetch(OMNIGLOT, tmp_path, tmp_path / "cache", {})


def test_unreachable_gives_up_in_time(monkeypatch):
    monkeypatch.setattr(download, "PROBE_SECONDS", 0.1)
    done = threading.Event()

    def hang(*_, **__):
        done.wait(10)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "head", hang)
    start = time.monotonic()
    assert unreachable("https://example.org") == "no answer"
    assert time.monotonic() - start < 2
    done.set()


def test_unreachable_tells_why_or_nothing(monkeypatch):
    class Answer:
        def raise_for_status(self):
            pass

    monkeypatch.setattr(requests, "head", lambda *_, **__: Answer())
    assert unreachable("https://example.org") == ""

    def refuse(*_, **__):
        raise requests.exceptions.ProxyError("no")

    monkeypatch.setattr(requests, "head", refuse)
    assert unreachable("https://example.org") == "ProxyError"


def test_the_longest_wait_is_about_five_seconds():
    assert download.PROBE_SECONDS <= 4.5
