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

Weights that stay in a file of their own when the model is loaded go one by one, piece by piece, into the data file of
the result, so that the memory it takes does not grow with the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, helper

from qm.plugin import Notes, Plan, QuantizeJob, Scheme, Unsupported
from qm_onnx.encode import Encoded, Held, Store, encode
from qm_onnx.graph import Scope, integer, tensors
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import raise_opset
from qm_onnx.rewrite import MICROSOFT, Rewrite, rewrite
from qm_onnx.spill import Spill
from qm_onnx.weight import Weight, find_weight

ENCODING = 1
"""Goes up when other bytes are stored for the same weight, so that no run goes on from what an older version left."""

GROUPS_SINCE = 21
"""The opset that brought DequantizeLinear its groups and its 4-bit types."""

_STEMS = ("weight", "scale", "zero_point")

Nodes = list[NodeProto]


@dataclass
class Work:
    """A rewrite, where its weights are put, and where it tells what it decided."""

    rewrite: Rewrite
    store: Store
    notes: Notes
    _known: dict[Hashable, Encoded] = field(default_factory=dict)

    def weight(self, scope: Scope, name: str) -> Weight | None:
        """The float constant behind an operand, see ``find_weight``."""
        return find_weight(scope, name, self.rewrite.folder)

    def encode(self, scope: Scope, node: NodeProto, weight: Weight, scheme: Scheme, *, reduced: int) -> Encoded:
        """The weight of a layer in ``scheme``; layers that share it share what was made of it."""
        key = (weight.key, scheme, reduced)
        if key not in self._known:
            self._known[key] = encode(weight, scheme, self.store, layer=scope.path + node.name, reduced=reduced)
        return self._known[key]

    def names(self, scope: Scope, node: NodeProto, stored: Iterable[TensorProto]) -> list[str]:
        """What the stored integers, scales and zero points of a layer are called."""
        return [
            self.rewrite.tensor(scope.graph, f"{node.name}/{stem}", tensor)
            for stem, tensor in zip(_STEMS, stored, strict=False)
        ]

    def dequantize(self, scope: Scope, node: NodeProto, encoded: Encoded) -> tuple[NodeProto, str]:
        """A node that makes floats of the stored integers, and the name of what it makes."""
        out = self.rewrite.fresh(f"{node.name}/dequantized")
        where = {"axis": encoded.axis} | ({"block_size": encoded.group} if encoded.group else {})
        inputs = self.names(scope, node, encoded.tensors)
        name = self.rewrite.fresh(f"{node.name}/dequantize")
        return helper.make_node("DequantizeLinear", inputs, [out], name=name, **where), out


def quantize(job: QuantizeJob) -> OnnxModel:
    """The model with the weights of the plan's layers stored as integers.

    A layer whose weights are not constant floats of two or more dimensions stays in float, with a note.

    Raises:
        Unsupported: a group scheme is asked and the model cannot be brought to opset 21.
    """
    model, change = rewrite(job, "weights", _raised(job))
    spill = Spill(job.scratch, _subject(change, job.plan)) if model.is_streamed else None
    # Closed whatever happens: who is interrupted may ask for the same again, in this process too.
    with nullcontext() if spill is None else closing(spill):
        _replace(job, Work(change, spill or Held(), job.notes))
        made = change.finish(MICROSOFT)
        if spill is not None:
            _move(made, change.folder or Path(), spill)
    if job.target.integer_dot is False and any(s.weight_bits == 8 for s in job.plan.schemes()):
        job.notes.say(
            f"8-bit weights with float activations run slower than float on {job.target.name!r}, which has no 8-bit "
            "dot product; onnx.dynamic is the faster way"
        )
    return model.with_proto(made, spill)


def _replace(job: QuantizeJob, work: Work) -> None:
    for scope, node, scheme in job.progress.track(work.rewrite.planned(job.plan), "quantize"):
        replace = _REPLACE.get(node.op_type)
        made = replace(work, scope, node, scheme) if replace else None
        if made is None:
            job.notes.say(f"{scope.path}{node.name}: stays in float, since its weights cannot be stored as {scheme}")
        else:
            work.rewrite.replace(scope, node, made)


