"""Layers whose integer weights can saturate on kernels that add pairs of products in 16 bits."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from qm.numerics import SAFE_SUM, worst_pair_sum
from qm.plugin import Activations, Hazard, Scheme
from qm_onnx import layer, scheme
from qm_onnx.layer import Found
from qm_onnx.safe import kernel_rows
from qm_onnx.site import Site

_KINDS = frozenset({"Conv", "Gemm", "MatMul"})


def hazards(proto: ModelProto) -> tuple[Hazard, ...]:
    """The layers with a pair of weights that can saturate, in execution order."""
    stored = scheme.schemes(proto)
    sums = ((f.name, pair_sum(f, stored[f.name])) for f in layer.find(proto) if f.name in stored)
    return tuple(
        Hazard(layer=name, seen=f"a pair of weights sums to {worst}, above {SAFE_SUM}")
        for name, worst in sums
        if worst > SAFE_SUM
    )


def pair_sum(f: Found, stored: Scheme) -> int:
    """The worst pair sum of a layer's int8 weights as its kernel walks them; 0 where the kernel is another."""
    weight = f.weights[0]
    moved = any(n.op_type != "DequantizeLinear" for n in weight.via)
    floating = stored.activations is Activations.FLOAT
    if moved or floating or weight.tensor.data_type != TensorProto.INT8 or f.kind not in _KINDS:
        return 0
    node = NodeProto()
    node.CopyFrom(f.node)
    node.op_type = f.kind
    # An operator on integers has scales and zero points between its operands, the weights on the right none the less.
    site = Site(name=f.name, node=node, position=min(f.position, 1), scheme=stored)
    rows = kernel_rows(site, numpy_helper.to_array(weight.tensor))
    return 0 if rows is None else worst_pair_sum(rows)
