"""A run to a folder of files, checked against the run before anyone sees them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from siamjax import config as configuration
from siamjax.export import npz_file, onnx_file, stablehlo_file, texts
from siamjax.export.check import Difference, differences, images_for, inputs_and_outputs
from siamjax.export.graphs import ExportError, Graph, graphs, portable_encoder
from siamjax.inference import Comparator
from siamjax.training.workdir import replacing

if TYPE_CHECKING:
    from siamjax.inference import OneImage

FORMATS = ("stablehlo", "onnx", "npz")
KIND = "siamjax export"
ABOUT = "about.json"
_PROGRAMS: dict[str, ModuleType] = {"stablehlo": stablehlo_file, "onnx": onnx_file}
_LIBRARIES = ("siamjax", "jax", "jaxlib", "flax", "numpy")
_ONNX_LIBRARIES = ("jax2onnx", "onnx", "onnxruntime")


class Exported(NamedTuple):
    """What was written.

    Attributes:
        folder: where.
        differences: between the files and the live model, by format; none of npz, which is equal.
        weights: how many numbers the run has.
        notes: what the user should know.
    """

    folder: Path
    differences: dict[str, list[Difference]]
    weights: int
    notes: tuple[str, ...]


def export(
    comparator: Comparator,
    out: str | os.PathLike[str],
    formats: Sequence[str] = ("stablehlo",),
    check: Sequence[OneImage] = (),
) -> Exported:
    """Writes a run as files that need no siamjax.

    Every format is run and compared with the live model on batches of 1, 3 and 8 images first,
    StableHLO in a process of its own. `out` appears as a whole, or not at all.

    Args:
        comparator: of the run.
        out: a folder; one that an export wrote before is replaced.
        formats: some of `FORMATS`.
        check: images to compare on, each for several; none: random ones.

    Raises:
        ExportError: if a package is missing, an operation has no form in a format, the files do
            not give what the run gives, or `out` holds something else.
        ValueError: if an image cannot be read.
    """
    formats = list(dict.fromkeys(formats))
    if not formats or (unknown := sorted(set(formats) - set(FORMATS))):
        named = ", ".join(unknown) if formats else "none"
        raise ExportError(f"the format must be some of {', '.join(FORMATS)}; got {named}")
    programs = {kind: _PROGRAMS[kind] for kind in formats if kind in _PROGRAMS}
    if "onnx" in programs:
        onnx_file.require()
    out = Path(out).absolute()
    _refuse_other(out)
    encoder = portable_encoder(comparator)
    notes = []
    if encoder is not comparator.encoder:
        notes.append(
            "the run computes in half precision; the exported programs compute in float32, and are"
            " compared with the run's model in float32"
        )
    parts, measured = graphs(comparator), {}
    pixels = images_for(comparator, check)
    with replacing(out, _refuse_other) as folder:
        if programs:
            inputs, expected = inputs_and_outputs(encoder, pixels)
        for kind, program in programs.items():
            program.write(parts, folder)
            measured[kind] = differences(parts, program.run(folder, inputs), expected)
        if "npz" in formats:
            arrays = npz_file.arrays(comparator)
            npz_file.write(arrays, folder)
            npz_file.check(arrays, folder)
        _describe(comparator, parts, folder, formats, measured, notes)
    weights = sum(leaf.size for leaf in jax.tree.leaves(comparator.encoder.weights))
    return Exported(out, measured, weights, tuple(notes))


def _describe(
    comparator: Comparator,
    parts: Sequence[Graph],
    folder: Path,
    formats: Sequence[str],
    measured: dict[str, list[Difference]],
    notes: Sequence[str],
) -> None:
    """Scripts, README.txt and, last, about.json, which names and digests every other file."""
    preprocess, config = comparator.preprocess, comparator.config
    for kind in formats:
        (folder / f"run_{kind}.py").write_text(texts.script(kind, preprocess), encoding="utf-8")
    width = parts[0].outputs[0].shape[0]
    text = texts.readme(comparator.origin, preprocess, formats, width)
    (folder / "README.txt").write_text(text, encoding="utf-8")
    files = {path.name: _digest(path) for path in sorted(folder.iterdir())}
    about: dict[str, Any] = {
        "kind": KIND,
        "version": 1,
        "origin": comparator.origin,
        "fingerprint": comparator.fingerprint,
        "formats": list(formats),
        "notes": list(notes),
        "graphs": {
            graph.name: {
                "inputs": [port.to_dict() for port in graph.inputs],
                "outputs": [port.to_dict() for port in graph.outputs],
            }
            for graph in parts
        },
        "preprocess": preprocess.to_dict(),
        "card": comparator.card.to_dict(),
        "config": None if config is None else json.loads(configuration.to_json(config)),
        "versions": _versions(formats),
        "differences": {kind: [d._asdict() for d in found] for kind, found in measured.items()},
        "files": files,
    }
    if "stablehlo" in formats:
        about["platforms"] = list(stablehlo_file.PLATFORMS)
    if "onnx" in formats:
        about["opset"] = onnx_file.OPSET
    (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _versions(formats: Sequence[str]) -> dict[str, str]:
    names = (*_LIBRARIES, *(_ONNX_LIBRARIES if "onnx" in formats else ()))
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _digest(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _refuse_other(out: Path) -> None:
    """Raises an `ExportError` unless out is free, empty, or holds an export and nothing else."""
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        raise ExportError(f"{out} is there and is not a folder: choose another")
    present = {path.name for path in out.iterdir()}
    if not present:
        return
    try:
        about = json.loads((out / ABOUT).read_text(encoding="utf-8"))
        ours = {ABOUT, *about["files"]} if about["kind"] == KIND else set()
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    if not ours:
        raise ExportError(f"{out} is there and is not an export: choose another folder")
    if others := sorted(present - ours):
        raise ExportError(
            f"{out} is an export that also holds {', '.join(others[:5])}, which would be lost: move"
            " that elsewhere, or choose another folder"
        )