def _subject(change: Rewrite, plan: Plan) -> str:
    """What tells one piece of work from another: the model, its data files, the plan, and how weights are stored."""
    files = sorted({e.value for t in tensors(change.proto) for e in t.external_data if e.key == "location"})
    marks = [(name, (s := ((change.folder or Path()) / name).stat()).st_size, s.st_mtime_ns) for name in files]
    told = [ENCODING, marks, {name: str(scheme) for name, scheme in plan.layers.items()}]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    digest.update(change.proto.SerializeToString(deterministic=True))
    return digest.hexdigest()[:16]


def _move(made: ModelProto, folder: Path, spill: Spill) -> None:
    """Copy what is left of the model's own external data, so that all lies in one file."""
    for tensor in tensors(made):
        if tensor.data_location == TensorProto.EXTERNAL and not spill.holds(tensor):
            tensor.CopyFrom(spill.copy(tensor, folder))


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


def _matmul(work: Work, scope: Scope, node: NodeProto, scheme: Scheme) -> Nodes | None:
    for place in (1, 0):
        w = work.weight(scope, node.input[place])
        if w is not None and w.value.ndim >= 2:
            reduced = w.value.ndim - 1 - place
            encoded = work.encode(scope, node, w, scheme, reduced=reduced)
            dequantize, floats = work.dequantize(scope, node, encoded)
            return [dequantize, _with_input(node, place, floats)]
    return None


def _gemm(work: Work, scope: Scope, node: NodeProto, scheme: Scheme) -> Nodes | None:
    w = work.weight(scope, node.input[1])
    if w is None:
        return None
    upright = w.transposed if integer(node, "transB", 0) else w
    dequantize, floats = work.dequantize(scope, node, work.encode(scope, node, upright, scheme, reduced=0))
    made = _with_input(node, 1, floats)
    kept = [a for a in made.attribute if a.name != "transB"]
    del made.attribute[:]
    made.attribute.extend(kept)
    return [dequantize, made]


def _gather(work: Work, scope: Scope, node: NodeProto, scheme: Scheme) -> Nodes | None:
    """Rows of a table ``(n, width)``: one scale a row, or groups along the row."""
    table = work.weight(scope, node.input[0])
    if table is None or table.value.ndim != 2 or integer(node, "axis", 0) != 0:
        return None
    integers, scale, *zeros = work.encode(scope, node, table, scheme, reduced=1).tensors
    if scheme.group:
        return _gather_groups(work.names(scope, node, [integers, scale, *zeros]), node, scheme)
    stored, scales = work.names(scope, node, [integers, _column(scale)])
    rows, floats, steps = (work.rewrite.fresh(f"{node.name}/{part}") for part in ("rows", "floats", "steps"))
    ids = node.input[1]
    return [
        helper.make_node("Gather", [stored, ids], [rows], name=node.name),
        helper.make_node("Cast", [rows], [floats], name=floats, to=TensorProto.FLOAT),
        helper.make_node("Gather", [scales, ids], [steps], name=steps),
        helper.make_node("Mul", [floats, steps], [node.output[0]], name=work.rewrite.fresh(f"{node.name}/scaled")),
    ]


def _gather_groups(stored: list[str], node: NodeProto, scheme: Scheme) -> Nodes:
    # The standard Gather does not take 4-bit types in ONNX Runtime.
    return [
        helper.make_node(
            "GatherBlockQuantized",
            [stored[0], node.input[1], *stored[1:]],
            list(node.output),
            name=node.name,
            domain=MICROSOFT,
            bits=scheme.weight_bits,
            block_size=scheme.group,
            gather_axis=0,
            quantize_axis=1,
        )
    ]


def _column(tensor: TensorProto) -> TensorProto:
    """A vector ``(n,)`` as ``(n, 1)``."""
    made = TensorProto()
    made.CopyFrom(tensor)
    made.dims.append(1)
    return made


def _with_input(node: NodeProto, place: int, name: str) -> NodeProto:
    made = NodeProto.FromString(node.SerializeToString())
    made.input[place] = name
    return made


_REPLACE: dict[str, Callable[[Work, Scope, NodeProto, Scheme], Nodes | None]] = {
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
