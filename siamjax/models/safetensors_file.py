"""`.safetensors` files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from siamjax.models.torch_file import Arrays, widen
from siamjax.models.torch_pickle import BFLOAT16, sizes

MAX_HEADER = 16 << 20  # bytes of JSON; a ResNet-152's is 0.1 MB
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16, "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?",
}  # fmt: skip


def read_safetensors(path: Path) -> Arrays:
    """The arrays of a safetensors file: eight bytes of length, that much JSON, then the numbers.

    The format has no checksum. What it does ask for is checked: the arrays fill the file without a
    gap, so a file that was cut or mixed up is told, but a bit that flipped in a number is not.

    Args:
        path: of the file.

    Returns:
        One read-only array per name, a view into the file.

    Raises:
        ValueError: if the file is damaged, or its sizes do not agree.
    """
    data = np.memmap(path, np.uint8, "r")
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > min(MAX_HEADER, len(data) - 8):
        raise ValueError(
            f"its header has {length:,} bytes by its own account: damaged or cut short"
        )
    try:
        header = json.loads(data[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        entries = [
            (name, np.dtype(DTYPES[e["dtype"]]), sizes(e["shape"]), sizes(e["data_offsets"]))
            for name, e in header.items()
        ]
        whole = all(len(place) == 2 for *_, place in entries)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header is damaged ({type(error).__name__})") from error
    if not whole:
        raise ValueError("its header is damaged (an array has no beginning and end)")
    arrays, numbers, at = {}, data[8 + length :], 0
    for name, dtype, shape, (begin, end) in sorted(entries, key=lambda entry: entry[3]):
        if end - begin != math.prod(shape) * dtype.itemsize or end > len(numbers):
            raise ValueError(f"its array {name!r} is not as large as declared: cut short?")
        if begin != at:
            raise ValueError(f"its array {name!r} does not begin where the one before it ends")
        at = end
        arrays[name] = widen(numbers[begin:end].view(dtype).reshape(shape))
    if at != len(numbers):
        raise ValueError(f"{len(numbers) - at:,} bytes at its end belong to no array")
    return {name: arrays[name] for name, *_ in entries}
