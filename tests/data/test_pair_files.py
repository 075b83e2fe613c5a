import os
import tracemalloc

import numpy as np
import pytest

from siamjax.data.pair_files import LAYOUTS, Faults, find_table, read_csv, read_folders, records
from siamjax.data.splits import DataNotFound


def rows_of(text, tmp_path, **write):
    """What is read from a CSV, as readable tuples, and its faults."""
    path = tmp_path / "pairs.csv"
    path.write_bytes(text) if isinstance(text, bytes) else path.write_text(text, **write)
    faults = Faults()
    rows = read_csv(path, faults)
    return readable(rows), faults


def readable(rows):
    return [
        (rows.names[a], rows.names[b], bool(same), int(split), int(line))
        for a, b, same, split, line in zip(
            rows.left, rows.right, rows.same, rows.split, rows.line, strict=True
        )
    ]


# ---------------------------------------------------------------------- the CSV

TWO = [("a.png", "b.png", True, -1, 2), ("a.png", "c.png", False, -1, 3)]


@pytest.mark.parametrize(
    "text",
    [
        "left,right,same\na.png,b.png,1\na.png,c.png,0\n",
        "left,right,label\na.png,b.png,1\na.png,c.png,0",
        "\ufeffleft;right;same\r\na.png;b.png;true\r\na.png;c.png;False\r\n",
        "same\tRight\t Left \nsame\tb.png\ta.png\nDIFFERENT\tc.png\ta.png\n",
        'x1,x2,label,predict\n"a.png","b.png",1.0,0.2\na.png,./c.png,0.0,0.9\n',
        "left,right,same\n./a.png, b.png ,1\nd/../a.png,.\\c.png,0\n",
    ],
)
def test_spellings(tmp_path, text):
    found, faults = rows_of(text, tmp_path, newline="")
    assert found == TWO
    assert not faults.count


def test_excel_writes_utf_16(tmp_path):
    text = "left\tright\tsame\na.png\tb.png\t1\na.png\tc.png\t0\n"
    assert rows_of(text, tmp_path, encoding="utf-16")[0] == TWO


def test_names_with_commas_newlines_and_other_scripts(tmp_path):
    text = 'left,right,same\n"a, b.png","字 1.png",1\n\n"x\ny.png",é.png,0\n'
    found, faults = rows_of(text, tmp_path, encoding="utf-8")
    assert found == [
        ("a, b.png", "字 1.png", True, -1, 2),
        ("x\ny.png", "é.png", False, -1, 5),
    ]
    assert not faults.count  # an empty line is no row


def test_each_image_has_one_name(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("left,right,same\na/1.png,b/2.png,1\na\\1.png,./b//2.png,0\n")
    rows = read_csv(path, Faults())
    assert rows.names == ("a/1.png", "b/2.png")
    assert rows.base == tmp_path
    assert rows.left.tolist() == [0, 0]


def test_splits(tmp_path):
    text = "split,left,right,same\ntrain,a,b,1\nVal,a,c,0\ntest,d,e,0\n,f,g,1\n"
    assert [row[3] for row in rows_of(text, tmp_path)[0]] == [0, 1, 2, -1]


def test_faulty_rows_are_left_out_and_told(tmp_path):
    lines = ["a,b,1,", "a,b,perhaps,", "a,b", ",b,1,", "a,b,0,tuning", "c,d,0,train", "a,b,,"]
    text = "\n".join(["left,right,same,split", *lines])
    found, faults = rows_of(text, tmp_path)
    assert found == [("a", "b", True, -1, 2), ("c", "d", False, 0, 7)]
    with pytest.raises(ValueError) as error:
        faults.stop(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} has 5 fault(s); nothing is trained until they are mended:\n"
        "  - labels that are none of 0, 1, true, false, same, different: 2"
        " (line 3: 'perhaps', line 8: '')\n"
        "  - rows with too few columns: 1 (line 4)\n"
        "  - rows without a path: 1 (line 5)\n"
        "  - splits that are none of train, validation, test: 1 (line 6: 'tuning')"
    )


