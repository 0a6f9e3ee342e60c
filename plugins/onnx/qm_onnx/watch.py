"""Making layers' activations outputs of the graph, without stopping ONNX Runtime from fusing integer kernels."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto

from qm.plugin import Unsupported, UsageError
from qm_onnx import layer
from qm_onnx.graph import Scope
from qm_onnx.layer import Found

_FUSED = frozenset({"Clip", "Relu"})


def watched(proto: ModelProto, names: Iterable[str]) -> tuple[ModelProto, dict[str, str]]:
    """The model with the activations of the named layers as further outputs, and the output of each layer.

    Raises:
        UsageError: there is no such layer.
        Unsupported: a layer is inside control flow.
    """
    found = {f.name: f for f in layer.find(proto)}
    fresh = ModelProto()
    fresh.CopyFrom(proto)
    there = {o.name for o in fresh.graph.output}
    places: dict[str, str] = {}
    for name in names:
        if name not in found:
            near = difflib.get_close_matches(name, found, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The layers are: {', '.join(found)}."
            raise UsageError(f"the model has no layer {name!r}", hint=hint)
        if found[name].scope.parent is not None:
            raise Unsupported(f"layer {name!r} is inside control flow, where its activations cannot be watched")
        place = places[name] = _place(found[name], fresh)
        if place not in there:
            there.add(place)
            fresh.graph.output.append(ValueInfoProto(name=place))
    return fresh, places


def _place(f: Found, fresh: ModelProto) -> str:
    """The tensor that holds the layer's activation as floats; a DequantizeLinear is added where there is none."""
    result = str(next(name for name in f.node.output if name))
    if f.node.op_type in ("MatMulInteger", "ConvInteger"):
        result = _rescaled(f, result)
    alone = _alone(f.scope, result)
    if alone is not None and alone.op_type in _FUSED:
        result = alone.output[0]
        alone = _alone(f.scope, result)
    if alone is not None and alone.op_type == "QuantizeLinear":
        after = f.scope.consumers.get(alone.output[0], [])
        return str(next((u.output[0] for u in after if u.op_type == "DequantizeLinear"), result))
    if f.node.op_type in ("QLinearConv", "QLinearMatMul"):
        return _dequantized(result, list(f.node.input[6:8]), fresh)
    if f.node.op_type == "QGemm" and len(f.node.input) > 7:
        return _dequantized(result, list(f.node.input[7:9]), fresh)
    if f.kind == "Gather" and alone is not None and alone.op_type == "DequantizeLinear":
        return str(alone.output[0])
    return result


def _alone(scope: Scope, name: str) -> NodeProto | None:
    """The node that alone reads a tensor, None where there are more or the tensor is an output of the model."""
    users = scope.consumers.get(name, [])
    return users[0] if len(users) == 1 and all(o.name != name for o in scope.graph.output) else None


def _rescaled(f: Found, name: str) -> str:
    """The float result of an integer product: past its Cast, the Mul by its scale, and the Add of its bias.

    A convolution's bias is a constant added to it; that of a Gemm has a node named after it, where a MatMul's does not.
    """
    for kind in ("Cast", "Mul"):
        user = _alone(f.scope, name)
        if user is None or user.op_type != kind:
            return name
        name = user.output[0]
    user = _alone(f.scope, name)
    if user is not None and user.op_type == "Add" and (f.kind == "Conv" or user.name.startswith(f.name)):
        other = next((i for i in user.input if i != name), "")
        if f.scope.resolve(other) is not None:
            return str(user.output[0])
    return name


def _dequantized(name: str, parameters: list[str], fresh: ModelProto) -> str:
    output = f"{name}/dequantized"
    fresh.graph.node.append(onnx.helper.make_node("DequantizeLinear", [name, *parameters], [output], name=output))
    return output
