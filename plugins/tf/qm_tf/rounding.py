"""Weights rounded so that the results of their layers stay, not each weight for itself.

The rounding error of one weight is made good by the weights after it, by how their inputs go together in the samples;
what is left of it on average goes into the bias.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qm.numerics import Grid
from qm.plugin import Array, Dataset, Plan, Progress, fitting, unique
from qm_tf import flat, matrix, name, runtime
from qm_tf.graph import Graph
from qm_tf.layer import Found
from qm_tf.model import LiteModel

Bound = Callable[[Found, "Array | None"], Array]
"""The largest magnitudes that the integers of a layer's weight cover, by the power of the inputs where it is known."""


def fitting_layers(model: LiteModel, plan: Plan, wishes: fitting.Wishes) -> list[Found]:
    """The layers whose inputs are worth a look: matrices times the data, whose weight is theirs alone."""
    graph = model.graph
    users = Counter(graph.tensor(w).buffer for f in model.found for w in f.weights)
    return [
        f
        for f in model.found
        if f.kind in matrix.KINDS
        and plan[f.name].is_integer
        and wishes.watches(plan[f.name].weight_bits)
        and users[graph.tensor(f.weights[0]).buffer] == 1
    ]


def rounded(
    model: LiteModel,
    plan: Plan,
    layers: Sequence[Found],
    bound: Bound,
    data: Dataset,
    wishes: fitting.Wishes,
    *,
    progress: Progress,
) -> tuple[LiteModel, dict[int, Array]]:
    """The float model with the weights of the layers on their grids, and biases that make good what is left; and how
    far the grids reach, by tensor."""
    native = copy.copy(model.native)
    native.buffers = list(native.buffers)
    native.subgraphs = [copy.copy(native.subgraphs[0]), *native.subgraphs[1:]]
    main = native.subgraphs[0]
    main.tensors, main.operators = list(main.tensors), list(main.operators)
    graph, bounds = model.graph, {}
    products = [_product(graph, f, plan[f.name].weight_bits, wishes) for f in layers]
    for part in fitting.portions(products):
        _watch(model, [(layers[i], products[i]) for i in part], data, progress)
        for i in progress.track(part, "rounding weights", total=len(part)):
            f, product = layers[i], products[i]
            power = product.power() if wishes.reach(product.bits) == "hessian" else None
            bounds[f.weights[0]] = most = bound(f, None if power is None else matrix.weight(graph, f, power))
            grid = _grid(most, product)
            integers = product.integers(grid, wishes)
            _set_weight(native, f, matrix.weight(graph, f, product.values(integers, grid)))
            if wishes.biases:
                _set_bias(native, model, f, product.shift(integers, grid, f.data))
            product.forget()
    return model.with_content(flat.serialize(native)), bounds


def _product(graph: Graph, f: Found, bits: int, wishes: fitting.Wishes) -> fitting.Product:
    return fitting.Product.of(matrix.rows(graph, f, np.asarray(graph.array(f.weights[0]))), bits, [f.data], wishes)


def _grid(bounds: Array, product: fitting.Product) -> Grid:
    """The grid of a weight whose rows reach up to the bounds; LiteRT's integers of 4 bits use the smallest one too."""
    bits = product.bits
    steps = np.broadcast_to(bounds.reshape(-1) / ((1 << (bits - 1)) - 1), product.rows[..., 0].size).astype(np.float32)
    return Grid(scale=steps, bits=bits, signed=True, narrow=bits >= 8, axis=0)


def _watch(
    model: LiteModel, layers: Sequence[tuple[Found, fitting.Product]], data: Dataset, progress: Progress
) -> None:
    """Take in what the inputs of the layers are in the float model."""
    graph = model.graph
    fed = {t: graph.name(t) for t in graph.inputs}
    interpreter = model.interpreter(extra_outputs=sorted({f.data for f, _ in layers if f.data not in fed}))
    total = min(len(data), fitting.SAMPLES)
    for number, batch in enumerate(progress.track(islice(data, total), "watching inputs", total=total)):
        values = runtime.run(interpreter, batch)
        for f, product in layers:
            given = np.asarray(batch[fed[f.data]] if f.data in fed else values[f.data], np.float32)
            product.moments[f.data].update(matrix.data(graph, f, given, number))


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
    if there is None and f.bias >= 0:
        return  # It is computed.
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
