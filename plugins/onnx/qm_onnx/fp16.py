"""Half precision: weights stored, and where the runtime can, computed in float16; inputs and outputs stay float32.

A planned layer becomes float16 with all its operands. What follows it stays in float16 while that is safe: operators
that move, scale or clip values, but none that sums many of them or exponentiates. Everything else is cast back to
float32, so layers outside the plan, loops and branches see what they saw before. ONNX Runtime on x86 has few float16
kernels and casts inside: the file is half the size, the speed about the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto, TensorProto, helper

from qm.plugin import Notes, QuantizeJob
from qm_onnx.graph import Scope, subgraphs
from qm_onnx.model import OnnxModel
from qm_onnx.rewrite import Rewrite, rewrite

# Operands that are float. Of any other operator of the two lists below, all are.
_FLOAT_OPERANDS: dict[str, tuple[int, ...]] = {
    "Expand": (0,),
    "GRU": (0, 1, 2, 3, 5),
    "Gather": (0,),
    "LSTM": (0, 1, 2, 3, 5, 6, 7),
    "Pad": (0, 2),
    "RNN": (0, 1, 2, 3, 5),
    "Reshape": (0,),
    "Slice": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "Unsqueeze": (0,),
}

_LAYERS = frozenset({"Conv", "ConvTranspose", "GRU", "Gather", "Gemm", "LSTM", "MatMul", "RNN"})

# None of these leaves the range of float16 if its operands are far inside it.
_FOLLOWERS = frozenset(
    {
        "Add",
        "AveragePool",
        "Clip",
        "Concat",
        "Elu",
        "Expand",
        "Flatten",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "Mul",
        "PRelu",
        "Pad",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Split",
        "Squeeze",
        "Sub",
        "Tanh",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)

LOST = 1e-4
"""Largest share of a weight's energy that rounding to float16 may lose; it loses 1e-7 where all is in range."""


@dataclass
class Work:
    """A rewrite, and for each graph the float16 twins of its float32 tensors."""

    rewrite: Rewrite
    notes: Notes
    twins: dict[int, dict[str, str]] = field(default_factory=dict)

    def known(self, scope: Scope) -> dict[str, str]:
        """Twins in the site's own graph: one from a branch of an If would not be there in the other."""
        return self.twins.setdefault(id(scope.graph), {})


def quantize(job: QuantizeJob) -> OnnxModel:
    """The model with the layers of the plan in float16.

    A layer with weights that float16 cannot hold stays in float, with a note.
    """
    model, change = rewrite(job, "fp16")
    work = Work(change, job.notes)
    planned = {id(node) for _, node, _ in work.rewrite.planned(job.plan)}
    for scope, node in work.rewrite.sites:
        if id(node) in planned:
            _halve_layer(work, scope, node)
        elif node.op_type in _FOLLOWERS and _follows(work, scope, node):
            _halve(work, scope, node)
    return model.with_proto(work.rewrite.finish())


def _halve_layer(work: Work, scope: Scope, node: NodeProto) -> None:
    name = scope.path + node.name
    if node.op_type not in _LAYERS:
        work.notes.say(f"{name}: stays in float, since {node.op_type} is not converted to float16")
    elif not all(_fits(work, scope, node.input[i]) for i in _places(node)):
        work.notes.say(f"{name}: stays in float, since its weights lie outside the range of float16")
    else:
        _halve(work, scope, node)


def _places(node: NodeProto) -> Iterable[int]:
    """Numbers of the float operands that are there."""
    places = _FLOAT_OPERANDS.get(node.op_type, range(len(node.input)))
    return [i for i in places if i < len(node.input) and node.input[i]]


def _fits(work: Work, scope: Scope, name: str) -> bool:
    """Whether an operand is computed, or a constant that float16 holds."""
    value = work.rewrite.constant(scope, name)
    if value is None:
        return True
    with np.errstate(over="ignore"):
        rounded = value.astype(np.float16).astype(np.float64)
    if not np.isfinite(rounded).all():
        return False
    return float(np.square(rounded - value).sum()) <= LOST * float(np.square(value.astype(np.float64)).sum())


def _follows(work: Work, scope: Scope, node: NodeProto) -> bool:
    """Whether every float operand has a twin or is a constant that float16 holds, and one has a twin."""
    twins = work.known(scope)
    rest = [node.input[i] for i in _places(node) if node.input[i] not in twins]
    constant = all(work.rewrite.constant(scope, name) is not None and _fits(work, scope, name) for name in rest)
    return constant and len(rest) < len(list(_places(node))) and not any(True for _ in subgraphs(node))


def _halve(work: Work, scope: Scope, node: NodeProto) -> None:
    """Put the node in float16 in its own place, casts around it; those that nothing reads are pruned at the end."""
    twins = work.known(scope)
    made = NodeProto.FromString(node.SerializeToString())
    before: list[NodeProto] = []
    for i in _places(node):
        made.input[i] = _half(work, scope, node, node.input[i], before)
    after: list[NodeProto] = []
    for i, out in enumerate(node.output):
        if out:
            twins[out] = made.output[i] = work.rewrite.fresh(f"{out}/half")
            after.append(_cast(work, twins[out], out, TensorProto.FLOAT))
    work.rewrite.replace(scope, node, [*before, made, *after])


def _half(work: Work, scope: Scope, node: NodeProto, name: str, before: list[NodeProto]) -> str:
    """The twin of an operand, made where there is none."""
    twins = work.known(scope)
    if name not in twins:
        value = work.rewrite.constant(scope, name)
        if value is not None:
            graph = work.rewrite.home(scope, node)
            return work.rewrite.tensor(graph, f"{name}/half", value.astype(np.float16))
        twins[name] = work.rewrite.fresh(f"{name}/half")
        before.append(_cast(work, name, twins[name], TensorProto.FLOAT16))
    return twins[name]


def _cast(work: Work, name: str, to: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [name], [to], name=work.rewrite.fresh(f"{to}/cast"), to=kind)
