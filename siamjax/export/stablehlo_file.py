"""StableHLO files: `jax.export`, for a CPU, an NVIDIA GPU and a TPU in one file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.export
import numpy as np

from siamjax.export.graphs import ExportError, Graph

PLATFORMS = ("cpu", "cuda", "tpu")
SUFFIX = ".stablehlo"
Batches = dict[str, list[tuple[np.ndarray, ...]]]  # by graph: inputs, or outputs, of each batch

# Runs in a process of its own, where neither siamjax nor flax can be imported.
_ELSEWHERE = """
import sys
sys.modules["siamjax"] = sys.modules["flax"] = None
import jax, numpy
from jax import export
folder, asked, answers = sys.argv[1:]
results, programs = {}, {}
with numpy.load(asked, allow_pickle=False) as inputs:
    keys = sorted({key.rpartition("/")[0] for key in inputs.files})
    for key in keys:
        name = key.partition("/")[0]
        if name not in programs:
            with open(f"{folder}/{name}.stablehlo", "rb") as file:
                programs[name] = jax.jit(export.deserialize(bytearray(file.read())).call)
        count = sum(k.rpartition("/")[0] == key for k in inputs.files)
        outputs = programs[name](*(inputs[f"{key}/{i}"] for i in range(count)))
        results |= {f"{key}/{i}": numpy.asarray(output) for i, output in enumerate(outputs)}
numpy.savez(answers, **results)
"""


def exported(graph: Graph) -> jax.export.Exported:
    """The program of a graph, lowered for every platform.

    For a batch of any size layers take the plain path, not the one that is quick on this machine.
    Products are in full float32, which GPUs and TPUs would otherwise round to fewer bits.
    """
    with jax.default_matmul_precision("float32"):
        function = jax.jit(lambda *inputs: graph.function(*inputs))
        return jax.export.export(function, platforms=PLATFORMS)(*graph.specs())


def write(graphs: Sequence[Graph], folder: Path) -> None:
    """`tower.stablehlo`, `head.stablehlo`, `pair.stablehlo`."""
    for graph in graphs:
        (folder / f"{graph.name}{SUFFIX}").write_bytes(exported(graph).serialize())


def run(folder: Path, inputs: Batches) -> Batches:
    """The outputs of the files of a folder, from a fresh process that has JAX and no siamjax.

    Raises:
        ExportError: if that process fails, with what it said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        asked, answers = Path(scratch, "asked.npz"), Path(scratch, "answers.npz")
        flat = {
            f"{name}/{i}/{j}": array
            for name, batches in inputs.items()
            for i, batch in enumerate(batches)
            for j, array in enumerate(batch)
        }
        np.savez(asked, **flat)  # pyright: ignore[reportArgumentType]
        command = [sys.executable, "-P", "-c", _ELSEWHERE, str(folder), str(asked), str(answers)]
        # On the platform of the live model, beside it in one GPU's memory.
        environment = os.environ | {
            "JAX_PLATFORMS": jax.default_backend(),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=scratch)
        if done.returncode:
            raise ExportError(
                f"the StableHLO files do not run in a process of their own:\n{done.stderr[-2000:]}"
            )
        with np.load(answers, allow_pickle=False) as found:
            return _nested({key: found[key] for key in found.files})


def _nested(flat: dict[str, np.ndarray]) -> Batches:
    batches: dict[str, dict[int, dict[int, np.ndarray]]] = {}
    for key, array in flat.items():
        name, i, j = key.split("/")
        batches.setdefault(name, {}).setdefault(int(i), {})[int(j)] = array
    return {
        name: [tuple(outputs[j] for j in sorted(outputs)) for _, outputs in sorted(batch.items())]
        for name, batch in batches.items()
    }
