"""What each layer IS in, read from the flatbuffer: the interpreter shows integers of 4 bits as int8."""

from __future__ import annotations

from typing import Any

from qm.plugin import F16, FLOAT, Activations, Granularity, Scheme
from qm_tf import flat
from qm_tf.graph import Graph
from qm_tf.layer import TABLES, Found, find


def schemes(model: Any) -> dict[str, Scheme]:
    """The scheme of each layer, by name."""
    graph = Graph(model)
    return {f.name: scheme(graph, f) for f in find(graph)}


def scheme(graph: Graph, f: Found) -> Scheme:
    """The scheme of one layer: that of its first weight."""
    kind = graph.type(f.weights[0])
    if kind == "FLOAT32":
        return FLOAT
    if kind == "FLOAT16":
        return F16
    granularity, group = _granularity(graph, f)
    activations, bits = _activations(graph, f)
    return Scheme(
        weight_bits=flat.BITS[kind],
        activations=activations,
        activation_bits=bits,
        granularity=granularity,
        group=group,
    )


def is_quantized(model: Any) -> bool:
    """Whether any layer is not in float."""
    return any(not s.is_float for s in schemes(model).values())


def _granularity(graph: Graph, f: Found) -> tuple[Granularity, int]:
    weight = graph.tensor(f.weights[0])
    quantization = weight.quantization
    details = getattr(quantization, "details", None)
    if details is not None and hasattr(details, "blockSize"):
        return Granularity.GROUP, int(details.blockSize)
    scales = 0 if quantization is None or quantization.scale is None else len(quantization.scale)
    channels = flat.shape(weight)[f.place.axis]
    return (Granularity.CHANNEL if scales > 1 or channels == 1 else Granularity.TENSOR), 0


def _activations(graph: Graph, f: Found) -> tuple[Activations, int]:
    if f.restored or f.kind in TABLES:  # A table's rows are looked up, not multiplied.
        return Activations.FLOAT, 32
    kind = graph.type(f.data)
    if kind in ("INT8", "UINT8"):
        return Activations.STATIC, 8
    if kind == "INT16":
        return Activations.STATIC, 16
    return Activations.DYNAMIC, 8
