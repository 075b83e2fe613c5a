"""A run's folder: one run at a time, and a sentence where it cannot be written."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class WorkdirError(ValueError):
    """A run's folder is in use, or cannot be written."""


@contextmanager
def locked(workdir: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Keeps a second run out of a folder.

    The system itself drops the lock when the process ends, however it ends: nothing is ever left
    behind that a user would have to delete.

    Args:
        workdir: the run's folder, which is there.
        say: told where this platform or file system has no locks.

    Raises:
        WorkdirError: if another run holds the folder, with its process and machine.
    """
    try:
        import fcntl
    except ImportError:
        say("NOTE: this platform has no file locks: start no second run in this --workdir")
        yield
        return
    with open(workdir / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(1000).strip() or "a process that is just starting"
            raise WorkdirError(
                f"another run is using {workdir}: {holder}. Wait for its end, stop it, or give"
                " another --workdir"
            ) from None
        except OSError as error:
            say(f"NOTE: {workdir} cannot be locked ({error.strerror}): start no second run in it")
            yield
            return
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n")
        file.flush()
        yield


@contextmanager
def writing(workdir: Path) -> Iterator[None]:
    """Turns the system's errors on a run's folder into a sentence; others pass as they are.

    Raises:
        WorkdirError: for a full, failing or read-only disk, and for what the folder forbids.
    """
    try:
        yield
    except OSError as error:
        named = Path(os.fsdecode(error.filename)) if error.filename else workdir
        inside = named.absolute().is_relative_to(workdir.absolute())
        if error.errno not in DISK and not (error.filename and inside):
            raise
        what = error.strerror or str(error)
        raise WorkdirError(
            f"{named} cannot be written: {what}. Checkpoints that were finished are whole: make"
            " room, or give a --workdir that can be written; in the same folder the same command"
            " goes on from the last of them"
        ) from error


@contextmanager
def replacing(out: Path, refuse: Callable[[Path], None]) -> Iterator[Path]:
    """A folder beside `out` that takes its place if the block ends well, and goes if it does not.

    Folders cannot be swapped in one step everywhere; what was there is put back if the second of
    the two steps fails.

    Args:
        out: the folder to make.
        refuse: raises where what is at `out` must stay; asked again at the end of the block.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    fresh = out.with_name(f".{out.name}.{token}.part")
    old = out.with_name(f".{out.name}.{token}.old")
    fresh.mkdir()
    try:
        yield fresh
        refuse(out)  # it took a while
        if out.exists():
            out.rename(old)
        try:
            fresh.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
