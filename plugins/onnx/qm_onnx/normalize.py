"""Putting a model in order before anything else looks at it: names, opset, constants, shapes.

What the model computes stays the same. A model that is quantized already keeps its operators as they are.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import IR_VERSION, ModelProto, NodeProto, TensorProto, helper, version_converter

from qm_onnx import graph
from qm_onnx.runtime import opened, options
from qm_onnx.shape import infer_shapes
from qm_onnx.share import share

LOWEST_OPSET = 17
PLAIN_IR_VERSION = 10
FOLDED_UP_TO = 1 << 30
"""Bytes of weights beyond which constants are not folded, since ONNX Runtime would hold several copies of them."""

# These would rename layers, change their kind, or write operators of ONNX Runtime's own.
_UNWANTED = (
    "ConstantSharing",
    "GatherToSliceFusion",
    "MatMulAddFusion",
    "SimplifiedLayerNormFusion",
    "SkipLayerNormFusion",
    "TransposeOptimizer",
)

_INTEGER_OPERATORS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)

# Attributes that later versions added and whose default is what earlier ones did.
_HARMLESS = frozenset({"allowzero", "saturate"})

_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, AttributeError)


def is_quantized(proto: ModelProto) -> bool:
    """Whether any operator of the model works on integers with scales."""
    return any(node.op_type in _INTEGER_OPERATORS for node in graph.nodes(proto.graph))


def normalize(proto: ModelProto, *, name: str = "model", folder: Path | None = None) -> tuple[ModelProto, list[str]]:
    """The model in order, and what is worth a line about it. ``folder`` is where its external data lies.

    Raises:
        UsageError: ONNX Runtime refuses the model.
        Unsupported: ONNX Runtime does not know one of its operators.
    """
    notes: list[str] = []
    fresh = ModelProto()
    fresh.CopyFrom(proto)
    drop_overridable_inputs(fresh)
    lower_ir_version(fresh, notes)
    name_nodes(fresh)
    if is_quantized(fresh):
        notes.append("the model is quantized already; its operators are left as they are")
    else:
        fresh = _convert(fresh, notes)
        fresh = _fold(fresh, notes, name=name, folder=folder)
    name_nodes(fresh)
    graph.sort(fresh.graph)
    graph.keep_domains(fresh)
    infer_shapes(fresh)
    return fresh, notes


def drop_overridable_inputs(proto: ModelProto) -> None:
    """Take initializers off the list of inputs, where files before IR version 4 had them: nobody feeds weights."""
    for g in graph.graphs(proto.graph):
        stored = {t.name for t in g.initializer} | {t.values.name for t in g.sparse_initializer}
        kept = [i for i in g.input if i.name not in stored]
        if len(kept) < len(g.input):
            del g.input[:]
            g.input.extend(kept)
    proto.ir_version = max(proto.ir_version, 8)


def lower_ir_version(proto: ModelProto, notes: list[str]) -> None:
    """Bring the file format's version down to what the operators need: exporters write the newest by default."""
    needed = helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True)
    lowest = max(PLAIN_IR_VERSION, needed)
    if lowest < proto.ir_version <= IR_VERSION:
        notes.append(f"IR version lowered from {proto.ir_version} to {lowest}, which more runtimes read")
        proto.ir_version = lowest


def name_nodes(proto: ModelProto) -> None:
    """Give every node a name of its own, the same at each load: the one it has, else its kind and a number."""
    every = list(graph.nodes(proto.graph))
    taken = {node.name for node in every}
    seen: set[str] = set()
    counts: dict[str, int] = {}
    for node in every:
        if not node.name or node.name in seen:
            node.name = _free(node.name or node.op_type, taken, counts)
        seen.add(node.name)


def _free(stem: str, taken: set[str], counts: dict[str, int]) -> str:
    while True:
        number = counts[stem] = counts.get(stem, -1) + 1
        name = f"{stem}_{number}"
        if name not in taken:
            taken.add(name)
            return name


