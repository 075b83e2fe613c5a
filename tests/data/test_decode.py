import io
import os
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from siamjax.data import decode as module
from siamjax.data.cache import Entry
from siamjax.data.decode import PixelFacts, decode_files
from siamjax.preprocess import Preprocess

RUN = Preprocess(size=(4, 4))


def encoded(value=0, size=(4, 4), mode="L", kind="PNG", **options):
    stream = io.BytesIO()
    Image.new(mode, size[::-1], value).save(stream, kind, **options)
    return stream.getvalue()


def bomb(side=60_000):
    """A whole PNG of 200 bytes that claims to have side × side pixels."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    idat = zlib.compress(b"\0" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")
    )


def decode(files):
    written = []
    entries = [Entry(name, name.split("/")[0]) for name in files]
    collected = decode_files(files.__getitem__, entries, RUN, written.append)
    return written, collected


def test_order_is_kept_over_many_batches(monkeypatch):
    monkeypatch.setattr("siamjax.data.decode.BATCH", 3)
    files = {f"c/{i}.png": encoded(i) for i in range(50)}
    written, collected = decode(files)
    assert [int(image[0, 0, 0]) for image in written] == list(range(50))
    assert [entry.path for entry in collected.entries] == list(files)
    assert list(collected.notes) == []
    assert collected.pixels == "4×4, grey"


def test_more_than_one_thread_decodes():
    seen, gate = set(), threading.Barrier(2, timeout=10)

    def read(path):
        seen.add(threading.get_ident())
        gate.wait()
        return encoded()

    entries = [Entry(f"c/{i}.png", "c") for i in range(2)]
    decode_files(read, entries, RUN, lambda image: None)
    assert len(seen) == 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP"])
def test_every_format(kind):
    written, _ = decode({"c/1.x": encoded(128, kind=kind)})
    assert np.abs(written[0].astype(int) - 128).max() <= 2


def test_whatever_cannot_be_read_is_named_and_left_out():
    big = encoded(size=(200, 200))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG")
    files = {
        "c/good.png": encoded(9),
        "c/empty.png": b"",
        "c/text.png": b"this is no picture",
        "c/cut.png": big[: len(big) // 2],
        "c/cut.jpg": stream.getvalue()[:900],
        "d/bomb.png": bomb(),
        "c/big.png": bomb(11_000),
        "c/wide.tif": encoded(-5.0, mode="F", kind="TIFF"),
        "c/good2.png": encoded(8),
    }
    written, collected = decode(files)
    assert [int(image[0, 0, 0]) for image in written] == [9, 8]
    assert [entry.path for entry in collected.entries] == ["c/good.png", "c/good2.png"]
    note, lost = collected.notes
    assert note.startswith("7 of 9 images could not be read and are left out: c/empty.png (")
    assert "c/cut.png (OSError: " in note
    assert "... 2 more" in note
    assert "BytesIO" not in note
    assert lost == "1 classes have no readable image: d"


@pytest.mark.parametrize(
    ("side", "text"), [(11_000, "11000×11000 is more than"), (60_000, "DecompressionBombError")]
)
def test_a_decompression_bomb_is_not_unpacked(side, text):
    with pytest.raises(ValueError, match=rf"none of 1 images could be read: .*{text}"):
        decode({"c/bomb.png": bomb(side)})


def test_pixel_facts():
    facts = PixelFacts()
    assert str(facts) == ""
    facts.add((480, 640), "RGB")
    assert str(facts) == "480×640, RGB"
    facts.add((1200, 800), "RGB")
    facts.add((500, 700), "1")
    facts.add((500, 700), "I;16")
    facts.add((500, 700), "RGB")
    assert str(facts) == "480×640 to 1200×800, RGB and 1-bit and 16-bit grey"


def test_what_has_several_frames_gives_the_first_and_says_so():
    frames = [Image.new("L", (4, 4), value) for value in (10, 200, 90)]
    files = {"c/still.png": encoded(9)}
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        stream = io.BytesIO()
        options = {"lossless": True} if kind == "WEBP" else {}
        frames[0].save(stream, kind, save_all=True, append_images=frames[1:], **options)
        files[f"c/moves.{kind.lower()}"] = stream.getvalue()
    written, collected = decode(files)
    assert [int(image[0, 0, 0]) for image in written] == [9, 10, 10, 10, 10]
    assert collected.notes == [
        "4 images have several frames or pages, of which the first is used: c/moves.gif,"
        " c/moves.tiff, c/moves.webp, c/moves.png"
    ]


def test_large_images_are_unpacked_one_at_a_time(monkeypatch):
    """Memory is that of one, however many threads there are."""
    monkeypatch.setattr(module, "LARGE", 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    inside, most = 0, 0

    def preprocess(image):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        inside -= 1
        return np.zeros((4, 4, 1), np.uint8)

    entries = [Entry(f"c/{i}.png", "c") for i in range(30)]
    large = encoded()
    decode_files(lambda path: large, entries, preprocess, lambda image: None)
    assert most == 1
