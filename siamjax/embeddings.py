"""Many image files to embeddings, a batch of decoded images in memory at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from siamjax.data.files import DirectoryFiles
from siamjax.inference import Comparator

if TYPE_CHECKING:
    from siamjax.inference import OneImage

BATCH = 256  # images decoded at a time


class ImageFile(NamedTuple):
    """An image file under a folder.

    Attributes:
        path: where it is.
        name: relative to the folder, with "/".
        label: the folders between, "" right in the folder.
    """

    path: Path
    name: str
    label: str


@dataclass(frozen=True)
class Embeddings:
    """What a run makes of a folder.

    Attributes:
        embeddings: `float32 [n, d]`.
        names: of the files, relative to the folder.
        labels: the folder each lies in, "" for the top one.
    """

    embeddings: np.ndarray
    names: list[str]
    labels: list[str]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an .npz of `embeddings`, `paths` and `labels`, that loads without pickle."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:  # given a name, NumPy would add .npz to it
            np.savez(
                file,
                embeddings=self.embeddings,
                paths=np.array(self.names, np.str_),
                labels=np.array(self.labels, np.str_),
            )


def image_files(folder: str | os.PathLike[str]) -> tuple[list[ImageFile], list[str]]:
    """The images under a folder, in natural order, and notes about all else that lies there.

    Raises:
        ValueError: if it is no folder, or has no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of images")
    found = DirectoryFiles(folder).listing()
    if not found.images:
        raise ValueError(f"no image in {folder}: {'; '.join(found.notes) or 'it is empty'}")
    return [ImageFile(folder / name, name, name.rpartition("/")[0]) for name in found.images], list(
        found.notes
    )


def embed_stream(
    comparator: Comparator,
    images: Iterable[OneImage],
    faults: list[str] | None = None,
    batch: int = BATCH,
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Embeds any number of images, a batch of them decoded at a time.

    Args:
        comparator: of a run.
        images: paths, arrays or PIL images.
        faults: takes a sentence for each image that cannot be read; without it the first such
            image is an error.
        batch: how many are decoded at a time.

    Yields:
        The places, among all images, of those in the batch that could be read, and their
        embeddings `float32 [n, d]`.

    Raises:
        ValueError: if an image cannot be read, and `faults` is None; if the weights are not
            finite.
    """
    images, start = iter(images), 0
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        while part := list(islice(images, batch)):
            read = _read_all(comparator, part, pool)
            for outcome in read:
                if isinstance(outcome, ValueError):
                    if faults is None:
                        raise outcome
                    faults.append(str(outcome))
            good = [i for i, outcome in enumerate(read) if isinstance(outcome, np.ndarray)]
            if good:
                yield [start + i for i in good], _embed(comparator, [read[i] for i in good])
            start += len(part)


def _read_all(
    comparator: Comparator, images: Sequence[OneImage], pool: ThreadPoolExecutor
) -> list[np.ndarray | ValueError]:
    """The pixels of each, or what is wrong with it."""
    from PIL import Image

    def pixels(image: OneImage) -> np.ndarray | ValueError:
        try:
            return comparator.pixels(image)
        except ValueError as error:
            return error

    Image.init()  # its plugins load here, once, rather than in every thread
    with warnings.catch_warnings():
        # Its remarks on sloppy metadata would be a line for each file; size is checked above.
        warnings.filterwarnings("ignore", module=r"PIL\.", category=UserWarning)
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        return list(pool.map(pixels, images))


def _embed(comparator: Comparator, pixels: Sequence) -> np.ndarray:
    z = comparator.encoder.embed(np.stack(pixels)).astype(np.float32)
    if not np.isfinite(z).all():
        raise ValueError(
            f"the run gives embeddings that are not finite ({comparator.origin}): its training"
            " went wrong; take another checkpoint"
        )
    return z


def embed_folder(
    comparator: Comparator, folder: str | os.PathLike[str], faults: list[str] | None = None
) -> Embeddings:
    """The embeddings of all images under a folder, in natural order.

    Args:
        comparator: of a run.
        folder: searched with all folders in it.
        faults: takes a sentence for each image that cannot be read; without it the first such
            image is an error.

    Raises:
        ValueError: if there is no image, or none can be read.
    """
    files, _ = image_files(folder)
    kept: list[int] = []
    parts: list[np.ndarray] = []
    for places, z in embed_stream(comparator, (file.path for file in files), faults):
        kept += places
        parts.append(z)
    if not parts:
        raise ValueError(f"none of the {len(files):,} images in {folder} can be read")
    return Embeddings(
        np.concatenate(parts), [files[i].name for i in kept], [files[i].label for i in kept]
    )
