"""Image files in a directory or a zip: finding them and reading them.

Nothing is dropped in silence: every file that is not used is counted and named in a note.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from siamjax.data.splits import name_some

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
)
SYSTEM_FILES = frozenset(("__macosx", "thumbs.db", "desktop.ini"))
MAX_BYTES = 256 << 20  # of one file, unpacked: no honest picture is larger
GLANCE = 1 << 20  # bytes from which a file must begin as a picture does to be read at all
STARTS = (
    b"\x89PNG", b"\xff\xd8", b"BM", b"GIF8", b"RIFF",
    *(b"P" + kind for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"f", b"F", b"y")),
    b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+",
)  # fmt: skip
MAX_PACKING = 256  # times that a zip may have made a picture of `PACKED` bytes or more smaller
PACKED = 32 << 20

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Files:
    """What lies in a directory or zip.

    Attributes:
        images: paths of the image files inside the place, with "/", in natural order.
        notes: sentences about everything else that lies there.
    """

    images: tuple[str, ...]
    notes: tuple[str, ...]


def natural(path: str) -> tuple:
    """A sort key that puts 2 before 10, folder by folder.

    Example:
        >>> sorted(["b/10.png", "b/2.png", "a/30.png"], key=natural)
        ['a/30.png', 'b/2.png', 'b/10.png']
    """
    parts = [re.split(r"(\d+)", part.casefold()) for part in path.split("/")]
    # Splitting at numbers puts text at even and digits at odd places: they never meet.
    return (
        tuple(
            tuple(int(piece) if i % 2 else piece for i, piece in enumerate(part)) for part in parts
        ),
        path,
    )


class DirectoryFiles:
    """The files under a directory, found at once.

    Raises:
        OSError: if the directory cannot be listed.
    """

    def __init__(self, root: Path):
        self.root = root
        self._found: dict[str, tuple[int, int]] = {}  # path -> size, mtime_ns
        self._folders: list[str] = []
        self._odd: dict[str, str] = {}  # path -> why it cannot be read
        self._walk()

    def _walk(self) -> None:
        top = os.stat(self.root)
        seen = {(top.st_dev, top.st_ino)}
        todo = [(self.root, "")]
        while todo:
            folder, prefix = todo.pop()
            try:
                items = list(os.scandir(folder))
            except OSError as error:
                if folder == self.root:
                    raise
                self._odd[prefix] = f"not listed: {error.strerror}"
                continue
            for item in items:
                path = prefix + item.name
                try:
                    status = item.stat()
                except OSError as error:
                    self._odd[path] = f"not read: {error.strerror}"
                    continue
                if stat.S_ISDIR(status.st_mode):
                    # A folder met twice is a link: a loop, or images that would count double.
                    # `DirEntry.stat` has no inode on Windows.
                    status = os.stat(item.path)
                    if (status.st_dev, status.st_ino) in seen:
                        self._odd[path] = "a link to a folder that is there already"
                        continue
                    seen.add((status.st_dev, status.st_ino))
                    self._folders.append(path)
                    todo.append((Path(item.path), path + "/"))
                elif stat.S_ISREG(status.st_mode):
                    self._found[path] = (status.st_size, status.st_mtime_ns)
                else:
                    self._odd[path] = "not a regular file"

    def fingerprint(self) -> str:
        """Over every file's path, size and time of change, and the folders."""
        digest = hashlib.sha256()
        lines = [f"{path}\0{size}\0{mtime}" for path, (size, mtime) in self._found.items()]
        for line in sorted([*lines, *self._folders, *self._odd]):
            digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()

    def listing(self) -> Files:
        """The image files and notes about the rest."""
        return _sorted_out(self._found, self._folders, self._odd)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Read]:
        """Gives a function from a path to that file's bytes."""

        def read(path: str) -> bytes:
            return read_picture(self.root / path)

        yield read


