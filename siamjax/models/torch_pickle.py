"""The pickles inside PyTorch's files, read without running anything that they name.

A pickle is a program. Here it is run by an interpreter that knows the few names that a state dict
is made of, as inert stand-ins of our own, and refuses all others by name.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # NumPy has none: told apart by its field
MAX_DIMENSIONS = 16
MAX_ENTRIES = 1_000_000  # of dicts that are given as lists: an opcode copies all of one


class UnreadableError(ValueError):
    """What is wrong with a file, as a sentence without a subject ("its header is damaged")."""


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file.

    Attributes:
        key: its name in the file.
        dtype: of its numbers.
        count: how many there are.
        start: where they begin in the storage called `key`, in numbers.
    """

    key: str
    dtype: np.dtype
    count: int
    start: int = 0


@dataclass(frozen=True)
class Tensor:
    """A view into a storage; offset and strides in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class StateDict(dict):
    """`OrderedDict` and `dict`. Only plain keys: a hash of nested tuples can take for ever."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | int):
            raise UnreadableError("a dict has keys other than names")
        super().__setitem__(key, value)

    def __setstate__(self, state: object) -> None:
        """PyTorch hangs `_metadata` on it; nothing here wants it."""


class Parameter:
    """`Parameter`, as `__new__` and `__setstate__` of PyTorch 0.1 to 0.3 made it."""

    data: Any

    def __new__(cls, data: Any = None, *_: object) -> Parameter:
        """`data` is a tensor; what else PyTorch gives is of no use here."""
        parameter = super().__new__(cls)
        parameter.data = data
        return parameter

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            self.data = state[0]


def sizes(value: Any) -> tuple[int, ...]:
    """A value from a file as a short tuple of whole numbers from 0.

    Raises:
        UnreadableError: if it is anything else.
    """
    few = isinstance(value, list | tuple) and len(value) <= MAX_DIMENSIONS
    if not few or not all(type(i) is int and 0 <= i < 2**63 for i in value):
        raise UnreadableError("it gives something else for a size than a few whole numbers")
    return tuple(value)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: object) -> Tensor:
    if not isinstance(storage, Storage) or len(sizes(shape)) != len(sizes(strides)):
        raise UnreadableError("a tensor is described by something else than a storage and its size")
    return Tensor(storage, sizes((offset,))[0], sizes(shape), sizes(strides))


_DTYPES = {
    "Double": "<f8", "Float": "<f4", "Half": "<f2", "BFloat16": BFLOAT16, "Long": "<i8",
    "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip
_KNOWN: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": Parameter,
    "torch.nn.parameter.Parameter": Parameter,
    "torch.Size": sizes,
    **{f"torch.{name}Storage": np.dtype(dtype) for name, dtype in _DTYPES.items()},
}
_NEEDLESS = (
    pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.DICT, pickle.EMPTY_SET,
    pickle.ADDITEMS, pickle.FROZENSET, pickle.EXT1, pickle.EXT2, pickle.EXT4,
)  # fmt: skip


class _Unpickler(pickle._Unpickler):
    """Runs a pickle with stand-ins only.

    The interpreter written in Python, not the one in C: that one allocates whatever size an opcode
    declares. The one opcode with which this one does so is taken out, with others of no use here.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = {
        code: run
        for code, run in pickle._Unpickler.dispatch.items()
        if bytes([code]) not in _NEEDLESS
    }

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream, encoding="utf-8")
        self.left = MAX_ENTRIES
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return self._ordered_dict
        if full not in _KNOWN:
            raise UnreadableError(
                f"it calls {full}, which no state dict needs: refused, and nothing was run. In"
                " PyTorch save only weights: torch.save(model.state_dict(), path)"
            )
        return _KNOWN[full]

    def _ordered_dict(self, items: Any = ()) -> StateDict:
        self.left -= len(items)
        if self.left < 0:
            raise UnreadableError(f"its pickle unfolds to more than {MAX_ENTRIES:,} entries")
        made = StateDict()
        for key, value in items:
            made[key] = value
        return made

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, count, *rest = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(key, str | int):
            raise UnreadableError("it holds other things than arrays of numbers")
        whole = Storage(str(key), dtype, sizes((count,))[0])
        if self.storages.setdefault(whole.key, whole) != whole:
            raise UnreadableError(f"it declares its storage {key!r} twice, in two ways")
        if not rest or rest[0] is None:
            return whole
        _, start, part = rest[0]  # a view, of PyTorch 0.1 to 0.3
        if sum(sizes((start, part))) > count:
            raise UnreadableError(f"a view reaches beyond its storage {key!r}")
        return Storage(whole.key, dtype, part, start)

    def load_build(self) -> None:
        """`BUILD` sets attributes: only of our own two stand-ins."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, StateDict | Parameter):
            raise UnreadableError(f"it sets attributes of a {type(target).__name__}: refused")
        target.__setstate__(state)

    def load_empty_dictionary(self) -> None:
        self.stack.append(StateDict())

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dictionary


def unpickle(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """The next value of a stream, and the storages that it names.

    Raises:
        UnreadableError: if it is damaged, or names anything that a state dict does not need.
    """
    unpickler = _Unpickler(stream)
    try:
        return unpickler.load(), unpickler.storages
    except UnreadableError:
        raise
    except Exception as error:  # a broken pickle may raise anything
        raise UnreadableError(f"its pickle is damaged ({type(error).__name__})") from error
