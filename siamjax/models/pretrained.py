"""Published weights, from a file that the user gives, into the towers and heads of this library.

Nothing in a file is ever executed, and no size that it declares is believed: see `torch_file`,
`keras_file` and `safetensors_file`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from siamjax.models.keras_file import read_keras
from siamjax.models.safetensors_file import read_safetensors
from siamjax.models.torch_file import LEGACY_START, Arrays, read_pth

SHOWN = 20  # names in each column of a mismatch
_TORCHVISION = "https://download.pytorch.org/models/"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
_VGG_FILES = {  # convolutions, batch norms -> the published file
    (8, 0): "vgg11-8a719046.pth", (8, 8): "vgg11_bn-6002323d.pth",
    (10, 0): "vgg13-19584684.pth", (10, 10): "vgg13_bn-abd245e5.pth",
    (13, 0): "vgg16-397923af.pth", (13, 13): "vgg16_bn-6c64b313.pth",
    (16, 0): "vgg19-dcbb9e9d.pth", (16, 16): "vgg19_bn-c79401a0.pth",
}  # fmt: skip
_RESNET_BLOCKS = {6: 50, 23: 101, 36: 152}  # of stack conv4


# ------------------------------------------------------------------------------------ the files


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
        f"{path} is no weights file that is known here ({path.stat().st_size:,} bytes, starting with"
        f" {start[:8]!r}): expected a PyTorch state dict (.pth), .safetensors, or Keras' .h5 or"
        " .weights.h5. A web page or a Git LFS pointer saved in its place also looks like this"
    )


# ------------------------------------------------------------------------------------ the layouts


class _Source(NamedTuple):
    """Where a weight of the model is in the file, and how it is turned."""

    name: str
    turn: Callable[[np.ndarray], np.ndarray] = lambda array: array


Plan = dict[str, _Source]  # "params/tower/conv1_1/kernel" -> its source


def _kernel(array: np.ndarray) -> np.ndarray:
    """PyTorch's (out, in, row, column) or (out, in) to (row, column, in, out) or (in, out)."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


_TORCH_NORM = {
    "params/scale": "weight", "params/bias": "bias",
    "batch_stats/mean": "running_mean", "batch_stats/var": "running_var",
}  # fmt: skip
_KERAS_NORM = {
    "params/scale": "gamma", "params/bias": "beta",
    "batch_stats/mean": "moving_mean", "batch_stats/var": "moving_variance",
}  # fmt: skip


def _torchvision(model: Mapping[str, Any], prefix: str = "features") -> Plan:
    """PyTorch numbers the layers of `features`, ReLUs and pools included."""
    plan: Plan = {}
    number, block = 0, "1"
    layers = sorted(p.split("/")[2] for p in model if p.startswith("params/tower/conv"))
    for layer in dict.fromkeys(layers):
        index = layer.removeprefix("conv")
        number += index[0] != block  # the pool that ends a block
        block = index[0]
        tower = f"params/tower/{layer}"
        plan[f"{tower}/kernel"] = _Source(f"{prefix}.{number}.weight", _kernel)
        plan[f"{tower}/bias"] = _Source(f"{prefix}.{number}.bias")
        if f"params/tower/norm{index}/scale" in model:
            number += 1
            for ours, theirs in _TORCH_NORM.items():
                group, leaf = ours.split("/")
                plan[f"{group}/tower/norm{index}/{leaf}"] = _Source(f"{prefix}.{number}.{theirs}")
        number += 2
    return plan


