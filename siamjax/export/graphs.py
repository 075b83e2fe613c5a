"""The three functions that leave the house: tower, head, and both in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from siamjax.evaluation.encoder import Encoder
from siamjax.inference import Comparator
from siamjax.models import Ensemble, Siamese
from siamjax.types import Distance, PairOutput

BATCH = "b"  # the symbolic size


class ExportError(ValueError):
    """A run that cannot be exported, or an export that does not give what the run gives."""


class Port(NamedTuple):
    """An input or an output.

    Attributes:
        name: of it.
        shape: without the batch, which comes first.
        dtype: by NumPy's name.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"name": self.name, "shape": [BATCH, *self.shape], "dtype": self.dtype}


class Graph(NamedTuple):
    """A function of batches, weights included.

    Attributes:
        name: "tower", "head" or "pair".
        function: of as many arrays as there are inputs; gives a tuple.
        inputs, outputs: in order.
    """

    name: str
    function: Callable[..., tuple[Array, ...]]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def specs(self) -> list[jax.ShapeDtypeStruct]:
        """The inputs with one symbolic batch size."""
        (b,) = jax.export.symbolic_shape(BATCH)
        return [jax.ShapeDtypeStruct((b, *port.shape), port.dtype) for port in self.inputs]


def portable_encoder(comparator: Comparator) -> Encoder:
    """The run's model, computing in float32: half precision is not the same on any two machines."""
    live = comparator.encoder
    model = _in_float32(live.model)
    return live if model is live.model else Encoder(model, live.weights, live.card)


def _in_float32(model: Siamese | Ensemble) -> Siamese | Ensemble:
    """The model itself where it computes in float32 already."""
    if isinstance(model, Ensemble):
        members = tuple(_in_float32(member) for member in model.members)
        same = all(new is old for new, old in zip(members, model.members, strict=True))
        return model if same else model.clone(members=members)
    tower: Any = model.tower
    if getattr(tower, "dtype", jnp.float32) == jnp.float32:
        return model
    return model.clone(tower=tower.clone(dtype=jnp.float32))


def graphs(comparator: Comparator) -> tuple[Graph, Graph, Graph]:
    """Tower, head and pair of a run.

    The tower scales `uint8` itself, and the head calibrates: its similarity is that of
    `Comparator.similarity`, its score what the calibration is of (a logit or a negated distance).
    """
    encoder, preprocess = portable_encoder(comparator), comparator.preprocess
    weights = jax.tree.map(jnp.asarray, encoder.weights)
    apply: Any = encoder.model.apply
    size = (*preprocess.size, preprocess.channels)

    def embed(images: Array) -> Array:
        return apply(weights, images, method="embed")

    @jax.vmap  # so that the shape checks, which broadcast, meet no symbolic size
    def head(left: Array, right: Array) -> tuple[Array, Array]:
        output = apply(weights, left, right, method="compare")
        return _similarity(output, encoder.card.calibration), _score(output)

    # Each side by itself: twice a symbolic size is more than the ONNX converter understands.
    def pair(left: Array, right: Array) -> tuple[Array]:
        return head(embed(left), embed(right))[:1]

    one = jax.ShapeDtypeStruct((1, *size), jnp.uint8)
    width = jax.eval_shape(embed, one).shape[1:]
    images = {name: Port(name, size, "uint8") for name in ("images", "left", "right")}
    sides = Port("left", width, "float32"), Port("right", width, "float32")
    similarity, score = Port("similarity", (), "float32"), Port("score", (), "float32")
    embedding = Port("embedding", width, "float32")
    return (
        Graph("tower", lambda x: (embed(x),), (images["images"],), (embedding,)),
        Graph("head", head, sides, (similarity, score)),
        Graph("pair", pair, (images["left"], images["right"]), (similarity,)),
    )


def _score(output: PairOutput) -> Array:
    return -output.value if isinstance(output, Distance) else output.value


def _similarity(output: PairOutput, calibration: tuple[float, float] | None) -> Array:
    if calibration is None:
        return output.similarity
    slope, offset = calibration
    # As siamjax.evaluation.decision.calibrated: no overflow, whatever the score.
    return 0.5 * (1 + jnp.tanh(0.5 * (_score(output) * slope + offset)))
