"""The layers that static quantization changes, in a copy of the model that ONNX Runtime's writer can take."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, external_data_helper, helper, numpy_helper

from qm.plugin import Array, Plan, QuantizeJob, Scheme, Unsupported
from qm_onnx import graph, layer
from qm_onnx.graph import Scope, attribute, integer
from qm_onnx.layer import Found
from qm_onnx.model import OnnxModel, has_external
from qm_onnx.normalize import raise_opset
from qm_onnx.rewrite import Rewrite, rewrite
from qm_onnx.site import KINDS, Site

LARGEST = 2_000_000_000
"""Bytes of weights that the writer can take: it holds the model in one piece."""


@dataclass
class Prepared:
    """A copy of the model with what is to be quantized in it, and the weights by name."""

    model: OnnxModel
    rewrite: Rewrite
    sites: list[Site] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)

    @property
    def proto(self) -> ModelProto:
        """The copy."""
        return self.rewrite.proto

    def sorted(self) -> OnnxModel:
        """The copy as it is now, its nodes in order, to be run."""
        proto = graph.copied(self.proto)
        graph.sort(proto.graph)
        return self.model.with_proto(proto)

    def store(self, stem: str, value: Array) -> str:
        """The name of a new initializer."""
        name = self.rewrite.fresh(stem)
        self.proto.graph.initializer.append(numpy_helper.from_array(value, name))
        return name


def prepare(job: QuantizeJob) -> Prepared:
    """The layers of the plan, each with float weights that layers of one kind and scheme alone read.

    Raises:
        Unsupported: the plan asks for what static quantization does not offer, or the model is too large for it.
    """
    model, changes = rewrite(job, "ptq", _complete(job))
    made = Prepared(model, changes)
    found = _planned(made.proto, job.plan)
    owned: dict[tuple[str, str, int, Scheme], str] = {}
    readers = {f.node.name for f, _ in found}
    for f, scheme in found:
        value = changes.weight(f.scope, f.node.input[f.position])
        if value is None:
            raise Unsupported(f"the weights of layer {f.name!r} are not float32", hint=_stay(f.name))
        if f.kind == "Gemm":
            value = _unscaled(made, f, value)
        key = (f.node.input[f.position], f.kind, integer(f.node, "transB", 0) + 2 * f.position, scheme)
        if key not in owned:
            owned[key] = _owned(made, f, value, readers)
            made.weights[owned[key]] = value
        f.node.input[f.position] = owned[key]
        made.sites.append(Site(name=f.name, node=f.node, position=f.position, scheme=scheme))
    return made


def _planned(proto: ModelProto, plan: Plan) -> list[tuple[Found, Scheme]]:
    """The layers to quantize, in execution order."""
    wanted = plan.quantized()
    found = [(f, wanted[f.name]) for f in layer.find(proto) if f.name in wanted]
    for f, asked in found:
        _check(f, asked)
    return found


def _check(f: Found, asked: Scheme) -> None:
    if f.kind not in KINDS:
        raise Unsupported(f"onnx.ptq does not quantize {f.kind} layers such as {f.name!r}", hint=_stay(f.name))
    if f.scope.parent is not None:
        raise Unsupported(
            f"layer {f.name!r} is inside control flow, where static quantization does not reach",
            hint=f"Use onnx.dynamic, which quantizes such layers. Or: {_stay(f.name)}",
        )
    stacked = f.kind == "MatMul" and len(f.weights[0].tensor.dims) > 2
    if stacked and asked == Scheme.parse("w8a8"):
        raise Unsupported(
            f"MatMul {f.name!r} has stacked weights, for which the integer kernel takes one scale",
            hint=f"Ask for w8a8t for {f.name!r} with a rule, or leave it in float.",
        )
    if f.kind == "Gemm" and f.position == 0:
        raise Unsupported(
            f"Gemm {f.name!r} has its weights on the left, for which there is no integer kernel", hint=_stay(f.name)
        )


def _stay(name: str) -> str:
    return f"Leave {name!r} in float with a rule."


def _complete(job: QuantizeJob) -> ModelProto | None:
    """A copy with all weights at hand, at an opset that has the types the plan needs."""
    model = job.model
    if not isinstance(model, OnnxModel):
        return None
    if model.nbytes() > LARGEST:
        raise Unsupported(
            f"the model has {model.nbytes():,} bytes, and static quantization takes up to {LARGEST:,}",
            hint="Use onnx.weights, which goes through the weights one by one.",
        )
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    if has_external(proto) and model.source is not None:
        external_data_helper.load_external_data_for_model(proto, str(model.source.parent))
    if any(s.is_static and (s.activation_bits == 16 or s.weight_bits == 4) for s in job.plan.schemes()):
        try:
            proto = raise_opset(proto, 21)
        except ValueError as e:
            raise Unsupported(
                "16-bit activations and 4-bit weights need opset 21, to which the model cannot be converted: " + str(e),
                hint="Use w8a8.",
            ) from e
    _store_constants(proto)
    _pool(proto)
    return proto


def _store_constants(proto: ModelProto) -> None:
    """Turn Constant nodes into initializers, where the writer looks for weights and biases."""
    kept: list[NodeProto] = []
    for node in proto.graph.node:
        value = attribute(node, "value") if node.op_type == "Constant" else None
        if value is None:
            kept.append(NodeProto.FromString(node.SerializeToString()))
        else:
            stored = TensorProto.FromString(value.t.SerializeToString())
            stored.name = node.output[0]
            proto.graph.initializer.append(stored)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


def _pool(proto: ModelProto) -> None:
    """Write means over all of height and width as GlobalAveragePool, the same value, which has an integer kernel."""
    scope = Scope(proto.graph)
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in proto.graph.value_info}
    for node in proto.graph.node:
        if node.op_type == "ReduceMean" and ranks.get(node.input[0]) == 4 and integer(node, "keepdims", 1):
            listed = attribute(node, "axes")
            stored = scope.constant(node.input[1]) if len(node.input) > 1 else None
            axes = list(listed.ints) if listed else [] if stored is None else numpy_helper.to_array(stored).tolist()
            if sorted(int(a) % 4 for a in axes) == [2, 3]:
                pooled = helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), name=node.name)
                node.CopyFrom(pooled)


def _unscaled(made: Prepared, f: Found, value: Array) -> Array:
    """The weights of a Gemm with alpha in them, and beta in the bias: the writer loses beta."""
    factors = {a.name: a for a in f.node.attribute if a.name in ("alpha", "beta") and a.f != 1}
    if "beta" in factors and len(f.node.input) > 2 and f.node.input[2]:
        bias = made.rewrite.weight(f.scope, f.node.input[2])
        if bias is None:
            raise Unsupported(f"Gemm {f.name!r} has a computed bias, scaled by beta", hint=_stay(f.name))
        f.node.input[2] = made.store(f"{f.node.input[2]}/scaled", bias * np.float32(factors["beta"].f))
    if "alpha" in factors:
        value = value * np.float32(factors["alpha"].f)
        f.node.input[f.position] = made.store(f"{f.node.input[f.position]}/scaled", value)
    for factor in factors.values():
        factor.f = 1
    return value


def _owned(made: Prepared, f: Found, value: Array, readers: set[str]) -> str:
    """The name of an initializer that holds the weight and that nothing but layers of the plan reads."""
    name = str(f.node.input[f.position])
    stored = any(t.name == name for t in made.proto.graph.initializer)
    others = [n for n in f.scope.consumers.get(name, []) if n.name not in readers]
    return name if stored and not others and name not in made.weights else made.store(f"{name}/own", value)
