"""Where each weight of a model lies in the files that others publish, and how it is turned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Shapes = Mapping[str, Any]  # "params/tower/conv1_1/kernel" -> anything with a shape


class Source(NamedTuple):
    """One array of a file, and what makes a weight of it."""

    name: str
    turn: Callable[[np.ndarray], np.ndarray] = lambda array: array


Plan = dict[str, Source]  # by the weight's path in the model


class Layout(NamedTuple):
    """A kind of file.

    Attributes:
        goes_with: the tower (and head) that it has weights for.
        first: the name of the first kernel; every such file has it.
        scope: which parts of the model it has weights for.
        unused: how names begin that may be in the file and have no place in the model.
        plan: `model -> Plan`.
    """

    goes_with: str
    first: str
    scope: tuple[str, ...]
    unused: tuple[str, ...]
    plan: Callable[[Shapes], Plan]


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


def _features(model: Shapes, prefix: str) -> Plan:
    """PyTorch numbers all layers of `features`: ReLUs and pools too."""
    plan: Plan = {}
    number, block = 0, "1"
    names = (path.split("/")[2] for path in model if path.startswith("params/tower/conv"))
    for index in sorted({name.removeprefix("conv") for name in names}):  # 1_1, 1_2, 2_1, ...
        number += index[0] != block  # the pool that ended the last block
        block = index[0]
        plan[f"params/tower/conv{index}/kernel"] = Source(f"{prefix}.{number}.weight", _kernel)
        plan[f"params/tower/conv{index}/bias"] = Source(f"{prefix}.{number}.bias")
        if f"params/tower/norm{index}/scale" in model:
            number += 1
            for ours, theirs in _TORCH_NORM.items():
                group, leaf = ours.split("/")
                plan[f"{group}/tower/norm{index}/{leaf}"] = Source(f"{prefix}.{number}.{theirs}")
        number += 2  # past the ReLU
    return plan


def _torchvision(model: Shapes) -> Plan:
    return _features(model, "features")


def _bubbliiiing(model: Shapes) -> Plan:
    """The VGG inside, and two dense layers of which the first sees maps flattened (c, h, w)."""
    tower = _features(model, "vgg.features")
    channels = [model[path].shape[-1] for path in tower if path.endswith("/bias")][-1:] or [1]

    def rows(array: np.ndarray) -> np.ndarray:
        maps = array.reshape(len(array), channels[0], -1)  # rows and columns stay as they are
        return maps.transpose(2, 1, 0).reshape(-1, len(array))

    return tower | {
        "params/head/hidden/kernel": Source("fully_connect1.weight", rows),
        "params/head/hidden/bias": Source("fully_connect1.bias"),
        "params/head/output/kernel": Source("fully_connect2.weight", _kernel),
        "params/head/output/bias": Source("fully_connect2.bias"),
    }


def _keras_resnet(model: Shapes) -> Plan:
    """Layers have Keras' own names; only a batch norm's variables have others."""
    plan: Plan = {}
    for path in model:
        if "/tower/backbone/" in path:
            group, *_, layer, leaf = path.split("/")
            theirs = _KERAS_NORM[f"{group}/{leaf}"] if layer.endswith("_bn") else leaf
            plan[path] = Source(f"{layer}/{theirs}")
    return plan


LAYOUTS = {
    "torchvision-vgg": Layout(
        "tower vgg", "features.0.weight", ("tower/",), ("classifier.",), _torchvision
    ),
    "bubbliiiing-vgg": Layout(
        "tower vgg, head l1_mlp", "vgg.features.0.weight", ("tower/", "head/"), (), _bubbliiiing
    ),
    "keras-resnet-v2": Layout(
        "tower resnet_v2",
        "conv1_conv/kernel",
        ("tower/backbone/",),
        ("predictions/", "probs/"),
        _keras_resnet,
    ),
}

_TORCHVISION = "https://download.pytorch.org/models/"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
_VGG_FILES = {  # convolutions, batch norms -> the published file
    (8, 0): "vgg11-8a719046.pth", (8, 8): "vgg11_bn-6002323d.pth",
    (10, 0): "vgg13-19584684.pth", (10, 10): "vgg13_bn-abd245e5.pth",
    (13, 0): "vgg16-397923af.pth", (13, 13): "vgg16_bn-6c64b313.pth",
    (16, 0): "vgg19-dcbb9e9d.pth", (16, 16): "vgg19_bn-c79401a0.pth",
}  # fmt: skip
_RESNET_DEPTHS = {16: 50, 33: 101, 50: 152}  # blocks -> depth


def published(model: Shapes) -> str:
    """The name of the file that holds published weights for a model, and its address; or ""."""

    def count(start: str, end: str) -> int:
        return sum(path.startswith(start) and path.endswith(end) for path in model)

    depth = _RESNET_DEPTHS.get(count("params/tower/backbone/", "_3_conv/kernel"))
    if depth:
        file = f"resnet{depth}v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
        return f"{file} from {_KERAS}{file}"
    layers = count("params/tower/conv", "/kernel"), count("params/tower/norm", "/scale")
    file = _VGG_FILES.get(layers, "")
    return file and f"{file} from {_TORCHVISION}{file}"