def _bubbliiiing(model: Mapping[str, Any], map_size: tuple[int, int] | None) -> Plan:
    """The VGG inside, and two dense layers of which the first sees maps flattened (c, h, w)."""
    plan = _torchvision(model, "vgg.features")
    channels = [model[path].shape[-1] for path in plan if path.endswith("/bias")][-1] if plan else 1

    def rows(array: np.ndarray) -> np.ndarray:
        h, w = map_size or (math.isqrt(array.shape[-1] // channels),) * 2
        maps = array.reshape(len(array), channels, h, w)
        return maps.transpose(2, 3, 1, 0).reshape(-1, len(array))

    return plan | {
        "params/head/hidden/kernel": _Source("fully_connect1.weight", rows),
        "params/head/hidden/bias": _Source("fully_connect1.bias"),
        "params/head/output/kernel": _Source("fully_connect2.weight", _kernel),
        "params/head/output/bias": _Source("fully_connect2.bias"),
    }


def _keras_resnet(model: Mapping[str, Any]) -> Plan:
    """Layers have Keras' own names; only a batch norm's variables have others."""
    plan: Plan = {}
    for path in model:
        group, *_, layer, leaf = path.split("/")
        if "/tower/backbone/" in path:
            norm = layer.endswith("_bn")
            plan[path] = _Source(f"{layer}/{_KERAS_NORM[f'{group}/{leaf}'] if norm else leaf}")
    return plan


KINDS = ("auto", "torchvision-vgg", "bubbliiiing-vgg", "keras-resnet-v2")
_MARKS = {  # kind -> a name in every such file
    "torchvision-vgg": "features.0.weight",
    "bubbliiiing-vgg": "vgg.features.0.weight",
    "keras-resnet-v2": "conv1_conv/kernel",
}
_SCOPES = {  # kind -> the part of the model that it must fill
    "torchvision-vgg": ("tower/",),
    "bubbliiiing-vgg": ("tower/", "head/"),
    "keras-resnet-v2": ("tower/backbone/",),
}
_FIRST_KERNELS = tuple(_MARKS.values())
# Also in the files, and of no use here: a classifier's layers and PyTorch's step counters.
_UNUSED = ("classifier.", "predictions/", "probs/")


def published(model: Mapping[str, Any]) -> str:
    """Which file holds published weights for a model, and where it is to be had."""
    towers = [p.split("/")[2:] for p in model if p.startswith("params/tower/")]
    if any(layer[0] == "backbone" for layer in towers):
        blocks = {p[1] for p in towers if p[1:] and p[1].startswith("conv4_block")}
        depth = _RESNET_BLOCKS.get(len({name.split("_")[1] for name in blocks}))
        if depth:
            file = f"resnet{depth}v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
            return f"{file} from {_KERAS}{file}"
    count = tuple(
        sum(p[0].startswith(kind) and p[1] in ("kernel", "scale") for p in towers)
        for kind in ("conv", "norm")
    )
    if count in _VGG_FILES:
        return f"{_VGG_FILES[count]} from {_TORCHVISION}{_VGG_FILES[count]}"
    return "(none is published for this tower)"


# ----------------------------------------------------------------------------------- the import


def import_weights(
    params: Any,
    batch_stats: Any,
    path: str | Path,
    *,
    kind: str = "auto",
    sum_colours: bool = False,
    map_size: tuple[int, int] | None = None,
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
        map_size: rows and columns of the tower's last maps; needed only by "bubbliiiing-vgg" with
            images that are not square.

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
        raise ValueError(
            f"{path.absolute()} is not there. Weights for this tower: {published(model)};"
            " download the file yourself and give its path"
        )
    arrays = _named(read_arrays(path))
    kind = _recognise(arrays, path) if kind == "auto" else kind
    plan = _plan(kind, model, map_size)
    turned, others = _turn(plan, arrays, model, sum_colours)
    if differences := _compare(plan, arrays, model, others, kind):
        raise ValueError(
            f"{path}, read as {kind}, does not fit this model:\n{differences}{_hints(others)}"
        )
    for ours, array in turned.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: {plan[ours].name} holds numbers that are not finite")

    def replaced(keys: Any, leaf: Any) -> Any:
        new = turned.get(_path(keys))
        return leaf if new is None else jnp.asarray(new, leaf.dtype)

    both = jax.tree_util.tree_map_with_path(
        replaced, {"params": params, "batch_stats": batch_stats}
    )
    return both["params"], both["batch_stats"]


def _path(keys: Any) -> str:
    return "/".join(str(key.key) for key in keys)


def _flat(tree: Any) -> dict[str, Any]:
    return {_path(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _named(arrays: Arrays) -> Arrays:
    """Without the prefix of PyTorch's DataParallel, and without what no model needs."""
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return {
        name: array
        for name, array in arrays.items()
        if not name.startswith(_UNUSED) and not name.endswith("num_batches_tracked")
    }


def _recognise(arrays: Arrays, path: Path) -> str:
    for kind, mark in _MARKS.items():
        if mark in arrays:
            return kind
    few = ", ".join(list(arrays)[:5])
    raise ValueError(
        f"{path} holds {len(arrays)} arrays ({few}, ...), which are none of the kinds known here:"
        f" {', '.join(KINDS[1:])}"
    )


def _plan(kind: str, model: Mapping[str, Any], map_size: tuple[int, int] | None) -> Plan:
    if kind == "keras-resnet-v2":
        return _keras_resnet(model)
    if kind == "torchvision-vgg":
        return _torchvision(model)
    return _bubbliiiing(model, map_size)


def _turn(
    plan: Plan, arrays: Arrays, model: Mapping[str, Any], sum_colours: bool
) -> tuple[Arrays, list[str]]:
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


def _compare(
    plan: Plan, arrays: Arrays, model: Mapping[str, Any], others: list[str], kind: str
) -> str:
    """What is only in the file, only in the model, and of other shapes, in columns; "" if nothing."""
    wanted = {source.name for ours, source in plan.items() if ours in model}
    scope = _SCOPES[kind]
    extra = [f"{name} {list(a.shape)}" for name, a in arrays.items() if name not in wanted]
    missing = [
        f"{_short(ours)} {list(leaf.shape)}" + (f" ({plan[ours].name})" if ours in plan else "")
        for ours, leaf in model.items()
        if ours.split("/", 1)[1].startswith(scope)
        and not (ours in plan and plan[ours].name in arrays)
    ]
    lines = []
    if extra or missing:
        left = [f"only in the file ({len(extra)})", *(f"  {x}" for x in _some(extra))]
        right = [f"only in the model ({len(missing)})", *(f"  {x}" for x in _some(missing))]
        width = max(map(len, left)) + 3
        lines += [f"{a:{width}}{b}".rstrip() for a, b in zip_longest(left, right, fillvalue="")]
    if others:
        lines.append(f"in both, with other shapes or no floats ({len(others)}), file -> model")
        lines += [f"  {line}" for line in _some(others)]
    return "\n".join(lines)


def _some(names: list[str]) -> list[str]:
    more = len(names) - SHOWN
    return names[:SHOWN] + ([f"... and {more} more"] if more > 0 else [])


def _short(path: str) -> str:
    return path.removeprefix("params/")


def _hints(others: list[str]) -> str:
    text = ""
    if any(line.startswith(_FIRST_KERNELS) for line in others):
        text += (
            "\nThe first kernel is for another number of colours: of weights for colour, build the"
            " tower with replicate_grey=True, or import them with sum_colours=True."
        )
    if any(line.startswith("fully_connect1.weight") for line in others):
        text += (
            "\nfully_connect1 is for another image size, or for images that are not square: give"
            " map_size, the rows and columns of the tower's last maps (h // 32, w // 32)."
        )
    return text
