"""A digest of a folder's files: whether what is read is what was written.

Neither a file system nor Orbax notices a flipped byte. `seal` writes sizes and SHA-256 sums of
every file into `digest.json`; `fault` says what differs from it now.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

NAME = "digest.json"
FORMAT = 1  # of digest.json; raised when its meaning changes
MAX_BYTES = 1 << 24  # a digest larger than this is nobody's: a checkpoint has some dozen files


class NewerFormatError(ValueError):
    """A folder was written by a newer siamjax."""


def seal(folder: Path) -> None:
    """Writes the digest of a folder's files into it, on disk before this returns."""
    files = {
        str(path.relative_to(folder).as_posix()): [path.stat().st_size, sha256(path)]
        for path in sorted(_files(folder))
        if path.name != NAME
    }
    with open(folder / NAME, "w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, "files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def sealed(folder: Path) -> bool:
    """Whether a folder has a digest."""
    return (folder / NAME).is_file()


def fault(folder: Path) -> str | None:
    """The first thing that is not as `seal` saw it, as "FILE is ..."; None if all is.

    A link is a fault in any folder: `seal` writes none, and one may lead anywhere.

    Raises:
        NewerFormatError: if the digest was written by a newer siamjax.
    """
    there: dict[str, Path] = {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_file():
            return f"{name} is not a plain file"
        there[name] = path
    if NAME not in there:
        return f"{NAME} is missing"
    expected = _read(there[NAME])
    if isinstance(expected, str):
        return expected
    for name, (size, checksum) in expected.items():
        if name not in there:
            return f"{name} is missing"
        if (now := there[name].stat().st_size) != size:
            return f"{name} has {now:,} bytes, and had {size:,} when it was saved"
        if sha256(there[name]) != checksum:
            return f"{name} holds other bytes than were saved"
    return None


def _read(path: Path) -> dict[str, tuple[int, str]] | str:
    """The digest's files, or what is wrong with it."""
    if path.stat().st_size > MAX_BYTES:
        return f"{NAME} is too large to be a digest"
    try:
        saved = json.loads(path.read_bytes())
        if saved["format"] > FORMAT:
            raise NewerFormatError(
                f"{path} has format {saved['format']}, written by a newer siamjax; this one reads"
                f" up to {FORMAT}: upgrade siamjax"
            )
        return {str(name): (int(size), str(text)) for name, (size, text) in saved["files"].items()}
    except NewerFormatError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{NAME} is damaged"


def _files(folder: Path) -> Iterator[Path]:
    # Links are named, never followed: one may lead in a circle.
    for parent, folders, names in os.walk(folder, followlinks=False):
        for name in names:
            yield Path(parent, name)
        for name in folders:
            if (path := Path(parent, name)).is_symlink():
                yield path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
