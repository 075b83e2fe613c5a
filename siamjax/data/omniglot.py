"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn once by 20 people.

The training images are the 30 background alphabets. The 20 evaluation alphabets are divided as
the one-shot runs published with the data do: ten occur in those runs and are the test, the other
ten choose the checkpoint.

References:
    Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program
    induction", Science 350 (2015): the data, the background set and the evaluation set.
    Koch, Zemel, Salakhutdinov, "Siamese Neural Networks for One-shot Image Recognition", ICML
    Deep Learning Workshop (2015), section 4.1: 12 drawers to train, 4 to validate, 4 to test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from siamjax.config import ConfigDict
from siamjax.config_faults import lookup
from siamjax.data.cache import (
    Collected,
    Decoded,
    Entry,
    Write,
    cache_directory,
    cache_key,
    cached,
)
from siamjax.data.decode import decode_files
from siamjax.data.download import OMNIGLOT, fetch
from siamjax.data.files import FileSet, open_files
from siamjax.data.splits import data_root, hold_out, name_some, part, split_seed, summarise
from siamjax.preprocess import Preprocess, preprocess_of
from siamjax.types import DataSplits, LabelledImages

VALIDATION_ALPHABETS = frozenset(
    (
        "Angelic",
        "Atemayar_Qelisayer",
        "Aurek-Besh",
        "Avesta",
        "Keble",
        "Mongolian",
        "Oriya",
        "Sylheti",
        "Syriac_(Serto)",
        "ULOG",
    )
)
SETS = ("images_background", "images_evaluation", "images_validation")
FOLDERS = (
    "",
    "omniglot",
    "python",
    "omniglot/python",
)  # the last two: a clone of Lake's repository
IMAGE = re.compile(r"(?:^|/)([^/]+)/(character\d+)/\d+_(\d+)\.png$", re.IGNORECASE)


def omniglot(config: ConfigDict) -> DataSplits:
    """Omniglot from Lake's zips, or the folders unpacked from them.

    Looks for `images_background`, `images_evaluation` and `images_validation` (`.zip`, or
    folders) in the data directory and its `omniglot/`; without a background set it downloads the
    first two (15 MiB). Alphabets are groups and characters classes, named "Alphabet/character01".
    Validation is the ten evaluation alphabets that the published runs do not use; test the other
    ten, where they are there. Without any evaluation set, `config.data.holdout` of the alphabets
    are held out by `config.data.split_seed`.

    With `config.data.split = "drawer"` the drawers are divided 12/4/4 by that seed as well:
    training, validation and test images then differ both in alphabet and in who drew them.

    Args:
        config: reads `data.dir`, `data.split`, `data.holdout`, `data.cache_dir`, the
            preprocessing and the seed of the split.

    Returns:
        The splits; `test` is None where the test alphabets are not there.

    Raises:
        DataNotFound: if the images are not here and could not be downloaded.
        ValueError: if what is there is damaged or is not Omniglot.
    """
    root = data_root(config)
    places = find(root)
    fetched = ()
    if "images_background" not in places:
        places, fetched = fetch(OMNIGLOT, root, cache_directory(config), places)
    preprocess = preprocess_of(config)
    sets: dict[str, Decoded] = {}
    for name in SETS:
        # The validation set is half of the evaluation set: not both.
        if name in places and not (name == "images_validation" and _in_evaluation(sets).any()):
            sets[name] = _decoded(config, places[name], preprocess)
    train, validation, test, notes = _splits(config, sets)
    if lookup(config, "data.split") == "drawer":
        train, validation, test, note = _by_drawer(train, validation, test, split_seed(config))
        notes.append(note)
    parts = [images for images in (train, validation, test) if images is not None]
    keys = "".join(sets[name].key for name in sorted(sets))
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        name="omniglot",
        summary=summarise(parts, sets["images_background"].pixels, "alphabets"),
        notes=(*fetched, *(note for s in sets.values() for note in s.notes), *notes),
        fingerprint=hashlib.sha256(keys.encode()).hexdigest(),
    )


def find(root: Path) -> dict[str, Path]:
    """The zips or folders of Omniglot under `root`, by name: "images_background", ..."""
    found = {}
    for name in SETS:
        for folder in FOLDERS:
            for place in (root / folder / f"{name}.zip", root / folder / name):
                if name not in found and place.exists():
                    found[name] = place
    return found


