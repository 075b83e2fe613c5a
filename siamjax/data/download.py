"""Fetching Omniglot, checked against pinned checksums, with a quick and clear answer off line."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from siamjax.data.splits import DataNotFound

BASE = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
PROBE_SECONDS = 4.0  # until a host that does not answer counts as off line
TIMEOUT = (4.0, 20.0)  # seconds to connect, and between two pieces of an answer


class Pinned(NamedTuple):
    """A file on the network that can be no other."""

    sha256: str
    size: str


OMNIGLOT = {
    "images_background": Pinned(
        "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640", "9.0 MiB"
    ),
    "images_evaluation": Pinned(
        "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee", "6.2 MiB"
    ),
}


def fetch_omniglot(
    root: Path, spare: Path, found: Mapping[str, Path]
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Downloads the zips that are missing.

    Args:
        root: the data directory; the zips go to its `omniglot/`.
        spare: the cache directory; its `omniglot/` is used where `root` cannot be written.
        found: what is on disk already.

    Returns:
        All sets by name, and notes.

    Raises:
        DataNotFound: if the server cannot be reached (within about five seconds), or what it
            sends has the wrong checksum, or nothing can be written.
    """
    wanted = [name for name in OMNIGLOT if name not in found]
    places = dict(found)
    for name in list(wanted):
        kept = spare / "omniglot" / f"{name}.zip"
        if kept.is_file():  # from an earlier run that could not write to `root`
            places[name] = kept
            wanted.remove(name)
    if not wanted:
        return places, ()
    if fault := unreachable(BASE + f"{wanted[0]}.zip"):
        raise DataNotFound(_remedy(root, wanted, fault))
    target = _writable(root / "omniglot") or _writable(spare / "omniglot")
    if target is None:
        raise DataNotFound(_remedy(root, wanted, f"neither {root} nor {spare} can be written"))
    sizes = ", ".join(f"{name}.zip ({OMNIGLOT[name].size})" for name in wanted)
    print(
        f"Omniglot: downloading {sizes} from {BASE} to {target}; a re-run uses what is complete",
        file=sys.stderr,
        flush=True,
    )
    for name in wanted:
        places[name] = _download(root, target, name, wanted)
    return places, (f"downloaded to {target}: {sizes}",)


def _download(root: Path, target: Path, name: str, wanted: list[str]) -> Path:
    import pooch
    import requests

    downloader: Any = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT)
    try:
        path = pooch.retrieve(
            BASE + f"{name}.zip",
            known_hash=f"sha256:{OMNIGLOT[name].sha256}",
            fname=f"{name}.zip",
            path=target,
            downloader=downloader,
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise DataNotFound(_remedy(root, wanted, f"{type(error).__name__}: {error}")) from error
    return Path(path)


def unreachable(url: str) -> str:
    """Why a server cannot be reached, or "" if it answers; never waits much over four seconds."""
    faults = ["no answer"]

    def ask() -> None:
        import requests

        try:
            requests.head(url, timeout=PROBE_SECONDS, allow_redirects=True).raise_for_status()
            faults[0] = ""
        except requests.RequestException as error:
            faults[0] = type(error).__name__

    # A resolver that is down keeps a thread for longer than any timeout `requests` takes.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS + 0.5)
    return faults[0]


def _writable(folder: Path) -> Path | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _remedy(root: Path, wanted: list[str], fault: str) -> str:
    urls = "\n".join(f"  {BASE}{name}.zip" for name in wanted)
    return (
        f"Omniglot is not here: looked for images_background.zip or images_background/ in"
        f" {root.absolute()} and its omniglot/, and could not download it ({fault}). Download by"
        f" hand\n{urls}\nand put the zips, as they are, into {root.absolute() / 'omniglot'}; or set"
        ' config.data.fallback = "glyphs" to use the built-in alphabets instead'
    )
