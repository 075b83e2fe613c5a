"""Tables of pairs and the rows of predictions: read, or a sentence."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from fuzzed import damaged, long, quick, works_or_tells
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from siamjax.config import base
from siamjax.data.inspection import inspect
from siamjax.data.inspection_text import as_text
from siamjax.data.pair_table import pair_table
from siamjax.predictions import read_pairs

CELLS = st.sampled_from(
    ("0.png", "1.png", "./2.png", "3.png", "gone.png", "..", "", "\0", '"', '"a\nb"', "x" * 300,
     "0", "1", "true", "different", "nan", "train", "val", "test", "é", "\udcff", " 1 ", "1.0")
)  # fmt: skip
HEADERS = st.sampled_from(
    ("left,right,same", "x1,x2,label", "left;right;same;split", "left\tright\tsame", "a,b", "left",
     "left,right,same,left", "\ufeffleft,right,label,split", "folder,label", "")
)  # fmt: skip
TABLE = b"left,right,same,split\n" + b"".join(
    b"%d.png,%d.png,%d,%s\n" % (i % 4, (i + 1) % 4, i % 2, b"val" if i % 3 else b"train")
    for i in range(12)
)
TABLES = [
    TABLE,
    TABLE.replace(b",", b";"),
    TABLE.decode().encode("utf-16"),
    b"\xef\xbb\xbf" + TABLE,
]


@st.composite
def made_up(draw):
    """Rows of odd cells below a header."""
    rows = draw(st.lists(st.lists(CELLS, max_size=5), max_size=12))
    text = "\n".join([draw(HEADERS), *(",".join(row) for row in rows)])
    return text.encode("utf-8", "surrogateescape")


ANY = st.one_of(made_up(), damaged(*TABLES), st.binary(max_size=200))


def check(data):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 256, (6, 8), np.uint8)
            Image.fromarray(pixels).save(root / f"{i}.png")
        (root / "pairs.csv").write_bytes(data)
        config = base()
        config.data.update(source="pair_table", dir=str(root / "pairs.csv"))
        config.data.update(cache_dir=str(root / "cache"), size=(6, 8))
        works_or_tells(pair_table, config)
        found = works_or_tells(inspect, root / "pairs.csv", config)
        if found is not None:
            as_text(found)
        works_or_tells(lambda: list(read_pairs(root / "pairs.csv")))


@quick
@given(ANY)
def test_tables(data):
    check(data)


@pytest.mark.slow
@long
@given(ANY)
def test_many_tables(data):
    check(data)
