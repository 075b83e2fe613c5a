"""PyTorch's `.pth` files, of today and of before version 1.6, read without PyTorch.

The arrays are views into the memory-mapped file: no size that a file declares makes us allocate.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from siamjax.models.torch_pickle import BFLOAT16, Parameter, Storage, Tensor, unpickle

Arrays = dict[str, np.ndarray]

MAX_PICKLE = 16 << 20  # bytes; a ResNet-152's is 0.1 MB
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number of old .pth files


def read_pth(path: Path) -> Arrays:
    """The arrays of a state dict that `torch.save` wrote, now or before PyTorch 1.6.

    A file of today carries a checksum of each part, which is compared; the older format has none.

    Args:
        path: of the file.

    Returns:
        One read-only array per name, a view into the file. A state dict inside a dict, under
        "state_dict" or "model", is found.

    Raises:
        ValueError: if the file is damaged, holds other things than arrays, names anything that a
            state dict does not need.
    """
    data = np.memmap(path, np.uint8, "r")
    tree, find = _open_zip(path, data) if data[:2].tobytes() == b"PK" else _open_legacy(data)
    for key in ("state_dict", "model"):
        if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping):
            tree = tree[key]
    if not isinstance(tree, Mapping) or not tree:
        raise ValueError(
            f"it holds a {type(tree).__name__}, not a state dict: in PyTorch save it"
            " with torch.save(model.state_dict(), path)"
        )
    arrays, left = {}, 2 * len(data)  # twice: some arrays may share a storage
    for name, value in tree.items():
        value = value.data if isinstance(value, Parameter) else value
        if not isinstance(value, Tensor):
            raise ValueError(f"its entry {name!r} is a {type(value).__name__}, not an array")
        left -= math.prod(value.shape) * value.storage.dtype.itemsize
        if left < 0:
            raise ValueError("its arrays, taken together, are larger than the file")
        arrays[str(name)] = _view(data, find(value.storage), value, str(name))
    return arrays


def _view(data: np.ndarray, start: int, tensor: Tensor, name: str) -> np.ndarray:
    """A tensor as a view into the file; `start` is its storage's first byte."""
    storage, itemsize = tensor.storage, tensor.storage.dtype.itemsize
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, np.float32)
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset + reach >= storage.count:
        raise ValueError(f"its array {name!r} reaches beyond its own storage")
    if start + (storage.start + storage.count) * itemsize > len(data):
        raise ValueError(f"its array {name!r} reaches beyond the end of the file: cut short?")
    view = np.ndarray(
        tensor.shape,
        storage.dtype,
        data,
        start + (storage.start + tensor.offset) * itemsize,
        [s * itemsize for s in tensor.strides],
    )
    return widen(view)


def widen(array: np.ndarray) -> np.ndarray:
    """A `BFLOAT16` array as float32, whose upper half it is; any other as it is."""
    if array.dtype != BFLOAT16:
        return array
    return (array["bfloat16"].astype(np.uint32) << 16).view(np.float32)


def _open_zip(path: Path, data: np.ndarray) -> tuple[Any, Callable[[Storage], int]]:
    """The pickle's value, and a function to the first byte of a storage."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise ValueError(f"it is not a whole zip file ({error}): download it again") from error
    with archive:
        entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError("it is a zip, but not one of PyTorch's: it has no data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    whole: set[str] = set()  # parts whose checksum was right

    def locate(name: str) -> tuple[int, int]:
        if (info := entries.get(name)) is None:
            raise ValueError(f"its part {name!r} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(
                f"its part {name!r} is compressed or encrypted, which PyTorch never does"
            )
        at = info.header_offset
        header = data[at : at + 30].tobytes()
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise ValueError(f"its part {name!r} is not where its directory says: damaged")
        name_size, extra_size = struct.unpack("<2H", header[26:30])
        start = at + 30 + name_size + extra_size
        if start + info.file_size > len(data):
            raise ValueError(f"its part {name!r} reaches beyond the end of the file: cut short?")
        if name not in whole and zlib.crc32(data[start : start + info.file_size].data) != info.CRC:
            raise ValueError(
                f"the checksum of its part {name!r} is not the one written: damaged, download it"
                " again (or it was saved with torch.serialization.set_crc32_options(False))"
            )
        whole.add(name)
        return start, info.file_size

    start, size = locate(pickles[0])
    if root + "byteorder" in entries:
        at, length = locate(root + "byteorder")
        if data[at : at + min(length, 16)].tobytes() != b"little":
            raise ValueError("it was written on a big-endian machine: save it on another")
    if size > MAX_PICKLE:
        raise ValueError(f"its pickle has {size:,} bytes, more than {MAX_PICKLE:,}")
    tree, _ = unpickle(io.BytesIO(data[start : start + size].tobytes()))

    def find(storage: Storage) -> int:
        start, size = locate(f"{root}data/{storage.key}")
        if (storage.start + storage.count) * storage.dtype.itemsize > size:
            raise ValueError(f"its storage {storage.key!r} is smaller than declared")
        return start

    return tree, find


def _open_legacy(data: np.ndarray) -> tuple[Any, Callable[[Storage], int]]:
    """As `_open_zip`, of the format before PyTorch 1.6: pickles one after another, then numbers."""
    stream = io.BytesIO(data[:MAX_PICKLE].tobytes())
    _, (version, _), (system, _) = (unpickle(stream) for _ in range(3))
    if version != 1001 or not isinstance(system, Mapping) or not system.get("little_endian"):
        raise ValueError("it is of an unknown version, or was written on a big-endian machine")
    (tree, storages), (keys, _) = unpickle(stream), unpickle(stream)
    plain = isinstance(keys, list) and all(isinstance(key, str | int) for key in keys)
    if not plain or {str(key) for key in keys} != storages.keys():
        raise ValueError("its list of storages is not that of its arrays")
    starts, at = {}, stream.tell()
    for key in map(str, keys):
        storage = storages[key]
        if data[at : at + 8].tobytes() != struct.pack("<q", storage.count):
            raise ValueError(f"its storage {key!r} has another size than declared: cut short?")
        starts[key] = at + 8
        at += 8 + storage.count * storage.dtype.itemsize
    return tree, lambda storage: starts[storage.key]
