"""What is offered to a gallery: each image with its name, its label and a digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from siamjax.embeddings import image_files
from siamjax.gallery_file import GalleryError
from siamjax.inference import Comparator

if TYPE_CHECKING:
    from siamjax.inference import OneImage


class Item(NamedTuple):
    """An image, its name in the gallery, and its class ("" for none)."""

    image: Any
    name: str
    label: str


def name_of(path: str | os.PathLike[str], folder: str) -> str:
    """A path below the folder relative to it, any other in full; with "/" on every system.

    Example:
        >>> name_of("/home/people/anna/1.png", "/home/people")
        'anna/1.png'
        >>> name_of("/tmp/1.png", "/home/people")
        '/tmp/1.png'
    """
    full = Path(os.path.abspath(path))
    return (full.relative_to(folder) if full.is_relative_to(folder) else full).as_posix()


def items(
    images: Sequence[Any],
    names: Sequence[str] | None,
    labels: Sequence[str] | str | None,
    folder: str,
) -> list[Item]:
    """Names and labels of images, each name once.

    Args:
        images: paths of files or folders, arrays or PIL images.
        names: one for each; None, for files: their paths.
        labels: one for each, or one for all; None: the folders a file lies in, below `folder` or
            below the folder given.
        folder: what names are relative to.

    Raises:
        GalleryError: if there are more or fewer of one than of the other, an array without a name,
            or two images of one name.
    """
    each = labels if not isinstance(labels, str) else [labels] * len(images)
    for word, texts in (("names", names), ("labels", each)):
        if texts is not None and len(texts) != len(images):
            raise GalleryError(f"{len(images)} images but {len(texts)} {word}")
    found: dict[str, Item] = {}
    for i, image in enumerate(images):
        label = None if each is None else each[i]
        if names is not None:
            if names[i] in found:
                raise GalleryError(f"two images have the name {names[i]!r}; each needs its own")
            found[names[i]] = Item(image, names[i], label or "")
        elif not isinstance(image, str | os.PathLike):
            raise GalleryError("images that are not files need names: add(images, names=[...])")
        else:  # a file that is named twice is one file
            found |= {item.name: item for item in _files(image, label, folder)}
    for name in found:
        if not name or "\0" in name + found[name].label:
            raise GalleryError(f"names and labels are texts without zero bytes; got {name!r}")
    return list(found.values())


def _files(path: str | os.PathLike[str], label: str | None, folder: str) -> list[Item]:
    """A file, or those in a folder."""
    if os.path.isdir(path):
        several = [(file.path, file.label) for file in image_files(path)[0]]
    else:
        several = [(Path(path), "")]
    result = []
    for file, below in several:
        name = name_of(file, folder)
        own = below if os.path.isabs(name) else name.rpartition("/")[0]
        result.append(Item(file, name, own if label is None else label))
    return result


def digest(comparator: Comparator, image: OneImage) -> bytes:
    """SHA-256 of a file's bytes, or of an image's pixels as the tower sees them.

    Raises:
        ValueError: if it cannot be read.
    """
    if not isinstance(image, str | os.PathLike):
        return hashlib.sha256(b"pixels" + comparator.pixels(image).tobytes()).digest()
    try:
        if os.path.exists(image) and not os.path.isfile(image):
            raise OSError(0, "not a regular file")
        with open(image, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise GalleryError(
            f"{os.fspath(image)} cannot be read as an image: {error.strerror}"
        ) from error