def test_many_faults_make_a_short_text(tmp_path):
    _, faults = rows_of("left,right,same\n" + "a,b,?\n" * 1234, tmp_path)
    with pytest.raises(
        ValueError, match=r"different: 1,234 \(line 2: '\?', .*1,229 more\)$"
    ) as error:
        faults.stop(tmp_path)
    assert len(str(error.value)) < 1000
    Faults().stop(tmp_path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", 'must name its columns, but it names none "left" or "x1"'),
        ("a.png,b.png,1\n", 'names none "left" or "x1"'),
        ("left,right\na,b\n", 'names none "same" or "label"'),
        ('left,right,same\na,b,1\n"a,b,1\nc,d,0\n', "after line 2: .* is a quote not closed"),
        ('left,right,same\n"a"b,c,1\n', "after line 1"),
        ("left,right,same\n" + "x" * 200_000 + ",b,1\n", "after line 1: field larger than"),
        ("left,right,same\nä,b,1\n".encode("latin-1"), 'is not UTF-8 .* save it as "CSV UTF-8"'),
        (
            "left,right,same\n" + "a,b\0," * 200_001 + "\n",
            "after line 1: a row of more than 1,000,",
        ),
        ("," * 1_000_001, "after line 0: a row of more than 1,000,000 characters"),
        ("left,right,same\n" + '"\n",' * 300_000, "after line 1: a row of more than"),
        (b"PK\x03\x04\xff\xfe" + bytes(range(256)), "is not UTF-8"),
    ],
)
def test_files_that_are_no_table(tmp_path, text, what):
    with pytest.raises(ValueError, match=what):
        rows_of(text, tmp_path)


def test_a_line_of_any_length_is_read_no_further_than_a_row_may_be(tmp_path):
    """A gigabyte in one line, on the disk only a hole."""
    path = tmp_path / "long.csv"
    with path.open("wb") as file:
        file.write(b"left,right,same\n")
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="after line 1: a row of more than 1,000,000"):
            list(records(path))
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_pipe_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="is not a regular file"):
        list(records(tmp_path / "x.csv"))
    assert find_table(tmp_path) == tmp_path


def test_the_error_draws_the_layouts(tmp_path):
    with pytest.raises(ValueError) as error:
        rows_of("one,two,three\n", tmp_path)
    assert LAYOUTS in str(error.value)


# ---------------------------------------------------------------------- folders of two images


def lay_out(root, folders, labels, columns="label", at="init_data/data", names="ab", suffix="jpg"):
    """Empty files in the layout; `labels` are the lines of annos.csv."""
    for folder in folders:
        (root / "init_data/data" / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / "init_data/data" / folder / f"{name}.{suffix}").touch()
    (root / at / "annos.csv").write_text("\n".join([columns, *map(str, labels)]) + "\n")
    return root


def folders_of(root):
    faults = Faults()
    rows = read_folders(root, faults)
    short = [(a.split("data/")[-1], b.split("/")[-1], *rest) for a, b, *rest in readable(rows)]
    return short, faults, rows.notes


@pytest.mark.parametrize("at", ["init_data/data", "init_data", ""])
@pytest.mark.parametrize("suffix", ["jpg", "PNG"])
def test_rows_are_matched_in_natural_order(tmp_path, at, suffix):
    folders = ["train/10", "train/2", "test/3", "train/1", "test/20"]
    found, faults, notes = folders_of(lay_out(tmp_path, folders, "10011", at=at, suffix=suffix))
    assert found == [
        (f"train/1/a.{suffix}", f"b.{suffix}", True, 0, 2),
        (f"train/2/a.{suffix}", f"b.{suffix}", False, 0, 3),
        (f"train/10/a.{suffix}", f"b.{suffix}", False, 0, 4),
        (f"test/3/a.{suffix}", f"b.{suffix}", True, 2, 5),
        (f"test/20/a.{suffix}", f"b.{suffix}", True, 2, 6),
    ]
    assert not faults.count
    assert notes == ()


def test_rows_may_name_their_folder(tmp_path):
    lines = ["test/1,0", "train/2,1", "train\\1,0"]
    found, faults, _ = folders_of(
        lay_out(tmp_path, ["train/1", "train/2", "test/1"], lines, columns="folder,label")
    )
    assert sorted(found) == [
        ("test/1/a.jpg", "b.jpg", False, 2, 2),
        ("train/1/a.jpg", "b.jpg", False, 0, 4),
        ("train/2/a.jpg", "b.jpg", True, 0, 3),
    ]
    assert not faults.count


