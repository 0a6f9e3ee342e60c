"""The operations with weights of a .tflite model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

from qm.plugin import Layer, unique
from qm_tf import flat, name
from qm_tf.graph import Graph, Op


@dataclass(frozen=True)
class Operand:
    """Where an operator keeps things among its inputs: the data, the weights, the bias (-1 for none)."""

    data: int
    weights: tuple[int, ...]
    bias: int = -1
    axis: int = 0
    """The axis of the weight along which each output channel lies."""


OPERATORS = {
    "BATCH_MATMUL": Operand(0, (1,), axis=-1),
    "CONV_2D": Operand(0, (1,), 2),
    "CONV_3D": Operand(0, (1,), 2, axis=4),
    "DEPTHWISE_CONV_2D": Operand(0, (1,), 2, axis=3),
    "EMBEDDING_LOOKUP": Operand(0, (1,)),
    "FULLY_CONNECTED": Operand(0, (1,), 2),
    "GATHER": Operand(1, (0,)),
    "TRANSPOSE_CONV": Operand(2, (1,), 3),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Operand(0, tuple(range(1, 9))),
    "UNIDIRECTIONAL_SEQUENCE_RNN": Operand(0, (1, 2)),
}
TABLES = frozenset({"EMBEDDING_LOOKUP", "GATHER"})
_WEIGHTS = frozenset({"FLOAT32", "FLOAT16", "INT8", "UINT8", "INT4", "INT2", "INT16"})


@dataclass(frozen=True)
class Found:
    """A layer where it stands. ``weights`` are the tensors with the stored values, behind what restores them."""

    name: str
    kind: str
    op: Op
    weights: tuple[int, ...]
    restored: bool
    """Whether the weights pass a DEQUANTIZE before the operation reads them."""

    @property
    def place(self) -> Operand:
        return OPERATORS[self.kind]

    @property
    def data(self) -> int:
        """The tensor that is not the weight."""
        return self.op.inputs[self.place.data]

    @property
    def bias(self) -> int:
        """The bias tensor, -1 where there is none."""
        return self.op.inputs[self.place.bias] if 0 <= self.place.bias < len(self.op.inputs) else -1

    @property
    def output(self) -> int:
        return self.op.outputs[0]


def find(graph: Graph) -> list[Found]:
    """Every operation of the main graph with constant weights, in execution order, under short unique names."""
    found = [f for op in graph.ops if (f := _found(graph, op)) is not None]
    names = [name.layer_name(f.kind, graph.name(f.weights[0]), graph.name(f.output)) for f in found]
    if not any(graph.name(f.weights[0]).endswith(name.KERNEL) for f in found):
        names = name.without_model(names)
    named = unique(n or f"{f.kind.lower()}_{f.op.number}" for n, f in zip(names, found, strict=True))
    return [Found(n, f.kind, f.op, f.weights, f.restored) for n, f in zip(named, found, strict=True)]


def _found(graph: Graph, op: Op) -> Found | None:
    if op.kind not in OPERATORS:
        return None
    weights: list[int] = []
    restored = False
    for place in OPERATORS[op.kind].weights:
        if place >= len(op.inputs) or op.inputs[place] < 0:
            continue
        stored, passed = graph.source(op.inputs[place])
        if stored < 0 or graph.type(stored) not in _WEIGHTS:
            return None
        weights.append(stored)
        restored |= "DEQUANTIZE" in passed
    if not weights or (op.kind in TABLES and len(graph.shape(weights[0])) < 2):
        return None
    return Found("", op.kind, op, tuple(weights), restored)


def layers(model: Any) -> tuple[Layer, ...]:
    """The layers as the core sees them."""
    graph = Graph(model)
    found = find(graph)
    users = Counter(graph.tensor(w).buffer for f in found for w in set(f.weights))
    batch = _batch(graph)
    return tuple(
        Layer(
            name=f.name,
            kind=f.kind,
            weights=sum(prod(graph.shape(w)) for w in f.weights),
            macs=macs(graph, f) // batch,
            tied=next((f"buffer {b}" for w in f.weights if users[b := graph.tensor(w).buffer] > 1), None),
        )
        for f in found
    )


def macs(graph: Graph, f: Found) -> int:
    """Multiply-accumulates of one run of the graph as its shapes stand, 0 where lengths but the batch are free."""
    if None in (flat.free_shape(graph.tensor(f.output))[1:] + flat.free_shape(graph.tensor(f.data))[1:]):
        return 0
    weight, out, data = graph.shape(f.weights[0]), graph.shape(f.output), graph.shape(f.data)
    if f.kind in TABLES:
        return 0
    if f.kind == "TRANSPOSE_CONV":
        return prod(data) * prod(weight[:3])
    if f.kind == "DEPTHWISE_CONV_2D":
        return prod(out) * prod(weight[1:3])
    if f.kind == "CONV_2D":
        return prod(out) * prod(weight[1:])
    if f.kind == "CONV_3D":
        return prod(out) * prod(weight[:4])
    if f.kind in ("FULLY_CONNECTED", "BATCH_MATMUL"):
        return prod(out) * (data[-1] if data else 0)
    return prod(data[:2]) * sum(prod(graph.shape(w)) for w in f.weights)  # Recurrent: each step uses each weight once.


def _batch(graph: Graph) -> int:
    """The first length that all inputs and outputs share, else 1."""
    firsts = {graph.shape(t)[0] if graph.shape(t) else 1 for t in (*graph.inputs, *graph.outputs)}
    return max(firsts.pop(), 1) if len(firsts) == 1 else 1
