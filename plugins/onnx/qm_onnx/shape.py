"""Shapes of all tensors, as far as they can be inferred."""

from __future__ import annotations

import onnx
from onnx import ModelProto, shape_inference

from qm_onnx import graph

# What the inference raises beside its own error, depending on how a model is wrong.
_ERRORS = (shape_inference.InferenceError, RuntimeError, ValueError, TypeError)


def infer_shapes(proto: ModelProto) -> None:
    """Write the shapes that can be inferred into the model; one that cannot be inferred is left out."""
    inferred = inferred_shapes(proto)
    for g, shaped in zip(graph.graphs(proto.graph), graph.graphs(inferred.graph), strict=True):
        known = {v.name for v in [*g.value_info, *g.input, *g.output]} | {t.name for t in g.initializer}
        g.value_info.extend(v for v in shaped.value_info if v.name not in known)
        for output, found in zip(g.output, shaped.output, strict=True):
            if not output.type.tensor_type.HasField("shape") and found.type.tensor_type.HasField("shape"):
                output.CopyFrom(found)


def inferred_shapes(proto: ModelProto, *, batch: int | None = None) -> ModelProto:
    """The model without its large weights and with all shapes that can be inferred.

    ``batch`` takes the place of an open first dimension of an input. Where inference fails, only the weights go.
    """
    bare = skeleton(proto)
    if batch is not None:
        for i in bare.graph.input:
            dims = i.type.tensor_type.shape.dim
            if dims and not dims[0].HasField("dim_value"):
                dims[0].dim_value = batch
    try:
        return shape_inference.infer_shapes(bare, data_prop=True)
    except _ERRORS:
        return bare


def skeleton(proto: ModelProto) -> ModelProto:
    """The model with its large weights turned into inputs of known shape: the same graph at a thousandth the size."""
    bare = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
    _copy(proto.graph, bare.graph)
    return bare


def _copy(source: onnx.GraphProto, bare: onnx.GraphProto) -> None:
    bare.name = source.name
    bare.input.extend(source.input)
    bare.output.extend(source.output)
    bare.value_info.extend(source.value_info)
    for t in source.initializer:
        if len(t.dims) > 1 or t.ByteSize() > 4096:
            bare.value_info.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
        else:
            bare.initializer.append(t)
    for node in source.node:
        if not any(True for _ in graph.subgraphs(node)):
            bare.node.append(node)
            continue
        fresh = bare.node.add(op_type=node.op_type, domain=node.domain, name=node.name)
        fresh.input.extend(node.input)
        fresh.output.extend(node.output)
        for a in node.attribute:
            if a.type == onnx.AttributeProto.GRAPH:
                held = fresh.attribute.add(name=a.name, type=a.type)
                _copy(a.g, held.g)
            else:
                fresh.attribute.append(a)