def raise_opset(proto: ModelProto, version: int) -> ModelProto:
    """The model at opset ``version`` or later, inner graphs too; the given one is not changed.

    Raises:
        ValueError: the converter cannot bring it there.
    """
    if graph.opset(proto) >= version:
        return proto
    before = graph.opset(proto)
    stale = [n for n in graph.nodes(proto.graph) if _changed(n, before, version)]
    # The converter leaves the graphs inside nodes alone: what is there must mean the same in both versions.
    top = {id(n) for n in proto.graph.node}
    if inner := [n for n in stale if id(n) not in top and not _compatible(n, before, version)]:
        kinds = ", ".join(sorted({n.op_type for n in inner}))
        raise ValueError(f"{kinds} inside control flow changed between opset {before} and {version}")
    if not stale:
        fresh = ModelProto()
        fresh.CopyFrom(proto)
        graph.set_opset(fresh, version)
        return fresh
    try:
        fresh = version_converter.convert_version(proto, version)
    except _ERRORS as e:
        raise ValueError(str(e).strip().splitlines()[0]) from e
    fresh.ir_version = max(fresh.ir_version, proto.ir_version)
    return fresh


def _changed(node: NodeProto, before: int, after: int) -> bool:
    if node.domain not in graph.ONNX_DOMAINS:
        return False
    try:
        old = onnx.defs.get_schema(node.op_type, before)
        return bool(onnx.defs.get_schema(node.op_type, after).since_version != old.since_version)
    except onnx.defs.SchemaError:
        return True


def _compatible(node: NodeProto, before: int, after: int) -> bool:
    """Whether two versions of an operator differ in the types that they take alone: same operands, same attributes."""
    try:
        old, new = (onnx.defs.get_schema(node.op_type, v) for v in (before, after))
    except onnx.defs.SchemaError:
        return False
    return not new.deprecated and _signature(old) == _signature(new)


def _signature(schema: onnx.defs.OpSchema) -> tuple[object, ...]:
    attributes = {
        (a.name, a.required, a.default_value.SerializeToString())
        for a in schema.attributes.values()
        if a.name not in _HARMLESS
    }
    return [i.name for i in schema.inputs], len(schema.outputs), attributes


def _convert(proto: ModelProto, notes: list[str]) -> ModelProto:
    before = graph.opset(proto)
    if before >= LOWEST_OPSET:
        return proto
    try:
        fresh = raise_opset(proto, LOWEST_OPSET)
    except ValueError as e:
        notes.append(f"the model stays at opset {before}, since it cannot be converted to {LOWEST_OPSET}: {e}")
        return proto
    notes.append(f"converted from opset {before} to {LOWEST_OPSET}")
    name_nodes(fresh)
    return fresh


def _fold(proto: ModelProto, notes: list[str], *, name: str, folder: Path | None) -> ModelProto:
    """Fold constants and batch norms and drop what does nothing, by ONNX Runtime's own basic optimization."""
    if any(t.data_type == TensorProto.FLOAT16 for t in graph.tensors(proto)):
        return proto  # ONNX Runtime would write its casts to float32 into the model.
    if proto.ByteSize() > FOLDED_UP_TO or any(t.external_data for t in graph.tensors(proto)):
        notes.append("constants are not folded, since the weights are too large")
        return proto
    with tempfile.TemporaryDirectory() as scratch:
        settings = options(ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
        settings.optimized_model_filepath = str(Path(scratch) / "folded.onnx")
        opened(proto.SerializeToString(), name, settings, without=_UNWANTED)
        fresh = onnx.load(settings.optimized_model_filepath)
    if foreign := _foreign(fresh) - _foreign(proto):
        notes.append(f"constants are not folded, since ONNX Runtime would bring in {', '.join(sorted(foreign))}")
        return proto
    share(fresh)
    return _as_before(fresh, proto)


def _foreign(proto: ModelProto) -> set[str]:
    """Operators that are not in the ONNX standard."""
    kinds = {(n.domain, n.op_type) for n in graph.nodes(proto.graph)}
    return {k for d, k in kinds if d not in graph.ONNX_DOMAINS or not onnx.defs.has(k)}


def _as_before(fresh: ModelProto, proto: ModelProto) -> ModelProto:
    """Give back what ONNX Runtime drops or shuffles: the maker's name, metadata, and initializers in order of use."""
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(fresh, field, getattr(proto, field))
    if not fresh.metadata_props:
        fresh.metadata_props.extend(proto.metadata_props)
    for g in graph.graphs(fresh.graph):
        order = {name: i for i, name in reversed(list(enumerate(n for node in g.node for n in graph.uses(node))))}
        ordered = sorted(g.initializer, key=lambda t: (order.get(t.name, len(order)), t.name))
        copies = [TensorProto.FromString(t.SerializeToString()) for t in ordered]
        del g.initializer[:]
        g.initializer.extend(copies)
    return fresh