def test_a_bad_label_does_not_shift_the_rows_after_it(tmp_path):
    found, faults, _ = folders_of(lay_out(tmp_path, ["train/1", "train/2", "train/3"], "0x1"))
    assert [(name, same) for name, _, same, *_ in found] == [
        ("train/1/a.jpg", False),
        ("train/3/a.jpg", True),
    ]
    assert dict(faults.count) == {"labels that are none of 0, 1, true, false, same, different": 1}


def test_faulty_folders(tmp_path):
    lines = ["train/1,0", "train/1,1", "train/9,1", "test/1,0"]
    folders = ["train/1", "train/2", "test/1"]
    root = lay_out(tmp_path, folders, lines, columns="folder,label")
    (root / "init_data/data/test/1/c.jpg").touch()
    found, faults, _ = folders_of(root)
    assert [row[0] for row in found] == ["train/1/a.jpg"]
    assert dict(faults.first) == {
        "rows for a folder that has one already": ["line 3: 'train/1'"],
        "rows for no folder": ["line 4: 'train/9'"],
        "folders without exactly two images": ["test/1 (3)"],
        "folders without a row in annos.csv": ["train/2"],
    }


def test_what_is_not_used_is_told(tmp_path):
    root = lay_out(tmp_path, ["train/1", "test/1"], "10")
    (root / "init_data/cover.png").touch()
    (root / "init_data/readme.txt").touch()
    (root / "init_data/data/train/2").mkdir()
    _, _, notes = folders_of(root)
    assert notes == (
        "1 folder without an image: init_data/data/train/2",
        "1 files of other types not used: readme.txt",
        "1 images outside train/N and test/N: init_data/cover.png",
    )


def test_as_many_rows_as_folders(tmp_path):
    root = lay_out(tmp_path, ["train/1", "train/2", "test/1"], "10")
    with pytest.raises(ValueError, match=r"2 rows for 3 folders \(2 in train/, 1 in test/\), so"):
        folders_of(root)


def test_other_layouts_are_drawn(tmp_path):
    with pytest.raises(ValueError, match=r"found 0 folders .*, and 0 annos\.csv") as error:
        folders_of(tmp_path)
    assert LAYOUTS in str(error.value)
    root = lay_out(tmp_path, ["train/1", "test/1"], "10")
    (root / "other/train/1").mkdir(parents=True)
    (root / "other/train/1/a.jpg").touch()
    with pytest.raises(ValueError, match=r"\(in init_data/data, other\)"):
        folders_of(root)


# ---------------------------------------------------------------------- finding one of them


def test_find_table(tmp_path):
    with pytest.raises(DataNotFound, match=r"there is no .*nowhere"):
        find_table(tmp_path / "nowhere")
    assert find_table(tmp_path) == tmp_path
    (tmp_path / "init_data").mkdir()
    assert find_table(tmp_path) == tmp_path / "init_data"
    (tmp_path / "scores.csv").write_text("name,score\nx,1\n")
    (tmp_path / "pairs.csv").write_text("left,right,same\n")
    assert find_table(tmp_path) == tmp_path / "pairs.csv"
    assert find_table(tmp_path / "scores.csv") == tmp_path / "scores.csv"
    (tmp_path / "more.csv").write_text("x1;x2;label\n")
    with pytest.raises(ValueError, match=r"several tables of pairs \(more\.csv, pairs\.csv\)"):
        find_table(tmp_path)
    (tmp_path / "d.zip").touch()
    with pytest.raises(ValueError, match="is a zip: unpack it"):
        find_table(tmp_path / "d.zip")


def test_a_hundred_thousand_rows(tmp_path):
    text = "left,right,same\n" + "".join(
        f"{i % 997}.png,{i % 991}.png,{i % 2}\n" for i in range(10**5)
    )
    found, faults = rows_of(text, tmp_path)
    assert len(found) == 10**5
    assert found[-1] == ("299.png", "899.png", True, -1, 10**5 + 1)
    assert not faults.count
    assert np.mean([row[2] for row in found]) == 0.5
