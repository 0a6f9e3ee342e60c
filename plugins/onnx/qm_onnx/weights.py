"""Weights only: integers in the file, activations in float.

All but 4-bit embeddings is written with standard operators, a DequantizeLinear in front of the layer, which other
runtimes read too. ONNX Runtime (measured with 1.31.1) turns that into its MatMulNBits kernel when it opens the file, as
fast as if the file held MatMulNBits and without its padding, provided that the weights lie in the layer's own graph and
are ``(in, out)``; a Gemm with transB=1 would dequantize all its weights at each run, at a tenth of the speed. That
kernel rounds its activations to int8 within blocks, which costs 8-bit weights about 2 dB and 4-bit ones nothing; the
session option ``session.qdq_matmulnbits_accuracy_level`` set to 1 avoids it.

Groups of 4 bits have a zero point. Against symmetric ones that is worth 2 dB at the output of the MiniLM encoder and,
in groups of 32, 11 dB at that of PP-OCR's recogniser. The search for the scale (``group_grid``) moves these by -0.7
to 1.2 dB.

An embedding is dequantized after its rows are gathered, never as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from qm.numerics.affine import Grid, grid_for
from qm.numerics.affine import quantize as quantized
from qm.numerics.group import group_grid
from qm.numerics.pack import pack_int4
from qm.plugin import Array, Notes, QuantizeJob, Scheme, Unsupported
from qm_onnx.graph import Scope, integer
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import raise_opset
from qm_onnx.rewrite import MICROSOFT, Rewrite, rewrite

GROUPS_SINCE = 21
"""The opset that brought DequantizeLinear its groups and its 4-bit types."""

Nodes = list[NodeProto]


@dataclass
class Work:
    """A rewrite, and where it tells what it decided."""

    rewrite: Rewrite
    notes: Notes

    def dequantize(self, scope: Scope, stem: str, w: Array, grid: Grid) -> tuple[NodeProto, str]:
        """A node that makes floats of the stored integers, and the name of what it makes."""
        out = self.rewrite.fresh(f"{stem}/dequantized")
        where = {"axis": grid.axis} if grid.axis is not None else {}
        if grid.group:
            where["block_size"] = grid.group
        inputs = [
            self.rewrite.tensor(scope.graph, f"{stem}/weight", stored(quantized(w, grid), grid)),
            self.rewrite.tensor(scope.graph, f"{stem}/scale", grid.scale),
        ]
        if not grid.signed:
            zero = stored(grid.zero_point.astype(np.uint8), grid)
            inputs.append(self.rewrite.tensor(scope.graph, f"{stem}/zero_point", zero))
        name = self.rewrite.fresh(f"{stem}/dequantize")
        return helper.make_node("DequantizeLinear", inputs, [out], name=name, **where), out


def quantize(job: QuantizeJob) -> OnnxModel:
    """The model with the weights of the plan's layers stored as integers.

    A layer whose weights are not constant floats of two or more dimensions stays in float, with a note.

    Raises:
        Unsupported: a group scheme is asked and the model cannot be brought to opset 21.
    """
    model, change = rewrite(job, "weights", _raised(job))
    work = Work(change, job.notes)
    for scope, node, scheme in job.progress.track(work.rewrite.planned(job.plan), "quantize"):
        replace = _REPLACE.get(node.op_type)
        made = replace(work, scope, node, scheme) if replace else None
        if made is None:
            job.notes.say(f"{scope.path}{node.name}: stays in float, since its weights cannot be stored as {scheme}")
        else:
            work.rewrite.replace(scope, node, made)
    if job.target.integer_dot is False and any(s.weight_bits == 8 for s in job.plan.schemes()):
        job.notes.say(
            f"8-bit weights with float activations run slower than float on {job.target.name!r}, which has no 8-bit "
            "dot product; onnx.dynamic is the faster way"
        )
    return model.with_proto(work.rewrite.finish(MICROSOFT))


def stored(q: Array, grid: Grid) -> Array | TensorProto:
    """Integers as the file holds them, two to a byte where they have 4 bits."""
    if grid.bits > 4:
        return q
    kind = TensorProto.INT4 if grid.signed else TensorProto.UINT4
    return TensorProto(data_type=kind, dims=q.shape, raw_data=pack_int4(q.reshape(-1)).tobytes())


def _raised(job: QuantizeJob) -> ModelProto:
    """The model at an opset that has what the plan needs."""
    proto: ModelProto = job.model.native
    if not any(scheme.group for scheme in job.plan.schemes()):
        return proto
    try:
        raised = raise_opset(proto, GROUPS_SINCE)
    except ValueError as e:
        raise Unsupported(
            f"the model cannot be brought to opset {GROUPS_SINCE}, which 4-bit weights need: {e}",
            hint=f"Ask for w8, or export the model with opset {GROUPS_SINCE}.",
        ) from e
    if raised is not proto:
        job.notes.say(f"converted to opset {GROUPS_SINCE}, which brought 4-bit types and groups")
    return raised


def _grid(w: Array, scheme: Scheme, *, reduced: int) -> Grid:
    """The grid of a weight; ``reduced`` is the axis that the layer sums over."""
    if scheme.group:
        return group_grid(w, bits=scheme.weight_bits, group=scheme.group, axis=reduced)
    return grid_for(w, bits=scheme.weight_bits, axis=w.ndim - 1 if reduced == w.ndim - 2 else w.ndim - 2)


def _matmul(work: Work, scope: Scope, node: NodeProto, scheme: Scheme) -> Nodes | None:
    for place in (1, 0):
        w = work.rewrite.weight(scope, node.input[place])
        if w is not None and w.ndim >= 2:
            reduced = w.ndim - 2 if place == 1 else w.ndim - 1
            dequantize, floats = work.dequantize(scope, node.name, w, _grid(w, scheme, reduced=reduced))
            return [dequantize, _with_input(node, place, floats)]
    return None


def _gemm(work: Work, scope: Scope, node: NodeProto, scheme: Scheme) -> Nodes | None:
    w = work.rewrite.weight(scope, node.input[1])
    if w is None:
        return None
    upright = w.T if integer(node, "transB", 0) else w
    dequantize, floats = work.dequantize(scope, node.name, upright, _grid(upright, scheme, reduced=0))
    made = _with_input(node, 1, floats)
    kept = [a for a in made.attribute if a.name != "transB"]
    del made.attribute[:]
    made.attribute.extend(kept)
    return [dequantize, made]


def _gather(work: Work, scope: Scope, node: NodeProto, scheme: Scheme) -> Nodes | None:
    """Rows of a table ``(n, width)``: one scale a row, or groups along the row."""
    table = work.rewrite.weight(scope, node.input[0])
    if table is None or table.ndim != 2 or integer(node, "axis", 0) != 0:
        return None
    if scheme.group:
        return _gather_groups(work, scope, node, table, scheme)
    grid = grid_for(table, bits=scheme.weight_bits, axis=0)
    integers = work.rewrite.tensor(scope.graph, f"{node.name}/weight", quantized(table, grid))
    scales = work.rewrite.tensor(scope.graph, f"{node.name}/scale", grid.scale[:, None])
    rows, floats, steps = (work.rewrite.fresh(f"{node.name}/{part}") for part in ("rows", "floats", "steps"))
    ids = node.input[1]
    return [
        helper.make_node("Gather", [integers, ids], [rows], name=node.name),
        helper.make_node("Cast", [rows], [floats], name=floats, to=TensorProto.FLOAT),
        helper.make_node("Gather", [scales, ids], [steps], name=steps),
        helper.make_node("Mul", [floats, steps], [node.output[0]], name=work.rewrite.fresh(f"{node.name}/scaled")),
    ]


def _gather_groups(work: Work, scope: Scope, node: NodeProto, table: Array, scheme: Scheme) -> Nodes:
    # The standard Gather does not take 4-bit types in ONNX Runtime.
    grid = group_grid(table, bits=scheme.weight_bits, group=scheme.group, axis=1)
    values = (
        stored(quantized(table, grid), grid),
        grid.scale,
        stored(grid.zero_point.astype(np.uint8), grid),
    )
    stems = ("weight", "scale", "zero_point")
    names = [
        work.rewrite.tensor(scope.graph, f"{node.name}/{stem}", value)
        for stem, value in zip(stems, values, strict=True)
    ]
    return [
        helper.make_node(
            "GatherBlockQuantized",
            [names[0], node.input[1], names[1], names[2]],
            list(node.output),
            name=node.name,
            domain=MICROSOFT,
            bits=scheme.weight_bits,
            block_size=scheme.group,
            gather_axis=0,
            quantize_axis=1,
        )
    ]


def _with_input(node: NodeProto, place: int, name: str) -> NodeProto:
    made = NodeProto.FromString(node.SerializeToString())
    made.input[place] = name
    return made


_REPLACE: dict[str, Callable[[Work, Scope, NodeProto, Scheme], Nodes | None]] = {
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
