"""Pictures, folders and zips of them: read, or named with a reason."""

import io
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzzed import damaged, long, quick, works_or_tells
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from siamjax.config import base
from siamjax.data.folder import folder
from siamjax.data.inspection import inspect
from siamjax.data.inspection_text import as_text

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def encoded(kind, mode="RGB", **how):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(stream, kind, **how)
    return stream.getvalue()


def files():
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.fromarray(PIXELS[:, :, i]) for i in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return [
        encoded("PNG"), encoded("PNG", "P"), encoded("PNG", "1"), encoded("PNG", exif=exif),
        encoded("JPEG", exif=exif), encoded("JPEG", "CMYK"), encoded("BMP"), encoded("BMP", "1"),
        encoded("GIF", "L"), encoded("PPM"), encoded("PPM", "1"), encoded("TIFF"),
        encoded("TIFF", "L", compression="tiff_lzw"), encoded("TIFF", compression="jpeg"),
        encoded("TIFF", "1", compression="group4"), encoded("WEBP"), encoded("WEBP", lossless=True),
        stream.getvalue(),
    ]  # fmt: skip


FILES = files()
ENDINGS = ("png", "jpg", "bmp", "gif", "ppm", "tif", "webp")


def read_both(place, cache):
    config = base()
    config.data.update(source="folder", dir=str(place), cache_dir=str(cache))
    config.data.size = (6, 8)
    as_text(inspect(place, config))
    return folder(config)


def check_pictures(several):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "d"
        for c in ("a", "b"):
            (root / c).mkdir(parents=True)
            for i in range(2):
                (root / c / f"{i}.png").write_bytes(FILES[0])
        for i, (data, ending) in enumerate(several):
            (root / "a" / f"x{i}.{ending}").write_bytes(data)
        splits = read_both(root, Path(name) / "cache")  # the good ones are always read
        assert len(splits.train) + len(splits.validation) >= 4


PICTURES = st.lists(st.tuples(damaged(*FILES), st.sampled_from(ENDINGS)), min_size=8, max_size=8)


@quick
@given(PICTURES)
def test_pictures(several):
    check_pictures(several)


@pytest.mark.slow
@long
@given(PICTURES)
def test_many_pictures(several):
    check_pictures(several)


# ------------------------------------------------------------------------------------------ zips


def zipped(names, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name in names:
            archive.writestr(name, FILES[0])
    return stream.getvalue()


ZIPS = [
    zipped([f"{c}/{i}.png" for c in "ab" for i in range(2)]),
    zipped([f"top/{g}/{c}/{i}.png" for g in "gh" for c in "ab" for i in range(2)], 0),
    zipped([f"train/{c}/1.png" for c in "ab"] + [f"val/{c}/2.png" for c in "ab"]),
]


def check_zip(data):
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "d.zip"
        place.write_bytes(data)
        works_or_tells(read_both, place, Path(name) / "cache")
        assert {path.name for path in Path(name).iterdir()} <= {"d.zip", "cache"}


@quick
@given(damaged(*ZIPS))
def test_zips(data):
    check_zip(data)


@pytest.mark.slow
@long
@given(damaged(*ZIPS))
def test_many_zips(data):
    check_zip(data)


# ----------------------------------------------------------------------------------------- names

PARTS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda part: part not in (".", "..") and len(os.fsencode(part)) < 200)


def check_names(names):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "d"
        root.mkdir()
        for parts in names:
            path = root.joinpath(*parts[:-1], f"{parts[-1]}.png")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(FILES[0])
            except OSError:  # a folder of that name is there already, or a file
                continue
        found = works_or_tells(inspect, root, base())
        if found is not None:
            assert "\x1b" not in as_text(found)
        works_or_tells(read_both, root, Path(name) / "cache")


SURROGATES = st.text(st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF), min_size=1).filter(
    lambda part: len(part) < 100
)
ALL_NAMES = st.lists(
    st.lists(st.one_of(PARTS, SURROGATES), min_size=1, max_size=4), min_size=1, max_size=6
)


@quick
@given(ALL_NAMES)
def test_names(names):
    check_names(names)


@pytest.mark.slow
@long
@given(ALL_NAMES)
def test_many_names(names):
    check_names(names)
