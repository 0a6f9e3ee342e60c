"""What each layer IS in, read from the graph: dtypes, scales, and how its input comes."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto

from qm.plugin import F16, FLOAT, Activations, Granularity, Scheme
from qm_onnx import graph
from qm_onnx.graph import Constant, Scope
from qm_onnx.layer import Found, find, row_scale

BITS = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
}

# Operator: where the weight's scale is.
_SCALE_INPUT = {
    "DynamicQuantizeLSTM": 8,
    "DynamicQuantizeMatMul": 2,
    "MatMulIntegerToFloat": 3,
    "QGemm": 4,
    "QLinearConv": 4,
    "QLinearMatMul": 4,
}

_STATIC = frozenset({"QGemm", "QLinearConv", "QLinearMatMul"})
_DYNAMIC = frozenset({"DynamicQuantizeLSTM", "DynamicQuantizeMatMul"})


def schemes(proto: ModelProto) -> dict[str, Scheme]:
    """The scheme of each layer, by name."""
    return {f.name: scheme(f) for f in find(proto)}


def scheme(f: Found) -> Scheme:
    """The scheme of one layer. A layer whose weights are float is float, even if its input was quantized on the way."""
    weight = f.weights[0]
    bits = _weight_bits(f, weight)
    if bits == 0:
        half = all(w.tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) for w in f.weights)
        return F16 if half else FLOAT
    granularity, group = _granularity(f, weight)
    activations, activation_bits = _activations(f)
    return Scheme(
        weight_bits=bits,
        activations=activations,
        activation_bits=activation_bits,
        granularity=granularity,
        group=group,
    )


def _weight_bits(f: Found, weight: Constant) -> int:
    """Bits of an integer weight, 0 where it is float."""
    if f.node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
        return graph.integer(f.node, "bits", 4)
    if (quantized := weight.passed("QuantizeLinear")) is not None:  # Stored as float, rounded at run time.
        return _zero_point_bits(f.scope, quantized)
    return BITS.get(weight.tensor.data_type, 0)


def _granularity(f: Found, weight: Constant) -> tuple[Granularity, int]:
    if f.node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
        return Granularity.GROUP, graph.integer(f.node, "block_size", 128)
    dequantize = weight.passed("DequantizeLinear")
    if dequantize is not None and (block := graph.integer(dequantize, "block_size", 0)):
        return Granularity.GROUP, block
    scale = _scale(f, dequantize)
    if scale is None or not scale.dims:
        return Granularity.TENSOR, 0
    # A scale of one element is one per channel only where there is one channel.
    axis = graph.integer(dequantize, "axis", 1) if dequantize is not None else _output_axis(f)
    channels = weight.tensor.dims[axis] if -len(weight.tensor.dims) <= axis < len(weight.tensor.dims) else 0
    single = all(n == 1 for n in scale.dims)
    if f.node.op_type == "DynamicQuantizeLSTM":  # One scale a direction, or one a gate and direction.
        return (Granularity.TENSOR if len(scale.dims) == 1 else Granularity.CHANNEL), 0
    return (Granularity.TENSOR if single and channels != 1 else Granularity.CHANNEL), 0


def _output_axis(f: Found) -> int:
    return 0 if f.kind in ("Conv", "Gather") else -1


def _scale(f: Found, dequantize: NodeProto | None) -> TensorProto | None:
    if dequantize is not None:
        return f.scope.constant(dequantize.input[1])
    place = _SCALE_INPUT.get(f.node.op_type)
    if place is not None:
        return f.scope.constant(f.node.input[place])
    if f.kind == "Gather":
        return row_scale(f.scope, f.node)
    return _scale_after(f)


def _scale_after(f: Found) -> TensorProto | None:
    """The weight's scale of MatMulInteger or ConvInteger, which a Mul applies to its result."""
    for user in _users(f.scope, f.node.output[0]):
        if user.op_type == "Mul":
            for name in user.input:
                product = f.scope.producer(name)
                factors = list(product.input) if product is not None and product.op_type == "Mul" else [name]
                for factor in factors:
                    if (constant := f.scope.constant(factor)) is not None:
                        return constant
    return None


def _users(scope: Scope, name: str) -> list[NodeProto]:
    """Nodes that read a tensor, through casts."""
    users: list[NodeProto] = []
    for user in scope.consumers.get(name, ()):
        users.extend(_users(scope, user.output[0]) if user.op_type == "Cast" else [user])
    return users


def _activations(f: Found) -> tuple[Activations, int]:
    if f.node.op_type in _STATIC:
        zero = f.scope.constant(f.node.input[2])
        return Activations.STATIC, BITS.get(zero.data_type, 8) if zero is not None else 8
    if f.node.op_type in _DYNAMIC:
        return Activations.DYNAMIC, 8
    made = f.scope.producer(f.data)
    if made is not None and made.op_type == "DequantizeLinear":
        source = f.scope.producer(made.input[0])
        if source is not None and source.op_type == "DynamicQuantizeLinear":
            return Activations.DYNAMIC, 8
        return Activations.STATIC, _zero_point_bits(f.scope, made)
    if made is not None and made.op_type == "DynamicQuantizeLinear":
        return Activations.DYNAMIC, 8
    if made is not None and made.op_type == "QuantizeLinear":
        return Activations.STATIC, _zero_point_bits(f.scope, made)
    return Activations.FLOAT, 32


def _zero_point_bits(scope: Scope, node: NodeProto) -> int:
    """Bits of the integers that a QuantizeLinear makes or a DequantizeLinear takes."""
    if len(node.input) > 2 and node.input[2]:
        zero = scope.constant(node.input[2])
        if zero is not None:
            return BITS.get(zero.data_type, 0)
    if node.op_type == "QuantizeLinear":
        return BITS.get(graph.integer(node, "output_dtype", TensorProto.UINT8), 8) or 8
    source = scope.producer(node.input[0])
    if source is not None and source.op_type == "QuantizeLinear":
        return _zero_point_bits(scope, source)
    return 8
