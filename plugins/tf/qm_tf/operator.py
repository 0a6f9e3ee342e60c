"""Every operation of a .tflite model: its operator, its name, whether it computes in integers."""

from __future__ import annotations

from typing import Any

from qm.plugin import Activations, Operator, unique
from qm_tf import name
from qm_tf.graph import Graph, Op, graphs
from qm_tf.layer import TABLES, Found, find
from qm_tf.scheme import scheme

_CONVERSIONS = frozenset({"CAST", "DEQUANTIZE", "QUANTIZE"})
_FLOATS = frozenset({"BFLOAT16", "FLOAT16", "FLOAT32", "FLOAT64"})


def operators(model: Any) -> tuple[Operator, ...]:
    """The operations of all subgraphs, those of the main one first."""
    listed = []
    for graph in graphs(model):
        layers = {f.op.number: f for f in find(graph)} if graph.number == 0 else {}
        listed += [(graph, op, layers.get(op.number)) for op in graph.ops]
    names = unique(operation_name(*place) for place in listed)
    return tuple(
        Operator(name=text, kind=op.kind, layer=layer.name if layer else "", integer=_computes(graph, op, layer))
        for text, (graph, op, layer) in zip(names, listed, strict=True)
    )


def operation_name(graph: Graph, op: Op, layer: Found | None) -> str:
    """The layer's name, or that of what comes out."""
    if layer is not None:
        return layer.name
    made = name.short_name(graph.name(op.outputs[0])) if op.outputs else ""
    return made or f"{op.kind.lower()}_{op.number}"


def is_integer(graph: Graph, layer: Found) -> bool | None:
    """Whether the layer's kernel multiplies integers; a table is looked up."""
    if layer.kind in TABLES:
        return None
    found = scheme(graph, layer)
    return found.is_integer and found.activations is not Activations.FLOAT


def _computes(graph: Graph, op: Op, layer: Found | None) -> bool | None:
    """None for what only converts, and for what depends on constants alone."""
    if layer is not None and layer.kind not in TABLES:
        return is_integer(graph, layer)
    if op.kind in _CONVERSIONS:
        return None
    read = {graph.type(t) for t in op.inputs if t >= 0 and not graph.is_constant(t)}
    return not read & _FLOATS if read else None
