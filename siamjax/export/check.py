"""Whether written files give what the live model gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from siamjax.evaluation.encoder import Encoder, scores
from siamjax.export.graphs import ExportError, Graph
from siamjax.export.stablehlo_file import Batches
from siamjax.inference import Comparator

if TYPE_CHECKING:
    from siamjax.inference import OneImage

SIZES = (1, 3, 8)  # of the batches
TOLERANCE = 1e-5


class Difference(NamedTuple):
    """The largest difference of an output, over all batches.

    Attributes:
        graph, output: whose.
        largest: of a similarity as it is; of an embedding or a score, as a share of the largest
            value.
    """

    graph: str
    output: str
    largest: float


def images_for(
    comparator: Comparator, images: Sequence[OneImage] = (), seed: int = 0
) -> UInt8[np.ndarray, "n h w c"]:
    """Images to compare with: those given, or noise and random blocks."""
    if images:
        return np.stack([comparator.pixels(image) for image in images])
    shape = (*comparator.preprocess.size, comparator.preprocess.channels)
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (6, *shape), np.uint8)
    coarse = rng.integers(0, 256, (6, -(-shape[0] // 8), -(-shape[1] // 8), shape[2]), np.uint8)
    blocks = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, : shape[0], : shape[1]]
    return np.concatenate([noise, blocks])


def inputs_and_outputs(
    encoder: Encoder, pixels: UInt8[np.ndarray, "n h w c"]
) -> tuple[Batches, Batches]:
    """What each graph is given, and what the live model makes of it, for batches of `SIZES`."""
    inputs: Batches = {"tower": [], "head": [], "pair": []}
    outputs: Batches = {"tower": [], "head": [], "pair": []}
    with jax.default_matmul_precision("float32"):  # as the files have it
        for i, size in enumerate(SIZES):
            rows = np.arange(size) + i
            left, right = pixels[rows % len(pixels)], pixels[(2 * rows + 1) % len(pixels)]
            zl, zr = encoder.embed(left), encoder.embed(right)
            output = encoder.compare(zl, zr)
            similarity = encoder.similarity(output)
            inputs["tower"].append((left,))
            outputs["tower"].append((zl,))
            inputs["head"].append((zl, zr))
            outputs["head"].append((similarity, scores(output)))
            inputs["pair"].append((left, right))
            outputs["pair"].append((similarity,))
    return inputs, outputs


def differences(graphs: Sequence[Graph], found: Batches, expected: Batches) -> list[Difference]:
    """The largest difference of every output.

    Raises:
        ExportError: if one is beyond `TOLERANCE`, not a number, or has another shape.
    """
    measured = []
    for graph in graphs:
        for i, port in enumerate(graph.outputs):
            ours = [batch[i] for batch in expected[graph.name]]
            theirs = [batch[i] for batch in found[graph.name]]
            if [a.shape for a in ours] != [a.shape for a in theirs]:
                shapes = ", ".join(str(list(a.shape)) for a in theirs)
                raise ExportError(f"the exported {graph.name} gives {port.name} as {shapes}")
            scale = 1.0
            if port.name != "similarity":
                scale = max(float(np.abs(a).max()) for a in ours) or 1.0
            gaps = [float(np.abs(a - b).max()) / scale for a, b in zip(ours, theirs, strict=True)]
            measured.append(Difference(graph.name, port.name, float(np.max(gaps))))
    beyond = [d for d in measured if not d.largest <= TOLERANCE]
    if beyond:
        told = ", ".join(f"{d.output} of the {d.graph} by {d.largest:.2g}" for d in beyond)
        raise ExportError(
            f"the exported files do not give what the run gives: {told}, where at most"
            f" {TOLERANCE:g} is rounding; nothing was written"
        )
    return measured