class ZipFiles:
    """The files in a zip, read in place: nothing is ever unpacked to disk."""

    def __init__(self, path: Path):
        self.path = path

    def fingerprint(self) -> str:
        """Over the zip's bytes."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @contextlib.contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        try:
            archive = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise ValueError(
                f"{self.path} is not a whole zip file ({error}); it may be an interrupted download:"
                " delete it and fetch it again, or unpack it yourself and give the folder"
            ) from error
        with archive:
            yield archive

    def listing(self) -> Files:
        """The image files and notes about the rest.

        Raises:
            ValueError: if the file is not a zip, or damaged.
        """
        with self._open() as archive:
            names = [info.filename for info in archive.infolist()]
        odd = {name: "leads out of the zip: refused" for name in names if _leads_out(name)}
        odd |= {
            name: "in the zip twice: the last is used"
            for name, count in Counter(names).items()
            if count > 1
        }
        safe = [name for name in dict.fromkeys(names) if not _leads_out(name)]
        folders = {str(parent) for name in safe for parent in PurePosixPath(name).parents}
        folders |= {name.rstrip("/") for name in safe if name.endswith("/")}
        return _sorted_out([n for n in safe if not n.endswith("/")], sorted(folders - {"."}), odd)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Read]:
        """Gives a function from a path to that file's bytes; threads may call it at once."""
        with self._open() as archive:

            def read(path: str) -> bytes:
                info = archive.getinfo(path)
                _check_size(info.file_size)
                _check_packing(info)
                # ZipFile reads no further than the size it was told, so a lie gains nothing.
                with archive.open(info) as stream:
                    return _read_checked(stream, info.file_size)

            yield read


FileSet = DirectoryFiles | ZipFiles


def open_files(place: Path) -> FileSet:
    """The files of a directory or of a zip.

    Raises:
        ValueError: if `place` is neither, or cannot be read.
    """
    try:
        if place.is_dir():
            return DirectoryFiles(place)
        if place.is_file() and (zipfile.is_zipfile(place) or place.suffix.lower() == ".zip"):
            return ZipFiles(place)
    except OSError as error:
        raise ValueError(f"{place} cannot be read: {error.strerror}") from error
    raise ValueError(f"{place} is neither a folder nor a zip file")


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ValueError(f"{size:,} bytes, more than the {MAX_BYTES:,} a picture may have")


def _check_packing(info: zipfile.ZipInfo) -> None:
    # Of the other methods ZipFile unpacks as much as comes, whatever size was declared.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("packed with a method other than deflate: pack the zip again without it")
    if info.file_size > max(PACKED, MAX_PACKING * info.compress_size):
        raise ValueError(
            f"unpacks to {info.file_size:,} bytes from {info.compress_size:,}, as no picture does"
        )


def _read_checked(stream: IO[bytes], size: int) -> bytes:
    start = stream.read(16)
    if size > GLANCE and not start.startswith(STARTS):
        raise ValueError(f"{size:,} bytes that do not begin as a picture does ({start[:8]!r})")
    # No more than was there when it was measured: a read allocates what it is asked for.
    return start + stream.read(max(0, size - len(start)))


def read_picture(path: Path) -> bytes:
    """The bytes of a file that should be a picture, and no more of them than a picture may have.

    Raises:
        ValueError: if it is too large, no regular file, or large and no picture by its first bytes.
        OSError: if it cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")
    _check_size(status.st_size)
    with path.open("rb") as stream:
        return _read_checked(stream, status.st_size)


def _leads_out(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or name.startswith(("/", "\\")) or bool(re.match("[A-Za-z]:", name))


def _sorted_out(files: Iterable[str], folders: Sequence[str], odd: dict[str, str]) -> Files:
    """Tells images from all else and writes the notes about all else."""
    system, images, other = [], [], []
    for path in sorted(files, key=natural):
        if _is_system(path):
            system.append(path)
        elif PurePosixPath(path).suffix.lower() in SUFFIXES:
            images.append(path)
        else:
            other.append(path)
    full = {str(parent) for path in images for parent in PurePosixPath(path).parents} | {"."}
    bare = [
        folder
        for folder in sorted(folders, key=natural)
        if folder not in full
        and str(PurePosixPath(folder).parent) in full
        and not _is_system(folder)
    ]
    notes = []
    if system:
        notes.append(f"{_count(system, 'hidden or system file')} not used: {name_some(system)}")
    if other:
        notes.append(f"{_count(other, 'file')} of other types not used: {name_some(other)}")
    if bare:
        notes.append(f"{_count(bare, 'folder')} without an image: {name_some(bare)}")
    if odd:
        listed = [f"{path} ({why})" for path, why in sorted(odd.items())]
        notes.append(f"{_count(listed, 'unusual entry', 'unusual entries')}: {name_some(listed)}")
    return Files(tuple(images), tuple(notes))


def _is_system(path: str) -> bool:
    return any(p.startswith(".") or p.casefold() in SYSTEM_FILES for p in path.split("/"))


def _count(items: Sequence, one: str, many: str = "") -> str:
    return f"{len(items):,} {one if len(items) == 1 else many or one + 's'}"
