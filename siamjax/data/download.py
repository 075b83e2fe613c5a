"""Fetching data sets, checked against pinned checksums, with a quick and clear answer off line."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from siamjax.data.splits import DataNotFound

PROBE_SECONDS = 4.0  # until a host that does not answer counts as off line
TIMEOUT = (4.0, 20.0)  # seconds to connect, and between two pieces of an answer


class Pinned(NamedTuple):
    """A file on the network that can be no other."""

    sha256: str
    size: str


@dataclass(frozen=True)
class Published:
    """A data set on the network.

    Attributes:
        title: what it is called.
        folder: where its files go, within the data directory.
        base: address of the folder they come from.
        suffix: of every file.
        files: names without the suffix.
        looked_for: what would have been found on disk, for the message.
        instead: the fallback, for the message.
    """

    title: str
    folder: str
    base: str
    suffix: str
    files: Mapping[str, Pinned]
    looked_for: str
    instead: str

    def remedy(self, root: Path, wanted: list[str], fault: str) -> str:
        """What to do where nothing can be fetched."""
        urls = "\n".join(f"  {self.base}{name}{self.suffix}" for name in wanted)
        return (
            f"{self.title} is not here: looked for {self.looked_for} in {root.absolute()} and its"
            f" {self.folder}/, and could not download it ({fault}). Download by hand\n{urls}\nand"
            f" put the files, as they are, into {root.absolute() / self.folder}; or set"
            f" config.data.fallback = {self.instead} instead"
        )


OMNIGLOT = Published(
    title="Omniglot",
    folder="omniglot",
    base="https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
    suffix=".zip",
    files={
        "images_background": Pinned(
            "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640", "9.0 MiB"
        ),
        "images_evaluation": Pinned(
            "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee", "6.2 MiB"
        ),
    },
    looked_for="images_background.zip or images_background/",
    instead='"glyphs" to use the built-in alphabets',
)
MNIST = Published(
    title="MNIST",
    folder="mnist",
    base="https://ossci-datasets.s3.amazonaws.com/mnist/",
    suffix=".gz",
    files={
        "train-images-idx3-ubyte": Pinned(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", "9.5 MiB"
        ),
        "train-labels-idx1-ubyte": Pinned(
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", "28 KiB"
        ),
        "t10k-images-idx3-ubyte": Pinned(
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", "1.6 MiB"
        ),
        "t10k-labels-idx1-ubyte": Pinned(
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", "4.4 KiB"
        ),
    },
    looked_for="its four IDX files (.gz or unpacked)",
    instead='"digits" to use scikit-learn\'s small digits',
)


def fetch(
    published: Published, root: Path, spare: Path, found: Mapping[str, Path]
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Downloads the files that are missing.

    Args:
        published: the data set.
        root: the data directory; files go to its folder of the set.
        spare: the cache directory, used the same way where `root` cannot be written.
        found: what is on disk already, by name.

    Returns:
        All files by name, and notes.

    Raises:
        DataNotFound: if the server cannot be reached (within about five seconds), or what it
            sends has the wrong checksum, or nothing can be written.
    """
    folder, suffix = published.folder, published.suffix
    kept = {name: spare / folder / f"{name}{suffix}" for name in published.files}
    places = {name: path for name, path in kept.items() if path.is_file()} | dict(found)
    wanted = [name for name in published.files if name not in places]
    if not wanted:
        return places, ()
    if fault := unreachable(f"{published.base}{wanted[0]}{suffix}"):
        raise DataNotFound(published.remedy(root, wanted, fault))
    target = next((at for at in (root / folder, spare / folder) if _writable(at)), None)
    if target is None:
        fault = f"neither {root} nor {spare} can be written"
        raise DataNotFound(published.remedy(root, wanted, fault))
    sizes = ", ".join(f"{name}{suffix} ({published.files[name].size})" for name in wanted)
    print(
        f"{published.title}: downloading {sizes} from {published.base} to {target}; a re-run uses"
        " what is complete",
        file=sys.stderr,
        flush=True,
    )
    import pooch
    import requests

    downloader: Any = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT)
    for name in wanted:
        try:
            path = pooch.retrieve(
                f"{published.base}{name}{suffix}",
                known_hash=f"sha256:{published.files[name].sha256}",
                fname=f"{name}{suffix}",
                path=target,
                downloader=downloader,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            fault = f"{type(error).__name__}: {error}"
            raise DataNotFound(published.remedy(root, wanted, fault)) from error
        places[name] = Path(path)
    return places, (f"downloaded to {target}: {sizes}",)


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


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
