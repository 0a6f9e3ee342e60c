"""ONNX Runtime's own QDQ writer: handed ranges and weight scales, and tidied up after.

What is tidied: a float operation reads the float tensor where there is one, rather than its rounded copy, and a pair
that nobody reads is dropped. A product (MatMul, Gemm) can leave its kernel in float, so its result is rounded only for
a layer that reads it; an integer convolution cannot.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from qm.numerics import Grid
from qm.plugin import PluginError
from qm_onnx import graph, narrow, runtime
from qm_onnx.graph import Scope
from qm_onnx.rewrite import prune
from qm_onnx.site import Site
from qm_onnx.width import Widths

PAIR = ("QuantizeLinear", "DequantizeLinear")
QUANTIZED_BEHIND = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Kinds of layers that ONNX Runtime quantizes by itself where they stand between integer ones."""
FLOAT_RESULT = frozenset({"MatMul", "Gemm"})


@dataclass(frozen=True, kw_only=True)
class Draft:
    """All that the writer is told. ``ranges`` and ``grids`` are by tensor name."""

    proto: ModelProto
    sites: list[Site]
    around: list[NodeProto]
    ranges: Mapping[str, tuple[float, float]]
    grids: Mapping[str, Grid]
    widths: Widths

    @property
    def nodes(self) -> dict[str, NodeProto]:
        """The operations to quantize, by name."""
        return {n.name: n for n in [*(s.node for s in self.sites), *self.around]}


def write(draft: Draft) -> ModelProto:
    """The model with its QuantizeLinear and DequantizeLinear pairs.

    Raises:
        PluginError: ONNX Runtime's writer failed.
    """
    before = {t: node.name for node in draft.proto.graph.node for t in node.output if t}
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        try:
            proto = _written(draft, Path(scratch))
        except (*runtime.ORT_ERRORS, KeyError, AttributeError, AssertionError, OSError) as e:
            raise PluginError("onnx.ptq", f"ONNX Runtime's QDQ writer failed: {e!r}") from e
    _close_seams(proto, draft.widths)
    _tidy(proto, draft, before)
    _shield(proto, draft)
    narrow.pack(proto, draft.grids)
    _restore(proto, draft.proto)
    return proto


def _written(draft: Draft, folder: Path) -> ModelProto:
    source = ModelProto()
    source.CopyFrom(draft.proto)
    graph.sort(source.graph)
    biases = _without_biases(source, {s.node.name for s in draft.sites if not s.is_integer})
    add_pre_process_metadata(source)
    cache, output = folder / "ranges.json", folder / "quantized.onnx"
    values = {t: (np.float32(low), np.float32(high)) for t, (low, high) in draft.ranges.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, values), cache)
    quantize_static(
        source,
        output,
        None,
        calibration_cache_path=cache,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=list(draft.nodes),
        op_types_to_quantize=sorted({n.op_type for n in draft.nodes.values()}),
        extra_options={"TensorQuantOverrides": _overrides(draft), "ForceQuantizeNoInputCheck": True},
    )
    proto = onnx.load(output)
    for node in proto.graph.node:
        if node.name in biases:
            node.input.append(biases[node.name])
    there = {t.name for t in proto.graph.initializer}
    kept = set(biases.values()) - there
    proto.graph.initializer.extend(t for t in draft.proto.graph.initializer if t.name in kept)
    return proto


def _without_biases(proto: ModelProto, names: set[str]) -> dict[str, str]:
    """Take the biases off layers that compute in float: the writer would round them, and cannot scale those of a
    grouped ConvTranspose."""
    taken: dict[str, str] = {}
    for node in proto.graph.node:
        if node.name in names and len(node.input) > 2:
            taken[node.name] = node.input.pop(2)
    return {name: bias for name, bias in taken.items() if bias}


def _overrides(draft: Draft) -> dict[str, list[dict[str, Any]]]:
    made: dict[str, list[dict[str, Any]]] = {t: [{"quant_type": QuantType.QUInt16}] for t in sorted(draft.widths.wide)}
    for name, grid in draft.grids.items():
        common: dict[str, Any] = {"quant_type": QuantType.QInt8, "zero_point": np.int8(0)}
        if grid.axis is None:
            made[name] = [common | {"scale": np.float32(grid.scale)}]
        else:
            made[name] = [common | {"scale": s, "axis": grid.axis} for s in grid.scale]
    return made


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's tools from printing advice, which they send to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _close_seams(proto: ModelProto, widths: Widths) -> None:
    """Take the Identity nodes out again."""
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            if name in widths.seams:
                node.input[i] = widths.seams[name]
    prune(proto.graph)


def _tidy(proto: ModelProto, draft: Draft, before: Mapping[str, str]) -> None:
    scope = Scope(proto.graph)
    floats = {s.node.name for s in draft.sites if s.node.op_type in FLOAT_RESULT or not s.is_integer}
    for pair in [n for n in proto.graph.node if n.op_type == PAIR[0]]:
        source = pair.input[0]
        made = scope.producer(source)
        if made is not None and _needs_integers(made, source, draft, floats, before):
            continue
        for after in scope.consumers.get(pair.output[0], []):
            _bypass(proto, scope, after, source, made, draft.nodes)
    prune(proto.graph)


def _shield(proto: ModelProto, draft: Draft) -> None:
    """Keep layers in float that stand between integer ones.

    ONNX Runtime's optimizer WeightBiasQuantization turns the weights of such a layer into integers with one scale,
    whatever the file says. It looks for a layer right behind a DequantizeLinear, so a Max of one operand, which is its
    operand, is put in between.
    """
    scope = Scope(proto.graph)
    for node in [n for n in proto.graph.node if n.op_type in QUANTIZED_BEHIND and n.name not in draft.nodes]:
        made = scope.producer(node.input[0])
        if made is not None and made.op_type == PAIR[1]:
            shielded = f"{node.input[0]}/{node.name}/float"
            proto.graph.node.append(helper.make_node("Max", [node.input[0]], [shielded], name=shielded))
            node.input[0] = shielded


def _needs_integers(made: NodeProto, source: str, draft: Draft, floats: set[str], before: Mapping[str, str]) -> bool:
    """Whether a kernel fuses with the pair behind it, or the pair does an activation's work."""
    if made.name not in draft.nodes:
        return False
    if before.get(source.removesuffix("_QuantizeLinear_Input"), made.name) != made.name:
        return True
    return made.name not in floats


def _bypass(
    proto: ModelProto,
    scope: Scope,
    after: NodeProto,
    source: str,
    made: NodeProto | None,
    integer: Mapping[str, NodeProto],
) -> None:
    """Let the float readers of a dequantized tensor read the tensor itself."""
    rounded = after.output[0]
    for reader in scope.consumers.get(rounded, []):
        if reader.name not in integer and reader.op_type not in PAIR:
            for i, name in enumerate(reader.input):
                if name == rounded:
                    reader.input[i] = source
    if made is not None and any(o.name == rounded for o in proto.graph.output):
        _swap(proto, source, rounded)


def _swap(proto: ModelProto, source: str, output: str) -> None:
    """Give the float tensor the name of the output, and its rounded copy another."""
    renamed = {source: output, output: f"{output}_DequantizeLinear_Output"}
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = renamed.get(name, name)


def _restore(proto: ModelProto, source: ModelProto) -> None:
    """Give back what the writer puts its own name over, and put nodes in order."""
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(proto, field, getattr(source, field))
    del proto.metadata_props[:]
    proto.metadata_props.extend(source.metadata_props)
    graph.sort(proto.graph)
    graph.keep_domains(proto)
