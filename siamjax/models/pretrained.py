"""Published weights, from a file that the user gives, into the towers and heads of this library.

Nothing in a file is ever executed, and no size that it declares is believed: see `torch_file`,
`keras_file` and `safetensors_file`.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from siamjax.models.keras_file import read_keras
from siamjax.models.layouts import LAYOUTS, Plan, Shapes, published
from siamjax.models.safetensors_file import read_safetensors
from siamjax.models.torch_file import LEGACY_START, Arrays, read_pth

KINDS = ("auto", *LAYOUTS)
SHOWN = 20  # names in each column of a mismatch


def read_arrays(path: str | Path) -> Arrays:
    """The named arrays of a weights file; its first bytes tell which kind it is.

    Args:
        path: of a PyTorch state dict (`.pth`, `.pt`, `.bin`, of any version since 0.2), a
            `.safetensors` file, or a file of Keras (`.h5`, `.weights.h5`; needs h5py).

    Returns:
        One array per name; of PyTorch's files read-only views, so that only what is used is read.

    Raises:
        ValueError: if the file is not there, of none of these kinds, damaged, or refused.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path.absolute()} is not there, or not a file")
    with path.open("rb") as stream:
        start = stream.read(len(LEGACY_START))
    try:
        if start[:2] == b"PK" or start == LEGACY_START:
            return read_pth(path)
        if start[:8] == b"\x89HDF\r\n\x1a\n":
            return read_keras(path)
        if start[8:9] == b"{":
            return read_safetensors(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    raise ValueError(
        f"{path} is no weights file that is known here ({path.stat().st_size:,} bytes, from"
        f" {start[:8]!r}): expected a PyTorch state dict (.pth), .safetensors, or Keras' .h5 or"
        " .weights.h5. It may be a web page, or a Git LFS pointer, saved in its place"
    )


def import_weights(
    params: Any,
    batch_stats: Any,
    path: str | Path,
    *,
    kind: str = "auto",
    sum_colours: bool = False,
) -> tuple[Any, Any]:
    """Replaces a model's weights by those of a file; what the kind has no weights for stays.

    Args:
        params: of a `Siamese`, as `create_state` makes them; only shapes and types are looked at.
        batch_stats: its running statistics.
        path: of the file.
        kind: what the file holds:
            "torchvision-vgg": tower `vgg`, from torchvision's state dict. Its classifier is not
            used. ImageNet's weights want `normalise="imagenet"`.
            "bubbliiiing-vgg": tower `vgg` and head `l1_mlp` (plain, not `nonnegative`), from the
            whole state dict of github.com/bubbliiiing/Siamese-pytorch.
            "keras-resnet-v2": the backbone of tower `resnet_v2`, from a file of
            `keras.applications.resnet_v2`. ImageNet's weights want `normalise="tf"`.
            "auto": found out from the names in the file.
        sum_colours: for a tower that takes grey images: add the three colours of the file's first
            kernel. That equals feeding the grey image three times, where pixels are not normalised.

    Returns:
        New `(params, batch_stats)` of the same structure and types.

    Raises:
        ValueError: if the file cannot be had or read, if its names and shapes are not those of the
            model (every difference is listed), or if a weight is not finite.

    References:
        Layouts: PyTorch kernels are (out, in, row, column) and its maps are flattened (channel,
        row, column); here (row, column, in, out) and (row, column, channel).
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    model = _flat({"params": params, "batch_stats": batch_stats})
    path = Path(path)
    if not path.is_file():
        known = published(model) or "none is published for this tower"
        raise ValueError(
            f"{path.absolute()} is not there. Weights for this tower: {known}. Download the file"
            " yourself and give its path"
        )
    arrays = read_arrays(path)
    if all(name.startswith("module.") for name in arrays):  # PyTorch's DataParallel
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    kind = _recognise(arrays, path) if kind == "auto" else kind
    layout = LAYOUTS[kind]
    arrays = {
        name: array
        for name, array in arrays.items()
        # PyTorch's batch norms count their steps; nothing uses the count.
        if not name.startswith(layout.unused) and not name.endswith(".num_batches_tracked")
    }
    plan = layout.plan(model)
    turned, others = _turn(plan, arrays, model, sum_colours)
    if differences := _compare(plan, arrays, model, others, kind):
        raise ValueError(
            f"{path}, read as {kind} (for {layout.goes_with}), does not fit this model:\n"
            + differences
            + _hints(others, layout.first)
        )
    for ours, array in turned.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {plan[ours].name} holds numbers that are not finite")

    def replaced(keys: Any, leaf: Any) -> Any:
        new = turned.get(_path(keys))
        # A copy: on a CPU `asarray` may keep the view, and with it the file, in use.
        return leaf if new is None else jnp.array(new, leaf.dtype)

    both = jax.tree_util.tree_map_with_path(
        replaced, {"params": params, "batch_stats": batch_stats}
    )
    return both["params"], both["batch_stats"]


def _path(keys: Any) -> str:
    return "/".join(str(key.key) for key in keys)


def _flat(tree: Any) -> dict[str, Any]:
    return {_path(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _recognise(arrays: Arrays, path: Path) -> str:
    for kind, layout in LAYOUTS.items():
        if layout.first in arrays:
            return kind
    few = ", ".join(list(arrays)[:5])
    raise ValueError(
        f"{path} holds {len(arrays)} arrays ({few}, ...), which are none of the kinds known here:"
        f" {', '.join(KINDS[1:])}"
    )


def _turn(plan: Plan, arrays: Arrays, model: Shapes, sum_colours: bool) -> tuple[Arrays, list[str]]:
    """The file's arrays by the model's paths, and a line for each that has another shape."""
    turned: Arrays = {}
    others = []
    for ours, source in plan.items():
        if source.name not in arrays or ours not in model:
            continue
        array, shape = arrays[source.name], tuple(model[ours].shape)
        try:
            new = source.turn(array)
        except ValueError:  # the shape allows no such turn
            new = array[None]
        if sum_colours and new.ndim == 4 and (new.shape[2], shape[2]) == (3, 1):
            new = new.sum(2, keepdims=True)
        if new.shape == shape and np.issubdtype(new.dtype, np.floating):
            turned[ours] = new
        else:
            short = _short(ours)
            others.append(f"{source.name} {list(array.shape)} -> {short} {list(shape)}")
    return turned, others


def _compare(plan: Plan, arrays: Arrays, model: Shapes, others: list[str], kind: str) -> str:
    """Columns of what is only in the file and only in the model, and the other shapes; or ""."""
    wanted = {source.name for ours, source in plan.items() if ours in model}
    extra = [f"{name} {list(a.shape)}" for name, a in arrays.items() if name not in wanted]
    missing = [
        f"{_short(ours)} {list(leaf.shape)}" + (f" ({plan[ours].name})" if ours in plan else "")
        for ours, leaf in model.items()
        if ours.split("/", 1)[1].startswith(LAYOUTS[kind].scope)
        and not (ours in plan and plan[ours].name in arrays)
    ]
    return mismatch(extra, missing, others, "file", " or no floats")


def mismatch(
    extra: list[str], missing: list[str], others: list[str], where: str, or_else: str = ""
) -> str:
    """Columns of what is only in a file or run and only in the model, and the other shapes; or "".

    Args:
        extra: a line for each array that the model has no place for.
        missing: a line for each array that it lacks.
        others: a line for each array of another shape.
        where: the arrays come from: "file" or "run".
        or_else: what else the last ones may have.
    """
    lines = []
    if extra or missing:
        left = [f"only in the {where} ({len(extra)})", *(f"  {x}" for x in _some(extra))]
        right = [f"only in the model ({len(missing)})", *(f"  {x}" for x in _some(missing))]
        width = max(map(len, left)) + 3
        lines += [f"{a:{width}}{b}".rstrip() for a, b in zip_longest(left, right, fillvalue="")]
    if others:
        lines.append(f"in both, with other shapes{or_else} ({len(others)}), {where} -> model")
        lines += [f"  {line}" for line in _some(others)]
    return "\n".join(lines)


def _some(names: list[str]) -> list[str]:
    more = len(names) - SHOWN
    return names[:SHOWN] + ([f"... and {more} more"] if more > 0 else [])


def _short(path: str) -> str:
    return path.removeprefix("params/")


def _hints(others: list[str], first: str) -> str:
    """What to do about shapes that often differ."""
    text = ""
    if any(line.startswith(first) for line in others):
        text += (
            "\nThe first kernel is for another number of colours: of weights for colour, build the"
            " tower with replicate_grey=True, or import them with sum_colours=True."
        )
    if any(line.startswith("fully_connect1.weight") for line in others):
        text += (
            "\nfully_connect1 goes with one image size and one number of hidden units: set"
            " config.data.size and the head's hidden to those of the file's training."
        )
    return text
