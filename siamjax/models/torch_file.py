"""PyTorch's `.pth` files, read without PyTorch and without running anything from them.

A `.pth` file holds a pickle, and a pickle is a program. Here it is run by an interpreter that
knows the few names a state dict is made of, as inert stand-ins of our own, and refuses all others.
Arrays are views into the memory-mapped file: no size that a file declares makes us allocate.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

Arrays = dict[str, np.ndarray]

MAX_PICKLE = 16 << 20  # bytes; a ResNet-152's is 0.1 MB
MAX_DIMENSIONS = 16
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number of old .pth files
BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # NumPy has none: told apart by its field, widened below
_STORAGES = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2", "BFloat16": BFLOAT16, "Long": "<i8",
    "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip


@dataclass(frozen=True)
class _Storage:
    """A run of numbers in the file: where, once known, and how many."""

    key: str
    dtype: np.dtype
    count: int
    start: int = 0  # in elements, of a view into a larger storage


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Dict(dict):
    """`OrderedDict` without its memory for attributes (PyTorch hangs `_metadata` on it)."""

    def __setstate__(self, state: object) -> None:
        pass


class _Parameter:
    """`Parameter`, as `__new__` and `__setstate__` of PyTorch 0.1 to 0.3 wrote it."""

    data: Any

    def __new__(cls, data: Any = None, *_: object) -> _Parameter:
        parameter = super().__new__(cls)
        parameter.data = data
        return parameter

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            self.data = state[0]


def is_size(value: Any) -> bool:
    """Whether a value from a file is a short list of whole numbers from 0."""
    whole = isinstance(value, list | tuple) and len(value) <= MAX_DIMENSIONS
    return whole and all(type(i) is int and 0 <= i < 2**63 for i in value)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: object) -> _Tensor:
    if not (isinstance(storage, _Storage) and is_size((offset,)) and is_size(size)):
        raise ValueError("a tensor is described by something else than a storage and its size")
    if not is_size(stride) or len(stride) != len(size):
        raise ValueError("a tensor has strides that do not go with its size")
    return _Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: Any, *_: object) -> Any:
    return data


def _size(value: Any) -> tuple[int, ...]:
    if not is_size(value):
        raise ValueError("a size is not a short tuple of whole numbers")
    return tuple(value)


_KNOWN: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.nn.parameter.Parameter": _Parameter,
    "torch.Size": _size,
    **{f"torch.{name}Storage": np.dtype(dtype) for name, dtype in _STORAGES.items()},
}


_NEEDLESS = (
    pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
    pickle.EXT1, pickle.EXT2, pickle.EXT4,
)  # fmt: skip


class _Unpickler(pickle._Unpickler):
    """Runs a pickle with stand-ins only.

    The interpreter in Python, not the one in C: that one allocates what an opcode declares. The
    one opcode with which this one does so is taken out.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = {
        code: run
        for code, run in pickle._Unpickler.dispatch.items()
        if bytes([code]) not in _NEEDLESS
    }

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream, encoding="utf-8")
        self.budget = 1_000_000  # entries of dicts given as lists: each such opcode copies them all
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return self._ordered_dict
        if full not in _KNOWN:
            raise ValueError(
                f"it calls {full}, which no state dict needs: refused, and nothing was run. In"
                " PyTorch save only weights: torch.save(model.state_dict(), path)"
            )
        return _KNOWN[full]

    def _ordered_dict(self, items: Any = ()) -> _Dict:
        self.budget -= len(items)
        if self.budget < 0:
            raise ValueError("its pickle unfolds to more than a million entries")
        return _Dict(items)

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count, *rest = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or not is_size((count,)):
            raise ValueError("it holds other things than arrays of numbers")
        whole = self.storages.setdefault(str(key), _Storage(str(key), dtype, count))
        if (whole.dtype, whole.count) != (dtype, count):
            raise ValueError(f"it declares its storage {key!r} twice, in two ways")
        if not rest or rest[0] is None:
            return whole
        _, start, part = rest[0]  # a view, of PyTorch 0.1 to 0.3
        if not is_size((start, part)) or start + part > count:
            raise ValueError(f"a view reaches beyond its storage {key!r}")
        return _Storage(whole.key, dtype, part, start)

    def load_build(self) -> None:
        """`BUILD` sets attributes: only of our own two stand-ins."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, _Dict | _Parameter):
            raise ValueError(f"it sets attributes of a {type(target).__name__}: refused")
        target.__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build


def _unpickle(stream: io.BytesIO) -> tuple[Any, dict[str, _Storage]]:
    """The next value of a stream, and the storages that it names."""
    unpickler = _Unpickler(stream)
    try:
        return unpickler.load(), unpickler.storages
    except ValueError:
        raise
    except Exception as error:  # a broken pickle may raise anything
        raise ValueError(f"its pickle is damaged ({type(error).__name__}: {error})") from error


def read_pth(path: Path) -> Arrays:
    """The arrays of a state dict that `torch.save` wrote, now or before PyTorch 1.6.

    Args:
        path: of the file.

    Returns:
        One read-only array per name, a view into the file. A state dict inside a dict, under
        "state_dict" or "model", is found.

    Raises:
        ValueError: if the file is damaged, holds other things than arrays, names anything that a
            state dict does not need, or is of PyTorch 0.1's first format (a tar).
    """
    data = np.memmap(path, np.uint8, "r")
    tree, find = _open_zip(path, data) if data[:2].tobytes() == b"PK" else _open_legacy(data)
    for key in ("state_dict", "model"):
        if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping):
            tree = tree[key]
    if not isinstance(tree, Mapping) or not tree:
        raise ValueError(
            f"it holds a {type(tree).__name__.strip('_')}, not a state dict: in PyTorch save it"
            " with torch.save(model.state_dict(), path)"
        )
    arrays = {}
    for name, value in tree.items():
        value = value.data if isinstance(value, _Parameter) else value
        if not isinstance(value, _Tensor):
            raise ValueError(f"its entry {name!r} is a {type(value).__name__}, not an array")
        arrays[str(name)] = _view(data, find(value.storage), value, str(name))
    return arrays


def _view(data: np.ndarray, start: int, tensor: _Tensor, name: str) -> np.ndarray:
    """A tensor as a view into the file; `start` is its storage's first byte."""
    storage, itemsize = tensor.storage, tensor.storage.dtype.itemsize
    empty = 0 in tensor.shape
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if not empty and tensor.offset + reach >= storage.count:
        raise ValueError(f"its array {name!r} reaches beyond its own storage")
    if start + (storage.start + storage.count) * itemsize > len(data):
        raise ValueError(f"its array {name!r} reaches beyond the end of the file: cut short?")
    if empty:
        return np.zeros(tensor.shape, np.float32)
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


