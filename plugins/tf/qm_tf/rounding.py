"""Weights rounded so that the results of their layers stay, not each weight for itself.

The rounding error of one weight is made good by the weights after it, by how their inputs go together in the samples;
what is left of it on average goes into the bias.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from qm.numerics import Grid, Moments, dequantize, nearest_results, places
from qm.plugin import Array, Dataset, Plan, Progress, unique
from qm_tf import flat, name, runtime
from qm_tf.graph import Graph
from qm_tf.layer import Found
from qm_tf.model import LiteModel

SAMPLES = 256
POSITIONS = 256
"""How many places of an image are looked at for one sample."""

WIDEST = 4096
"""Layers with more inputs to one output are rounded to the nearest: the work grows with the third power."""

_MEMORY = 1 << 25
"""How many products are kept at a time, in numbers of 8 bytes."""


def fitting(model: LiteModel, plan: Plan, *, most_bits: int) -> list[Found]:
    """The layers that can be rounded so: a matrix times the data, whose weight is theirs alone."""
    graph = model.graph
    users = Counter(graph.tensor(w).buffer for f in model.found for w in f.weights)
    return [
        f
        for f in model.found
        if f.kind in ("CONV_2D", "FULLY_CONNECTED")
        and plan[f.name].is_integer
        and plan[f.name].weight_bits <= most_bits
        and users[graph.tensor(f.weights[0]).buffer] == 1
        and _inputs(graph, f) <= WIDEST
        and (f.kind != "CONV_2D" or graph.shape(f.weights[0])[3] == graph.shape(f.data)[3])
    ]


def rounded(
    model: LiteModel,
    plan: Plan,
    layers: Sequence[Found],
    bounds: Mapping[int, Array],
    data: Dataset,
    *,
    progress: Progress,
) -> LiteModel:
    """The float model with the weights of the layers on their grids, and biases that make good what is left."""
    native = copy.copy(model.native)
    native.buffers = list(native.buffers)
    native.subgraphs = [copy.copy(native.subgraphs[0]), *native.subgraphs[1:]]
    main = native.subgraphs[0]
    main.tensors, main.operators = list(main.tensors), list(main.operators)
    for part in _portions(model.graph, layers):
        moments = _observed(model, part, data, progress)
        for f in progress.track(part, "rounding weights", total=len(part)):
            weight = np.asarray(model.graph.array(f.weights[0]), np.float64)
            rows = weight.reshape(len(weight), -1)
            grid = _grid(bounds[f.weights[0]], plan[f.name].weight_bits, len(rows))
            mean, products = moments[f.name].means()
            made = dequantize(nearest_results(rows, products, grid), grid)
            _set_weight(native, f, made.reshape(weight.shape))
            _set_bias(native, model, f, (rows - made) @ mean)
    return model.with_content(flat.serialize(native))


def _grid(bounds: Array, bits: int, rows: int) -> Grid:
    """The grid of a weight whose rows reach up to the bounds; LiteRT's integers of 4 bits use the smallest one too."""
    steps = np.broadcast_to(bounds.reshape(-1) / ((1 << (bits - 1)) - 1), rows).astype(np.float32)
    return Grid(scale=steps, bits=bits, signed=True, narrow=bits >= 8, axis=0)


def _inputs(graph: Graph, f: Found) -> int:
    return int(np.prod(graph.shape(f.weights[0])[1:]))


def _portions(graph: Graph, layers: Sequence[Found]) -> Iterator[list[Found]]:
    """The layers in parts whose products fit in memory together."""
    part: list[Found] = []
    for f in layers:
        if part and sum(_inputs(graph, p) ** 2 for p in [*part, f]) > _MEMORY:
            yield part
            part = []
        part.append(f)
    if part:
        yield part


def _observed(model: LiteModel, layers: Sequence[Found], data: Dataset, progress: Progress) -> dict[str, Moments]:
    graph = model.graph
    fed = {t: graph.name(t) for t in graph.inputs}
    interpreter = model.interpreter(extra_outputs=sorted({f.data for f in layers if f.data not in fed}))
    moments = {f.name: Moments(_inputs(graph, f)) for f in layers}
    total = min(len(data), SAMPLES)
    for number, batch in enumerate(progress.track(islice(data, SAMPLES), "watching inputs", total=total)):
        values = runtime.run(interpreter, batch)
        for f in layers:
            given = np.asarray(batch[fed[f.data]] if f.data in fed else values[f.data], np.float32)
            moments[f.name].update(rows_of(graph, f, given, number))
    return moments


def rows_of(graph: Graph, f: Found, data: Array, number: int = 0, *, most: int = POSITIONS) -> NDArray[np.float32]:
    """What outputs of the layer are products of, ``(outputs, inputs)``, in the order of the weight.

    Of an image at most about ``most`` places are taken, others for each number.
    """
    shape = graph.shape(f.weights[0])
    if f.kind == "FULLY_CONNECTED":
        rows = data.reshape(-1, shape[-1])
        return rows[places(len(rows), number, most)]
    options = f.op.native.builtinOptions
    steps, dilations = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    if options.padding == schema.Padding.SAME:
        data = np.pad(data, ((0, 0), *map(_margin, data.shape[1:3], shape[1:3], steps, dilations), (0, 0)))
    spans = tuple((k - 1) * d + 1 for k, d in zip(shape[1:3], dilations, strict=True))
    views = np.lib.stride_tricks.sliding_window_view(data, spans, (1, 2))
    views = views[:, :: steps[0], :: steps[1], :, :: dilations[0], :: dilations[1]]
    at = places(views.shape[1] * views.shape[2], number, most)
    taken = views[:, at // views.shape[2], at % views.shape[2]]  # Only these are copied.
    made: NDArray[np.float32] = taken.transpose(0, 1, 3, 4, 2).reshape(-1, int(np.prod(shape[1:])))
    return made


def _margin(length: int, kernel: int, step: int, dilation: int) -> tuple[int, int]:
    """The zeros before and after, as TensorFlow's SAME has them."""
    missing = max((-(-length // step) - 1) * step + (kernel - 1) * dilation + 1 - length, 0)
    return missing // 2, missing - missing // 2


def _buffer(native: Any, values: Array) -> int:
    made = schema.BufferT()
    made.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
    native.buffers.append(made)
    return len(native.buffers) - 1


def _set_weight(native: Any, f: Found, values: Array) -> None:
    tensors = native.subgraphs[0].tensors
    tensors[f.weights[0]] = tensor = copy.copy(tensors[f.weights[0]])
    tensor.buffer = _buffer(native, values)


def _set_bias(native: Any, model: LiteModel, f: Found, change: Array) -> None:
    """A bias of its own for the layer: several may share one of zeros."""
    main = native.subgraphs[0]
    there = model.graph.array(f.bias) if f.bias >= 0 else None
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.hasRank = [len(change)], schema.TensorType.FLOAT32, True
    names = [flat.text(t.name) for t in main.tensors]
    tensor.name = unique([*names, f.name + name.BIAS])[-1].encode()
    tensor.buffer = _buffer(native, change if there is None else there + change)
    main.tensors.append(tensor)
    main.operators[f.op.number] = op = copy.copy(f.op.native)
    inputs = [*f.op.inputs, *[-1] * (f.place.bias + 1 - len(f.op.inputs))]
    inputs[f.place.bias] = len(main.tensors) - 1
    op.inputs = inputs