def _decoded(config: ConfigDict, place: Path, preprocess: Preprocess) -> Decoded:
    files = open_files(place)
    key = cache_key("omniglot", files.fingerprint(), preprocess)

    def collect(write: Write) -> Collected:
        return _collect(place, files, preprocess, write)

    return cached(cache_directory(config), place.stem, key, preprocess, collect)


def _collect(place: Path, files: FileSet, preprocess: Preprocess, write: Write) -> Collected:
    listing = files.listing()
    entries, strange = read_paths(listing.images)
    if not entries:
        raise ValueError(
            f"{place} does not hold Omniglot: expected <Alphabet>/character01/0001_01.png, found"
            f" {name_some(strange) or 'no image'}. For images of your own use"
            ' config.data.source = "folder"'
        )
    notes = list(listing.notes)
    if strange:
        notes.append(
            f"{len(strange):,} images in {place.name} not named as Omniglot's, not used:"
            f" {name_some(strange)}"
        )
    with files.reading() as read:
        collected = decode_files(read, entries, preprocess, write)
    return collected._replace(notes=[*notes, *collected.notes])


def read_paths(paths: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """Alphabet, character and drawer from each path; and the paths that do not tell them.

    Example:
        >>> entries, strange = read_paths(["images_background/Greek/character02/0395_07.png"])
        >>> entries[0].class_name, entries[0].group_name, entries[0].drawer
        ('Greek/character02', 'Greek', 7)
    """
    entries, strange = [], []
    for path in paths:
        if match := IMAGE.search(path):
            alphabet, character, drawer = match.groups()
            entries.append(Entry(path, f"{alphabet}/{character}", alphabet, int(drawer)))
        else:
            strange.append(path)
    return entries, strange


def _splits(
    config: ConfigDict, sets: dict[str, Decoded]
) -> tuple[LabelledImages, LabelledImages, LabelledImages | None, list[str]]:
    background = sets["images_background"].images
    validation, test = None, None
    if "images_validation" in sets:
        validation = sets["images_validation"].images
    if "images_evaluation" in sets:
        images, chosen = sets["images_evaluation"].images, _in_evaluation(sets)
        validation = part(images, chosen) if chosen.any() else validation
        test = None if chosen.all() else part(images, ~chosen)
    if validation is not None:
        return background, validation, test, []
    share, seed = lookup(config, "data.holdout"), split_seed(config)
    train, validation, note = hold_out(background, share, seed)
    note = (
        "no validation alphabets of Omniglot's evaluation set found;"
        f" {note.replace('groups', 'alphabets')}. To use the evaluation set, put"
        " images_evaluation.zip beside the background set"
    )
    return train, validation, test, [note]


def _in_evaluation(sets: Mapping[str, Decoded]) -> np.ndarray:
    """Which images of the evaluation set are of validation alphabets."""
    if "images_evaluation" not in sets:
        return np.zeros(0, bool)
    images = sets["images_evaluation"].images
    known = [name in VALIDATION_ALPHABETS for name in images.group_names]
    return np.array(known)[images.groups]


def _by_drawer(
    train: LabelledImages, validation: LabelledImages, test: LabelledImages | None, seed: int
) -> tuple[LabelledImages, LabelledImages, LabelledImages | None, str]:
    parts = [images for images in (train, validation, test) if images is not None]
    drawers = np.unique(np.concatenate([images.drawers for images in parts]))
    fifth = max(1, round(len(drawers) / 5))  # 4 of 20
    if len(drawers) < 3:
        raise ValueError(
            f'config.data.split = "drawer" needs at least 3 drawers; found {drawers.tolist()}'
        )
    order = np.random.default_rng([seed, 0xD7A3]).permutation(drawers)
    theirs = np.split(order, [len(order) - 2 * fifth, len(order) - fifth])
    names = ("train", "validation", "test")
    chosen = []
    for name, images, own in zip(names, (train, validation, test), theirs, strict=True):
        if images is None:
            chosen.append(None)
            continue
        keep = np.isin(images.drawers, own)
        if not keep.any():
            raise ValueError(f"no {name} image is by its drawers {np.sort(own).tolist()}")
        chosen.append(part(images, keep))
    told = "; ".join(
        f"{name} {', '.join(map(str, np.sort(own)))}"
        for name, own in zip(names, theirs, strict=True)
    )
    return chosen[0], chosen[1], chosen[2], f"drawers divided by seed {seed}: {told}"
