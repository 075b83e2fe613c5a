"""ONNX files: a plain form of a graph, through jax2onnx, checked with onnxruntime."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend.core import Literal

from siamjax.export.graphs import ExportError, Graph
from siamjax.export.stablehlo_file import Batches

OPSET = 21
SUFFIX = ".onnx"
_CALLS = ("jit", "pjit", "custom_jvp_call", "custom_vjp_call")  # functions inside a function


def require() -> None:
    """Raises an `ExportError` where the files cannot be written and checked."""
    try:
        with _quiet():
            import jax2onnx  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ExportError(
            f"ONNX files need {error.name}, which is not installed: pip install 'siamjax[onnx]'"
        ) from error


def model(graph: Graph) -> Any:
    """The `onnx.ModelProto` of a graph.

    Raises:
        ExportError: if jax2onnx cannot convert an operation of it.
    """
    import onnx  # pyright: ignore[reportMissingImports]

    specs = graph.specs()
    with _quiet():
        import jax2onnx  # pyright: ignore[reportMissingImports]

        try:
            proto = jax2onnx.to_onnx(
                plain(graph.function, specs),
                specs,
                model_name=graph.name,
                opset=OPSET,
                input_names=[port.name for port in graph.inputs],
                output_names=[port.name for port in graph.outputs],
            )
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else ""
            raise ExportError(
                f"jax2onnx cannot convert the {graph.name} ({type(error).__name__}: {reason}):"
                " use --format=stablehlo"
            ) from error
    _share_constants(proto)
    del proto.graph.value_info[:]  # of jax2onnx, wrong for some; whoever runs the file infers them
    onnx.checker.check_model(proto)
    return proto


def write(graphs: Sequence[Graph], folder: Path) -> None:
    """`tower.onnx`, `head.onnx`, `pair.onnx`."""
    for graph in graphs:
        (folder / f"{graph.name}{SUFFIX}").write_bytes(model(graph).SerializeToString())


def run(folder: Path, inputs: Batches) -> Batches:
    """The outputs of the files of a folder, by onnxruntime on one CPU thread."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    found: Batches = {}
    for name, batches in inputs.items():
        session = onnxruntime.InferenceSession(
            folder / f"{name}{SUFFIX}", options, providers=["CPUExecutionProvider"]
        )
        names = [port.name for port in session.get_inputs()]
        found[name] = [
            tuple(map(np.asarray, session.run(None, dict(zip(names, batch, strict=True)))))
            for batch in batches
        ]
    return found


def plain(function: Callable, specs: Sequence[Any]) -> Callable:
    """The function as operations of `jax.lax` that jax2onnx converts as they are.

    Functions inside it are taken apart (those with a gradient of their own too), what depends on
    no input is computed now, and two operations that jax2onnx converts wrongly where the batch is
    symbolic are written another way: padding, and the maximum over a window.
    """
    closed = jax.make_jaxpr(function)(*specs)
    return lambda *inputs: tuple(_evaluate(closed.jaxpr, closed.consts, inputs))


def _evaluate(jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        operands = [value(v) for v in equation.invars]
        results = _apply(equation.primitive, equation.params, operands)
        known.update(zip(equation.outvars, results, strict=True))
    return [value(v) for v in jaxpr.outvars]


def _apply(primitive: Any, params: dict[str, Any], operands: list[Any]) -> Sequence[Any]:
    if primitive.name in _CALLS:
        inner = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
        return _evaluate(inner.jaxpr, inner.consts, operands)
    if primitive.name == "pad":
        return [_pad(operands[0], operands[1], params["padding_config"])]
    if primitive.name == "reduce_window_max" and set(params["base_dilation"]) == {1}:
        return [_window_max(operands[0], params)]
    fixed = not any(isinstance(operand, Tracer) for operand in operands)
    if fixed and not any(_symbolic(value) for value in params.values()):
        with jax.ensure_compile_time_eval():
            results = primitive.bind(*operands, **params)
    else:
        results = primitive.bind(*operands, **params)
    return results if primitive.multiple_results else [results]


def _symbolic(value: Any) -> bool:
    return isinstance(value, tuple) and any(jax.export.is_symbolic_dim(v) for v in value)


def _pad(x: Any, filler: Any, sides: Sequence[tuple[int, int, int]]) -> Any:
    if any(low < 0 or high < 0 or inside for low, high, inside in sides):
        raise ExportError(f"a padding of {sides} has no plain form")
    # jnp.pad, not lax.pad: jax2onnx 0.13 converts the latter only where the batch is a number.
    return jnp.pad(x, [(low, high) for low, high, _ in sides], constant_values=float(filler))


def _window_max(x: Any, params: dict[str, Any]) -> Any:
    """The largest of the shifted copies of x, one for each place in the window."""
    window, strides = params["window_dimensions"], params["window_strides"]
    if any(side for pair in params["padding"] for side in pair):
        x = _pad(x, -np.inf, [(*pair, 0) for pair in params["padding"]])
    spread = params["window_dilation"]
    reach = [(w - 1) * d for w, d in zip(window, spread, strict=True)]
    largest = None
    for place in np.ndindex(*window):
        start = [int(p) * d for p, d in zip(place, spread, strict=True)]
        limit = [size - r + s for size, r, s in zip(x.shape, reach, start, strict=True)]
        view = lax.slice(x, start, limit, strides)
        largest = view if largest is None else jnp.maximum(largest, view)
    return largest


def _share_constants(proto: Any) -> None:
    """One copy of each array: a pair runs the same weights twice."""
    first: dict[Any, str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for tensor in proto.graph.initializer:
        key = tensor.data_type, tuple(tensor.dims), tensor.raw_data
        if not tensor.raw_data or first.setdefault(key, tensor.name) == tensor.name:
            kept.append(tensor)
        else:
            renamed[tensor.name] = first[key]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what jax2onnx prints, logs and warns of: its own plugins, most of them unused."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
