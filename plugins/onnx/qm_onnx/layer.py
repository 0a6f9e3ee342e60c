"""The layers of an ONNX graph: operations with constant weights, under names that outlive quantization."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from qm.plugin import Layer
from qm_onnx import graph
from qm_onnx.graph import Constant, Scope
from qm_onnx.shape import inferred_shapes

# Operator: kind of the float layer, where the data is, where weights may be; of a product, the first constant side is.
OPERATORS: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "Conv": ("Conv", 0, (1,)),
    "ConvInteger": ("Conv", 0, (1,)),
    "ConvTranspose": ("ConvTranspose", 0, (1,)),
    "DynamicQuantizeLSTM": ("LSTM", 0, (1, 2)),
    "DynamicQuantizeMatMul": ("MatMul", 0, (1,)),
    "FusedConv": ("Conv", 0, (1,)),
    "FusedGemm": ("Gemm", 0, (1,)),
    "FusedMatMul": ("MatMul", 0, (1, 0)),
    "GRU": ("GRU", 0, (1, 2)),
    "Gather": ("Gather", 1, (0,)),
    "GatherBlockQuantized": ("Gather", 1, (0,)),
    "Gemm": ("Gemm", 0, (1, 0)),
    "LSTM": ("LSTM", 0, (1, 2)),
    "MatMul": ("MatMul", 0, (1, 0)),
    "MatMulInteger": ("MatMul", 0, (1, 0)),
    "MatMulIntegerToFloat": ("MatMul", 0, (1, 0)),
    "MatMulNBits": ("MatMul", 0, (1,)),
    "QGemm": ("Gemm", 0, (3,)),
    "QLinearConv": ("Conv", 0, (3,)),
    "QLinearMatMul": ("MatMul", 0, (3, 0)),
    "RNN": ("RNN", 0, (1, 2)),
}

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})

# A product, its cast, its scale, its bias, its activation, and the rounding of it.
_LONGEST_FUSION = 6

# What ONNX Runtime's own tools append to the name of a node that they replace.
_SUFFIXES: dict[str, tuple[str, ...]] = {
    "ConvInteger": ("_quant",),
    "DynamicQuantizeLSTM": ("_quant",),
    "DynamicQuantizeMatMul": ("_quant", "_DynamicQuantizeMatMul"),
    "Gather": ("_quant",),
    "GatherBlockQuantized": ("_Q4", "_Q8"),
    "MatMul": ("_MatMul", "_matmul_Q4", "_matmul_Q8"),
    "MatMulInteger": ("_MatMul_quant", "_quant"),
    "MatMulNBits": ("_Q4", "_Q8", "_Q2"),
    "QGemm": ("_quant",),
    "QLinearConv": ("_quant",),
    "QLinearMatMul": ("_MatMul_quant", "_quant"),
}


@dataclass(frozen=True)
class Found:
    """A layer where it stands in its graph. ``data`` names the operand that is not the weight."""

    name: str
    kind: str
    node: NodeProto
    scope: Scope
    data: str
    position: int
    weights: tuple[Constant, ...]

    @property
    def count(self) -> int:
        """Weight elements, bias left out."""
        if self.node.op_type == "MatMulNBits":  # Stored packed: blocks of bytes.
            return graph.integer(self.node, "K", 0) * graph.integer(self.node, "N", 0)
        if self.node.op_type == "GatherBlockQuantized" and self.weights[0].tensor.data_type == TensorProto.UINT8:
            return self.weights[0].count * 8 // graph.integer(self.node, "bits", 4)
        return sum(w.count for w in self.weights)


def find(proto: ModelProto) -> list[Found]:
    """Every operation with a constant weight operand, in execution order, inside control flow too."""
    found = [f for scope, node in graph.walk(proto.graph) if (f := _layer(scope, node)) is not None]
    return _with_plain_names(found)


def _layer(scope: Scope, node: NodeProto) -> Found | None:
    if node.op_type not in OPERATORS:
        return None
    kind, data, places = OPERATORS[node.op_type]
    operands = {i: node.input[i] for i in places if i < len(node.input)}
    weights = {i: c for i, name in operands.items() if (c := _weight(scope, node, name)) is not None}
    if not weights or (kind in RECURRENT and len(weights) < len(places)):
        return None
    if kind not in RECURRENT:
        weights = dict([next(iter(weights.items()))])
    position = next(iter(weights))
    if position == data:  # The weight is the left operand of a product, so the data is the right one.
        data = places[0]
    return Found(scope.path + node.name, kind, node, scope, node.input[data], position, tuple(weights.values()))


def _weight(scope: Scope, node: NodeProto, name: str) -> Constant | None:
    found = scope.resolve(name)
    if found is None:
        return None
    stored_float = found.tensor.data_type in _FLOATS
    if node.op_type == "Gather":
        rows = len(found.tensor.dims) > 1
        if stored_float:
            return found if rows and not _gathers_scales(scope, node) else None
        return found if rows and (found.passed("DequantizeLinear") or row_scale(scope, node) is not None) else None
    if OPERATORS[node.op_type][0] == node.op_type:  # An operator of the float graph: its weight reaches it as floats.
        return found if stored_float or found.passed("DequantizeLinear") else None
    return found


def row_scale(scope: Scope, node: NodeProto) -> TensorProto | None:
    """The scale of an embedding whose rows are gathered as integers and made floats after.

    By a DequantizeLinear, or by a Cast and a Mul with the rows of scales gathered alike.
    """
    for user in scope.consumers.get(node.output[0], ()):
        if user.op_type == "DequantizeLinear":
            return scope.constant(user.input[1])
        for product in scope.consumers.get(user.output[0], ()) if user.op_type == "Cast" else ():
            for name in product.input if product.op_type == "Mul" else ():
                made = scope.producer(name)
                if made is not None and made.op_type == "Gather":
                    return scope.constant(made.input[0])
    return None


def _gathers_scales(scope: Scope, node: NodeProto) -> bool:
    """Whether a Gather yields the scales of integer rows, and no weights."""
    for user in scope.consumers.get(node.output[0], ()):
        for name in user.input if user.op_type == "Mul" else ():
            cast = scope.producer(name)
            rows = scope.producer(cast.input[0]) if cast is not None and cast.op_type == "Cast" else None
            if rows is not None and rows.op_type == "Gather":
                table = scope.constant(rows.input[0])
                return table is not None and table.data_type not in _FLOATS
    return False


def _with_plain_names(found: list[Found]) -> list[Found]:
    """The layers under the names of the float graph, where quantization renamed a node and nobody else has the name."""
    taken = {f.name for f in found}
    named: list[Found] = []
    for f in found:
        name = _plain(f)
        if name != f.name and name in taken:
            name = f.name
        taken.add(name)
        named.append(f if name == f.name else replace(f, name=name))
    return named


def _plain(f: Found) -> str:
    integer = any(w.tensor.data_type not in _FLOATS for w in f.weights)
    suffix = next((s for s in _SUFFIXES.get(f.node.op_type, ()) if integer and f.name.endswith(s)), "")
    return f.name.removesuffix(suffix) or f.name


def fused_outputs(f: Found) -> Iterator[str]:
    """Names of the layer's result, and of what is made of it alone, up to where a kernel could end."""
    name = next((n for n in f.node.output if n), "")
    for _ in range(_LONGEST_FUSION):
        yield name
        users = f.scope.consumers.get(name, [])
        if len(users) != 1 or users[0].op_type in OPERATORS or not users[0].output:
            return
        name = users[0].output[0]


