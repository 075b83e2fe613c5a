import os
import zipfile

import pytest

from siamjax.data import files as module
from siamjax.data.files import DirectoryFiles, ZipFiles, natural, open_files


def write(root, *paths, text="x"):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def zipped(path, *names, text="x"):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, text)
    return path


def both(tmp_path, *names):
    plain = [name for name in names if not name.endswith("/")]
    root = write(tmp_path / "dir", *plain)
    for name in set(names) - set(plain):
        (root / name).mkdir(parents=True)
    return DirectoryFiles(root), ZipFiles(zipped(tmp_path / "a.zip", *names))


def test_natural_order():
    names = ["a10/1", "a2/10", "a2/9", "A1/x", "b/1", "10/1", "9/1", "a2/9b", "é/1", "Bb/1", "c/1"]
    assert sorted(names, key=natural) == [
        *("9/1", "10/1", "A1/x", "a2/9", "a2/9b", "a2/10", "a10/1", "b/1", "Bb/1", "c/1", "é/1")
    ]
    assert natural("a/1") != natural("A/1")  # a stable order whatever the order of listing


def test_images_are_found_in_natural_order_whatever_the_case_of_the_suffix(tmp_path):
    names = [f"c/{i}{s}" for i, s in enumerate(sorted(module.SUFFIXES))] + ["c/10.PNG", "b/x.JpEg"]
    for files in both(tmp_path, *names):
        listing = files.listing()
        assert sorted(listing.images) == sorted(names)
        assert listing.images[0] == "b/x.JpEg"
        assert listing.notes == ()


def test_everything_else_is_named(tmp_path):
    names = [
        *("c/1.png", "c/.hidden.png", ".git/2.png", "__MACOSX/c/3.png", "c/Thumbs.db"),
        *("c/readme.txt", "labels.csv", "empty/", "texts/a.txt"),
    ]
    for files in both(tmp_path, *names):
        listing = files.listing()
        assert listing.images == ("c/1.png",)
        system, other, bare = listing.notes
        assert system.startswith("4 hidden or system files not used: ")
        assert all(n in system for n in (".git/2.png", "__MACOSX/c/3.png", "Thumbs.db", ".hidden"))
        assert other.startswith("3 files of other types not used: ")
        assert all(name in other for name in ("c/readme.txt", "labels.csv", "texts/a.txt"))
        assert bare == "2 folders without an image: empty, texts"


def test_many_names_are_cut_short(tmp_path):
    files = both(tmp_path, "c/1.png", *(f"c/{i}.txt" for i in range(40)))[0]
    assert (
        files.listing()
        .notes[0]
        .endswith("c/0.txt, c/1.txt, c/2.txt, c/3.txt, c/4.txt, ... 35 more")
    )


def test_reading(tmp_path):
    for files in both(tmp_path, "c/1.png"):
        with files.reading() as read:
            assert read("c/1.png") == b"x"


def test_a_file_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 2)
    zipped(tmp_path / "bomb.zip", "a.png", text="xxx")
    write(tmp_path / "dir", "a.png", text="xxx")
    for files in (ZipFiles(tmp_path / "bomb.zip"), DirectoryFiles(tmp_path / "dir")):
        with files.reading() as read, pytest.raises(ValueError, match="3 bytes, more than the 2"):
            read("a.png")


@pytest.mark.parametrize(
    "bad", ["../out.png", "c/../../out.png", "/etc/x.png", "C:/x.png", "\\x.png"]
)
def test_zip_entries_that_lead_out_are_refused(tmp_path, bad):
    listing = ZipFiles(zipped(tmp_path / "a.zip", "c/1.png", bad)).listing()
    assert listing.images == ("c/1.png",)
    assert f"{bad} (leads out of the zip: refused)" in listing.notes[-1]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_in_a_zip_counts_once(tmp_path):
    listing = ZipFiles(zipped(tmp_path / "a.zip", "c/1.png", "c/1.png")).listing()
    assert listing.images == ("c/1.png",)
    assert "in the zip twice" in listing.notes[0]


def test_a_damaged_zip_says_what_to_do(tmp_path):
    whole = zipped(tmp_path / "a.zip", "c/1.png").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"cut\.zip is not a whole zip.*interrupted download"):
        open_files(tmp_path / "cut.zip").listing()


def test_what_is_neither_folder_nor_zip(tmp_path):
    write(tmp_path, "one.png")
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        open_files(tmp_path / "one.png")


def test_a_zip_of_another_suffix_is_known_by_its_content(tmp_path):
    assert isinstance(open_files(zipped(tmp_path / "data.bin", "c/1.png")), ZipFiles)


def test_links_in_a_loop_end(tmp_path):
    root = write(tmp_path / "dir", "c/1.png")
    (root / "c" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    listing = DirectoryFiles(root).listing()
    assert listing.images == ("c/1.png",)
    assert "3 unusual entries" in listing.notes[0]
    assert "c/up (a link to a folder that is there already)" in listing.notes[0]
    assert "gone.png (not read: No such file" in listing.notes[0]


def test_a_linked_class_folder_is_followed(tmp_path):
    write(tmp_path / "real", "1.png")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "c").symlink_to(tmp_path / "real")
    assert DirectoryFiles(tmp_path / "dir").listing().images == ("c/1.png",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_read(tmp_path):
    root = write(tmp_path / "dir", "c/1.png")
    os.mkfifo(root / "c" / "2.png")
    listing = DirectoryFiles(root).listing()
    assert listing.images == ("c/1.png",)
    assert "c/2.png (not a regular file)" in listing.notes[0]


def test_fingerprint_of_a_folder(tmp_path):
    root = write(tmp_path / "dir", "c/1.png", "c/2.png")
    os.utime(root / "c/1.png", ns=(10, 10))
    os.utime(root / "c/2.png", ns=(10, 10))

    def now():
        return DirectoryFiles(root).fingerprint()

    seen = [now()]
    assert now() == seen[0]
    os.utime(root / "c/1.png", ns=(10, 11))
    seen.append(now())
    (root / "c/2.png").write_text("longer")
    os.utime(root / "c/2.png", ns=(10, 10))
    seen.append(now())
    (root / "c/2.png").rename(root / "c/3.png")
    seen.append(now())
    (root / "new").mkdir()
    seen.append(now())
    assert len(set(seen)) == 5


def test_fingerprint_of_a_zip_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert ZipFiles(tmp_path / "a.zip").fingerprint() == expected