def _open_zip(path: Path, data: np.ndarray) -> tuple[Any, Callable[[_Storage], int]]:
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
        return start, info.file_size

    start, size = locate(pickles[0])
    if root + "byteorder" in entries:
        at, length = locate(root + "byteorder")
        if data[at : at + min(length, 16)].tobytes() != b"little":
            raise ValueError("it was written on a big-endian machine: save it on another")
    if size > MAX_PICKLE:
        raise ValueError(f"its pickle has {size:,} bytes, more than {MAX_PICKLE:,}")
    tree, _ = _unpickle(io.BytesIO(data[start : start + size].tobytes()))

    def find(storage: _Storage) -> int:
        start, size = locate(f"{root}data/{storage.key}")
        if (storage.start + storage.count) * storage.dtype.itemsize > size:
            raise ValueError(f"its storage {storage.key!r} is smaller than declared")
        return start

    return tree, find


def _open_legacy(data: np.ndarray) -> tuple[Any, Callable[[_Storage], int]]:
    """As `_open_zip`, of the format before PyTorch 1.6: pickles one after another, then numbers."""
    stream = io.BytesIO(data[:MAX_PICKLE].tobytes())
    _, (version, _), (system, _) = (_unpickle(stream) for _ in range(3))
    if version != 1001 or not isinstance(system, Mapping) or not system.get("little_endian"):
        raise ValueError("it is of an unknown version, or was written on a big-endian machine")
    (tree, storages), (keys, _) = _unpickle(stream), _unpickle(stream)
    if not isinstance(keys, list) or {str(key) for key in keys} != storages.keys():
        raise ValueError("its list of storages is not that of its arrays")
    starts, at = {}, stream.tell()
    for key in map(str, keys):
        storage = storages[key]
        if data[at : at + 8].tobytes() != struct.pack("<q", storage.count):
            raise ValueError(f"its storage {key!r} has another size than declared: cut short?")
        starts[key] = at + 8
        at += 8 + storage.count * storage.dtype.itemsize
    return tree, lambda storage: starts[storage.key]