def layers(proto: ModelProto) -> tuple[Layer, ...]:
    """The layers as the core sees them."""
    found = find(proto)
    shapes = Shapes(proto)
    roots = Counter(root for f in found for root in {_root(f, w) for w in f.weights})
    return tuple(
        Layer(
            name=f.name,
            kind=f.kind,
            weights=f.count,
            macs=shapes.macs(f),
            tied=next((w.tensor.name for w in f.weights if roots[_root(f, w)] > 1), None),
        )
        for f in found
    )


def _root(f: Found, weight: Constant) -> int:
    # One object for one stored tensor: names may repeat between the branches of an If.
    return id(f.scope.constant(weight.tensor.name)) if weight.tensor.name else id(weight.tensor)


class Shapes:
    """Shapes of a model's tensors for one sample."""

    def __init__(self, proto: ModelProto) -> None:
        inferred = inferred_shapes(proto, batch=1)
        pairs = zip(graph.graphs(proto.graph), graph.graphs(inferred.graph), strict=True)
        self._known = {id(g): dict(_shapes(shaped)) for g, shaped in pairs}
        self._batch = _static_batch(proto)

    def of(self, scope: Scope | None, name: str) -> tuple[int, ...]:
        """The shape of a tensor seen from ``scope``, with 0 for a length that is not known; empty for no shape."""
        while scope is not None:
            if name in self._known[id(scope.graph)]:
                return self._known[id(scope.graph)][name]
            scope = scope.parent
        return ()

    def macs(self, f: Found) -> int:
        """Multiply-accumulates for one sample, 0 where shapes do not tell."""
        data = self.of(f.scope, f.data)
        out = self.of(f.scope, f.node.output[0])
        return self._repeats(f, data, out) * f.count // self._batch

    def _repeats(self, f: Found, data: tuple[int, ...], out: tuple[int, ...]) -> int:
        """How often each weight is used."""
        if f.kind == "Conv":
            return prod(out[:1] + out[2:]) if out else 0
        if f.kind == "ConvTranspose":
            return prod(data[:1] + data[2:]) if data else 0
        if f.kind in RECURRENT:
            return prod(data[:2]) if data else 0
        if f.kind == "Gemm":
            return data[graph.integer(f.node, "transA", 0)] if len(data) == 2 else 0
        if f.kind == "MatMul" and data:
            stacked = prod(f.weights[0].tensor.dims[:-2]) if f.node.op_type != "MatMulNBits" else 1
            rows = prod(data[:-1]) if f.position else prod(data[:-2]) * data[-1]
            return rows // max(stacked, 1) if rows >= stacked else rows
        return 0


def _shapes(shaped: GraphProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    for value in [*shaped.input, *shaped.value_info, *shaped.output]:
        if value.type.tensor_type.HasField("shape"):
            yield value.name, tuple(d.dim_value for d in value.type.tensor_type.shape.dim)


def _static_batch(proto: ModelProto) -> int:
    """The batch size that the model is fixed to: the first length that all its inputs and outputs share, else 1."""
    firsts = {
        v.type.tensor_type.shape.dim[0].dim_value if v.type.tensor_type.shape.dim else 0
        for v in [*proto.graph.input, *proto.graph.output]
    }
    return max(firsts.pop(), 1) if len(firsts) == 1 else 1
