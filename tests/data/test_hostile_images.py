"""Files from strangers: each is named with its reason, and the rest go on, in bounded memory."""

import bz2
import io
import lzma
import os
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from siamjax.config import base
from siamjax.data.folder import folder
from siamjax.data.inspection import inspect

MEMORY = 100e6  # bytes of Python's own; Pillow's are refused before they are asked for


def encoded(kind, **how):
    stream = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(stream, kind, **how)
    return stream.getvalue()


def png(width, height, *extra):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(chunk(*e) for e in extra)
        + pixels
        + chunk(b"IEND", b"")
    )


def tiff(width, height):
    """One strip, as large as the picture says it is, that isn't there."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, min(width * height, 2**32 - 1))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def gif(width, height):
    whole = bytearray(encoded("GIF"))
    whole[6:10] = struct.pack("<HH", width, height)
    return bytes(whole)


def bmp(width, height):
    whole = bytearray(encoded("BMP"))
    whole[18:26] = struct.pack("<ii", width, height)
    return bytes(whole)


def looped_tiff():
    """The second directory of a TIFF points back at the first."""
    whole = bytearray(tiff(4, 4))
    whole[-4:] = struct.pack("<I", 8)
    return bytes(whole)


ICO = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, 40, 22) + bytes(40)
PICTURES = {
    "bomb.png": png(60_000, 60_000),
    "wide.png": png(2**31 - 1, 1),
    "text.png": png(8, 6, (b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000)))),
    "profile.png": png(8, 6, (b"iCCP", b"a\0\0" + zlib.compress(bytes(200_000_000)))),
    "bomb.tif": tiff(2**31 - 1, 2**31 - 1),
    "strip.tif": tiff(8_000, 8_000),
    "loop.tif": looped_tiff(),
    "bomb.gif": gif(65_535, 65_535),
    "bomb.bmp": bmp(2**31 - 1, 2**31 - 1),
    "bomb.ppm": b"P6 4000000000 4000000000 255\n",
    "plain.ppm": b"P3 9000 9000 255\n" + b"1 " * 1000,
    "icon.png": ICO,
    "page.jpg": b"<!DOCTYPE html><html></html>",
    "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(rm) system\n",
    "cut.jpg": encoded("JPEG")[:200],
    "cut.webp": encoded("WEBP")[:30],
    "empty.png": b"",
}
HARMLESS = ("text.png", "profile.png", "loop.tif")  # what is odd in them may be left unread


@pytest.fixture
def place(tmp_path):
    """Four honest classes of two images."""
    for c in range(4):
        (tmp_path / f"d/c{c}").mkdir(parents=True)
        for i in range(2):
            picture = Image.fromarray(np.full((6, 8), 40 * c + i, np.uint8))
            picture.save(tmp_path / f"d/c{c}/{i}.png")
    return tmp_path / "d"


def packed(place, more=()):
    """The same as a zip, with further entries (name, bytes or ZipInfo, method)."""
    out = place.with_suffix(".zip")
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(place.rglob("*.png")):
            archive.write(path, path.relative_to(place).as_posix())
        for name, content, method in more:
            archive.writestr(name, content, method)
    return out


def load(place, cache):
    config = base()
    config.data.update(source="folder", dir=str(place), cache_dir=str(cache))
    config.data.size = (6, 8)
    return folder(config)


def unreadable(place, cache):
    """What both readers say of a place, with the honest images untouched, and the memory."""
    tracemalloc.start()
    try:
        found = inspect(place, base())
        splits = load(place, cache)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    reasons = dict(found.unreadable)
    assert len(splits.train) + len(splits.validation) == found.images
    assert found.images >= 8
    told = " ".join(splits.notes)
    assert not reasons or f"{len(reasons):,} of " in told
    return reasons


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_is_none_is_named(name, place, tmp_path):
    (place / "c0" / name).write_bytes(PICTURES[name])
    reasons = unreadable(place, tmp_path / "cache")
    if name in HARMLESS:
        assert set(reasons) <= {f"c0/{name}"}
        return
    (reason,) = reasons.values()
    assert 10 < len(reason) < 200
    assert "\n" not in reason


@pytest.mark.parametrize("side", ["folder", "zip"])
def test_a_large_file_of_zeros_is_not_read(side, place, tmp_path):
    with (place / "c0/zeros.png").open("wb") as file:
        file.truncate(200 << 20)
    if side == "zip":
        place = packed(place)
    (reason,) = unreadable(place, tmp_path / "cache").values()
    assert "bytes that do not begin as a picture does" in reason


def test_ten_gigabytes_in_a_zip_are_not_unpacked(place, tmp_path):
    """Declared, and declared falsely as little."""
    out = packed(place, [("c0/huge.png", bytes(2 << 20), zipfile.ZIP_DEFLATED)])
    whole = out.read_bytes()
    for size, text in ((10 * 2**30 % 2**32, "more than the"), (100, "Bad CRC-32")):
        at = whole.rindex(b"c0/huge.png") - 46 + 24
        out.write_bytes(whole[:at] + struct.pack("<I", size) + whole[at + 4 :])
        (reason,) = unreadable(out, tmp_path / "cache").values()
        assert text in reason


def test_what_deflates_a_thousandfold_is_no_picture(place, tmp_path):
    out = packed(place, [("c0/b.bmp", b"BM" + bytes(64 << 20), zipfile.ZIP_DEFLATED)])
    (reason,) = unreadable(out, tmp_path / "cache").values()
    assert "unpacks to 67,108,866 bytes from" in reason


@pytest.mark.parametrize(
    ("method", "pack"), [(zipfile.ZIP_BZIP2, bz2.compress), (zipfile.ZIP_LZMA, lzma.compress)]
)
def test_packings_without_a_limit_are_refused(method, pack, place, tmp_path):
    """`ZipFile` unpacks a whole block of these before it looks at the declared size."""
    out = packed(place, [("c0/b.png", bytes(80 << 20), method)])
    whole = bytearray(out.read_bytes())
    at = whole.rindex(b"c0/b.png") - 46 + 24
    whole[at : at + 4] = struct.pack("<I", 100)
    out.write_bytes(whole)
    (reason,) = unreadable(out, tmp_path / "cache").values()
    assert "packed with a method other than deflate" in reason


def test_zip_names_that_lead_out_are_told_and_write_nothing(place, tmp_path):
    picture = encoded("PNG")
    names = [
        "../../out.png",
        "/etc/out.png",
        "C:\\out.png",
        "c0/../../out.png",
        "\\\\host\\out.png",
    ]
    out = packed(place, [(name, picture, zipfile.ZIP_STORED) for name in names])
    before = sorted(tmp_path.rglob("*"))
    notes = " ".join(inspect(out, base()).notes)
    assert notes.count("leads out of the zip: refused") == 5
    assert sorted(tmp_path.rglob("*")) == before


def test_an_encrypted_entry_is_named(place, tmp_path):
    out = packed(place)
    whole = bytearray(out.read_bytes())
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        whole[whole.index(sign) + at] |= 1
    out.write_bytes(whole)
    found = inspect(out, base())
    ((_, reason),) = found.unreadable
    assert "encrypted" in reason


def test_links_in_a_circle_and_to_nowhere(place, tmp_path):
    (place / "c0/again").symlink_to(place, target_is_directory=True)
    (place / "c1/self.png").symlink_to(place / "c1/self.png")
    (place / "c2/gone.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(place / "c3/pipe.png")
    found = inspect(place, base())
    assert found.images == 8
    notes = " ".join(found.notes)
    for word in ("a link to a folder that is there already", "not a regular file", "not read: "):
        assert word in notes


NAMES = (
    "new\nline", "tab\t", "\x1b[31mred", "\u202egnp", "ア ガ", "e\u0301", "é", "עברית", "😀",
    "CON", "a" * 200, "%s{0}", "'; drop", "-rf", " ", "\udcff\udcfe", "$(id)",
)  # fmt: skip


def test_names_of_every_script(place, tmp_path):
    """As files and as classes; from the cache again; printed without a control character."""
    picture = encoded("PNG")
    for name in NAMES:
        (place / name).mkdir()
        for i in range(2):
            (place / name / f"{name}{i}.png").write_bytes(picture)
    first, second = (load(place, tmp_path / "cache") for _ in range(2))
    assert first.train.class_names == second.train.class_names
    names = set(first.train.class_names) | set(first.validation.class_names)
    assert names == {*NAMES, "c0", "c1", "c2", "c3"}
    for note in first.notes:
        assert note.isprintable()


def test_a_folder_that_may_not_be_read_is_a_sentence(place, tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"cannot be read: Permission denied"):
        inspect(place, base())
    with pytest.raises(ValueError, match=r"cannot be read: Permission denied"):
        load(place, tmp_path / "cache")
