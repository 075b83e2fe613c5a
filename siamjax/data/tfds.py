"""Image classification sets of TensorFlow Datasets, read without TensorFlow.

TensorFlow is needed once, to prepare a set whose images are encoded files; from then on the
array_record files are read without it. Nothing is downloaded or prepared here: what is not on
disk is answered at once with the command that prepares it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from siamjax.config import ConfigDict
from siamjax.config_faults import lookup
from siamjax.data.cache import Collected, Entry, Write, cache_directory, cache_key, cached
from siamjax.data.decode import PixelFacts
from siamjax.data.files import DirectoryFiles, natural
from siamjax.data.splits import (
    DataNotFound,
    divide,
    name_some,
    refuse_drawer_split,
    singles_note,
    summarise,
)
from siamjax.preprocess import Preprocess, preprocess_of
from siamjax.types import DataSplits

BATCH = 512
SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA"}
READABLE = ("array_record", "parquet")  # formats with random access


def tfds(config: ConfigDict) -> DataSplits:
    """Reads the prepared data set `config.data.tfds_name`, such as "mnist" or "cifar10:3.0.2".

    Its features must hold an `image` and a `label`. Its `train`, `validation` and `test` splits
    are used; where there is no `validation`, `config.data.holdout` is held out of `train`: by
    image where the test classes are the training classes (MNIST), else whole classes. With
    `config.data.holdout = 0` all of `train` is for training and the test images validate.

    Args:
        config: reads `data.tfds_name`, `data.dir` (None: `$TFDS_DATA_DIR`, else
            `~/tensorflow_datasets`), `data.holdout`, `data.cache_dir`, the preprocessing and
            the seed of the split.

    Returns:
        The splits; `test` is None where the set has none.

    Raises:
        DataNotFound: if the set is not prepared, or prepared as tfrecord; the text holds the
            command that prepares it.
        ValueError: if it is not a set of labelled images.
    """
    refuse_drawer_split(config)
    place = find(config)
    preprocess = preprocess_of(config)
    key = cache_key("tfds", DirectoryFiles(place).fingerprint(), preprocess)
    wanted = lookup(config, "data.tfds_name")
    name = wanted.replace("/", "-").replace(":", "-").replace("*", "x")

    def collect(write: Write) -> Collected:
        return _collect(place, preprocess, write)

    found = cached(cache_directory(config), f"tfds-{name}", key, preprocess, collect)
    train, validation, test, notes = divide(found.images, found.split, config)
    singles = singles_note(found.images)
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        name=f"tfds:{wanted}",
        summary=summarise([found.images], found.pixels, groups=False),
        notes=(*found.notes, *([singles] if singles else []), *notes),
        fingerprint=found.key,
    )


def find(config: ConfigDict) -> Path:
    """The folder of the prepared set, `DATA_DIR/name[/config]/version`; TFDS is not imported.

    Raises:
        DataNotFound: if it is not there or cannot be read without TensorFlow.
        ValueError: if the name is missing or fits several configurations of the set.
    """
    wanted, given = lookup(config, "data.tfds_name"), lookup(config, "data.dir")
    if not wanted:
        raise ValueError('config.data.source = "tfds" needs config.data.tfds_name, such as "mnist"')
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(given or default).expanduser()
    name, _, version = wanted.partition(":")
    prepared = [
        path.parent
        for path in (root / name).glob("**/dataset_info.json")
        if not any(part.startswith("incomplete.") for part in path.parts)
        and (not version or _fits(path.parent.name, version))
    ]
    if not prepared:
        raise DataNotFound(
            f'the TFDS data set "{wanted}" is not prepared: nothing under {root / name}.'
            f" {_command(wanted, given)}"
        )
    variants = {path.parent for path in prepared}
    if len(variants) > 1:
        choices = sorted(str(path.relative_to(root)) for path in variants)
        raise ValueError(
            f'the TFDS data set "{wanted}" is prepared in several configurations; set'
            f" config.data.tfds_name to one of {', '.join(choices)}"
        )
    readable = [path for path in prepared if _format(path) in READABLE]
    if not readable:
        kept = max(prepared, key=lambda path: natural(path.name))
        raise DataNotFound(
            f'the TFDS data set "{wanted}" in {kept} is prepared as {_format(kept)}, which cannot'
            " be read image by image without TensorFlow; prepare it as array_record, in a"
            f" directory of its own. {_command(wanted, str(root / 'array_record'))}"
            f'\nand set config.data.dir = "{root / "array_record"}"'
        )
    return max(readable, key=lambda path: natural(path.name))


def _fits(version: str, wanted: str) -> bool:
    """Whether "3.0.2" is what "3.0.2", "3.0.*" or "3.*.*" asks for."""
    pairs = zip(version.split("."), wanted.split("."), strict=False)
    return all(w in ("*", v) for v, w in pairs)


def _format(place: Path) -> str:
    try:
        info = json.loads((place / "dataset_info.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{place} is not a whole TFDS data set: {error}") from error
    return info.get("fileFormat") or "tfrecord"  # the field was left out in older versions


def _command(name: str, data_dir: str | None) -> str:
    place = f", data_dir={str(data_dir)!r}" if data_dir else ""
    return (
        "Prepare it once, which needs TensorFlow and the network; reading needs neither:\n"
        "  pip install 'siamjax[tfds]'\n"
        '  python -c "import tensorflow_datasets as tfds;'
        f" tfds.builder('{name}', file_format='array_record'{place}).download_and_prepare()\""
    )


def _collect(place: Path, preprocess: Preprocess, write: Write) -> Collected:
    import tensorflow_datasets

    builder: Any = tensorflow_datasets.builder_from_directory(str(place))
    class_names = _class_names(place, builder.info.features)
    splits = {SPLITS[name]: name for name in builder.info.splits if name in SPLITS}
    others = [name for name in builder.info.splits if name not in SPLITS]
    if "train" not in splits:
        raise ValueError(f"{place} has no split train; it has {', '.join(builder.info.splits)}")
    entries: list[Entry] = []
    faults: list[str] = []
    facts = PixelFacts()
    for split in sorted(splits, key=list(SPLITS.values()).index):
        source = builder.as_data_source(split=splits[split])
        for number, (example, pixels) in enumerate(_examples(source, preprocess)):
            path, label = f"{split}/{number}", int(example["label"])
            if isinstance(pixels, str):
                faults.append(f"{path} ({pixels})")
                continue
            write(pixels)
            shape = np.shape(example["image"])
            facts.add((shape[0], shape[1]), CHANNELS[shape[2] if len(shape) == 3 else 1])
            class_name = class_names[label] if class_names else str(label)
            entries.append(Entry(path, class_name, split=split))
    if not entries:
        raise ValueError(f"no image of {place} can be used: {name_some(faults)}")
    notes = [f"splits not used: {name_some(others)}"] if others else []
    if faults:
        notes.append(f"{len(faults):,} images left out: {name_some(faults)}")
    return Collected(entries, notes, str(facts))


def _class_names(place: Path, features: Any) -> Sequence[str] | None:
    """The names of the labels, or None where they are plain numbers."""
    names = list(features) if hasattr(features, "keys") else []
    missing = [name for name in ("image", "label") if name not in names]
    if missing:
        raise ValueError(
            f"{place} has no feature {' and no '.join(missing)}; it has"
            f" {', '.join(names) or 'none by name'}. Only sets of labelled images can be used"
        )
    return getattr(features["label"], "names", None)


def _examples(
    source: Any, preprocess: Preprocess
) -> Iterator[tuple[dict[str, Any], np.ndarray | str]]:
    """Each example with its pixels, or with the reason why it has none."""

    def pixels(example: dict[str, Any]) -> np.ndarray | str:
        if int(example["label"]) < 0:  # TFDS' mark
            return "its label is withheld"
        try:
            return preprocess(example["image"])
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        for start in range(0, len(source), BATCH):
            examples = source.__getitems__(list(range(start, min(start + BATCH, len(source)))))
            yield from zip(examples, pool.map(pixels, examples), strict=True)
