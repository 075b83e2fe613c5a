"""Keras' weight files: `.weights.h5` of Keras 3, and the older `.h5`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_CONV = ("kernel", "bias")
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def read_keras(path: Path) -> dict[str, np.ndarray]:
    """The weights in a file of Keras, by `layer/variable` ("conv1_conv/kernel").

    HDF5 compares checksums where a file has them (`fletcher32`), but Keras writes none: a bit that
    flipped in a number is not told. Layers keep their own names, wherever in nested models they
    lie. An optimizer's variables in the file of a whole model are not read.

    Args:
        path: of an HDF5 file, from `save_weights` or `save` of Keras 2 or 3.

    Raises:
        ValueError: if h5py is not installed, or the file is damaged, holds no weights, declares
            more numbers than it has bytes, or does not name its layers.
    """
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            "Keras' weights are HDF5 files, which need h5py: pip install 'siamjax[weights]'"
        ) from error
    arrays: dict[str, np.ndarray] = {}
    left = path.stat().st_size

    def visit(place: str, item: Any) -> None:
        nonlocal left
        if not isinstance(item, h5py.Dataset) or item.dtype.kind != "f":
            return
        if place.startswith("optimizer"):
            return
        left -= item.size * item.dtype.itemsize
        if (
            left < 0 or item.external or item.is_virtual
        ):  # compressed, or never written: HDF5 would fill it up in memory
            raise ValueError(
                f"up to {place} it declares more bytes than it has: damaged, or compressed. Save"
                " it again with save_weights"
            )
        name = _name(place, item)
        if name in arrays:
            raise ValueError(f"it has two layers for {name}: save the one tower by itself")
        arrays[name] = item[()]

    try:
        with h5py.File(path, "r") as file:
            # Follows hard links only: no other file is ever opened.
            file.visititems(visit)
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"it is not a whole HDF5 file ({error}): download it again") from error
    if not arrays:
        raise ValueError("it holds no weights")
    return arrays


def _name(place: str, item: Any) -> str:
    """`layer/variable` of a dataset at a place in the file."""
    variable = place.split("/")[-1].split(":")[0]
    if not variable.isdigit():  # the older format: conv1_conv/conv1_conv/kernel:0
        return f"{place.split('/')[-2]}/{variable}" if "/" in place else variable
    layer = item.parent.attrs.get("name")  # Keras 3: conv2d_7/vars/0, the name on vars
    if layer is None:
        raise ValueError(
            f"{place} does not tell its layer's name: it is of an early Keras 3. Load it there and"
            " save it again with a newer Keras"
        )
    layer = layer.decode() if isinstance(layer, bytes) else str(layer)
    names = _NORM if len(item.parent) == len(_NORM) else _CONV
    index = int(variable)
    return f"{layer}/{names[index] if index < len(names) else index}"
