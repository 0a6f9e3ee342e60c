"""Every operation of an ONNX graph: its operator, its name, the layer it is."""

from __future__ import annotations

from onnx import ModelProto, NodeProto

from qm.plugin import Activations, Operator, unique
from qm_onnx import graph
from qm_onnx.layer import Found, find
from qm_onnx.scheme import scheme


def operators(proto: ModelProto) -> tuple[Operator, ...]:
    """The nodes of the graph and of the graphs inside it. What is no layer may be fused into integers, or not."""
    layers = {id(f.node): f for f in find(proto)}
    nodes = list(graph.nodes(proto.graph))
    names = unique(n.name or next(filter(None, n.output), n.op_type) for n in nodes)
    return tuple(_operator(node, name, layers.get(id(node))) for node, name in zip(nodes, names, strict=True))


def _operator(node: NodeProto, name: str, layer: Found | None) -> Operator:
    if layer is None:
        return Operator(name=name, kind=node.op_type)
    found = scheme(layer)
    integer = found.is_integer and found.activations is not Activations.FLOAT
    return Operator(name=name, kind=node.op_type, layer=layer.name, integer=integer)
