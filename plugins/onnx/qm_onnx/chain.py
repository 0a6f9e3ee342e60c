"""Which operations between the layers compute in integers too, so that integer kernels follow one another.

An operation between two integer convolutions costs a dequantization and a quantization if it stays in float, and
little error if it does not (EfficientNet-Lite0, AVX2 kernels, one thread: 7.0 ms against 7.2 ms, 18.3 dB against 18.5
dB); elsewhere its quantization costs error and gains nothing (PP-OCR's recogniser with its hard swishes in integers,
ranges=mse: 11.1 dB and 1.47 times the float speed, against 15.8 dB and 1.56 times). So ``auto`` takes an operation
where all that it reads comes from an integer convolution or from another such operation, and something integer reads
what it makes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from onnx import NodeProto
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from qm.plugin import UsageError
from qm_onnx.graph import Scope
from qm_onnx.site import KINDS, Site

FUSED = frozenset({"Clip", "Relu"})
"""Activations that vanish into the output range of the layer before."""

BETWEEN = frozenset(
    {
        "Add",
        "AveragePool",
        "Concat",
        "Flatten",
        "GlobalAveragePool",
        "MaxPool",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)

# Operands of these that are not data: shapes, axes, limits.
_DATA = {"Concat": None, "Add": 2}


def kinds(text: str) -> frozenset[str] | None:
    """The operator kinds that an option names, None for auto.

    Raises:
        UsageError: ONNX Runtime does not quantize one of them.
    """
    if text == "auto":
        return None
    asked = frozenset(k.strip() for k in text.split(",") if k.strip()) - {"none"}
    known = (QDQRegistry.keys() | QLinearOpsRegistry.keys()) - {"EmbedLayerNormalization"}
    for kind in sorted(asked - known):
        near = difflib.get_close_matches(kind, known, 1)
        raise UsageError(
            f"ONNX Runtime does not quantize the operator {kind!r}",
            hint=f"Did you mean {near[0]!r}?" if near else f"It quantizes {', '.join(sorted(known))}.",
        )
    return asked


def around(scope: Scope, sites: Iterable[Site], asked: frozenset[str] | None) -> list[NodeProto]:
    """The operations to quantize beside the layers; ``asked`` are their kinds, None for those that pay."""
    layers = {s.node.name: s for s in sites}
    fused = _fused(scope, layers)
    if asked is not None:
        return [n for n in scope.graph.node if n.op_type in asked - KINDS or n.name in fused]
    chosen = _fed(scope, layers, fused)
    readers = chosen | {s.node.name for s in layers.values() if s.scheme.activation_bits == 8}
    nodes = {n.name: n for n in scope.graph.node}
    while idle := {n for n in chosen - fused if not _read(scope, nodes[n], readers)}:
        chosen -= idle
        readers -= idle
    return [n for n in scope.graph.node if n.name in chosen]


def data_inputs(node: NodeProto) -> list[str]:
    """The inputs that hold data, rather than shapes or limits."""
    return [name for name in list(node.input)[: _DATA.get(node.op_type, 1)] if name]


def is_output(scope: Scope, name: str) -> bool:
    """Whether the tensor is an output of the graph."""
    return any(o.name == name for o in scope.graph.output)


def _fused(scope: Scope, layers: dict[str, Site]) -> set[str]:
    """Activations that alone read the result of a layer."""
    found: set[str] = set()
    for node in scope.graph.node:
        if node.op_type in FUSED:
            made = scope.producer(node.input[0])
            alone = len(scope.consumers.get(node.input[0], ())) == 1 and not is_output(scope, node.input[0])
            layer = layers.get(made.name) if made is not None else None
            if layer is not None and alone and _stays_integer(scope, node, layer, layers):
                found.add(node.name)
    return found


def _stays_integer(scope: Scope, node: NodeProto, layer: Site, layers: dict[str, Site]) -> bool:
    """A convolution needs integers behind it; a product only where a layer reads them; 16 bits run in float anyway."""
    if layer.scheme.activation_bits > 8:
        return False
    if layer.node.op_type == "Conv":
        return True
    readers = scope.consumers.get(node.output[0], [])
    return bool(readers) and all(r.name in layers for r in readers) and not is_output(scope, node.output[0])


def _fed(scope: Scope, layers: dict[str, Site], fused: set[str]) -> set[str]:
    """Operations that read nothing but integers."""
    integer = {n.output[0] for n in scope.graph.node if n.name in fused}
    integer |= {s.node.output[0] for s in layers.values() if s.node.op_type == "Conv" and s.scheme.activation_bits == 8}
    chosen = set(fused)
    for node in scope.graph.node:
        candidate = node.op_type in BETWEEN or (node.op_type in FUSED and node.name not in fused)
        if candidate and node.name not in layers and node.domain in ("", "ai.onnx"):
            inputs = data_inputs(node)
            if inputs and all(name in integer for name in inputs):
                chosen.add(node.name)
                integer.update(name for name in node.output if name)
    return chosen


def _read(scope: Scope, node: NodeProto, readers: set[str]) -> bool:
    """Whether an integer operation reads what the node makes."""
    return any(r.name in readers for name in node.output for r in scope.consumers.get(name, ()))
