"""Which operations between layers compute in integers too, and which tensors must share one scale.

An operation without weights does so where all that feeds it and all that reads it does: so there is no change between
integers and floats that the layers do not ask for, and what lies between layers in float stays in float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qm.plugin import Plan
from qm_tf.graph import Graph, Op
from qm_tf.layer import Found

SHARED = frozenset(
    {
        "AVERAGE_POOL_2D",
        "BATCH_TO_SPACE_ND",
        "BROADCAST_TO",
        "CONCATENATION",
        "DEPTH_TO_SPACE",
        "EXPAND_DIMS",
        "GATHER",
        "GATHER_ND",
        "MAXIMUM",
        "MAX_POOL_2D",
        "MINIMUM",
        "MIRROR_PAD",
        "PACK",
        "PAD",
        "PADV2",
        "REDUCE_MAX",
        "REDUCE_MIN",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "SELECT",
        "SELECT_V2",
        "SLICE",
        "SPACE_TO_BATCH_ND",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "SQUEEZE",
        "STRIDED_SLICE",
        "TILE",
        "TRANSPOSE",
        "UNPACK",
    }
)
"""Operations whose kernels take one scale for what they read and what they write."""

FIXED: Mapping[str, tuple[int, int]] = {
    "L2_NORMALIZATION": (-1, 1),
    "LOGISTIC": (0, 1),
    "SOFTMAX": (0, 1),
    "TANH": (-1, 1),
}
"""Operations whose result has the scale that LiteRT prescribes, and the range that it covers."""

FREE = frozenset(
    {
        "ABS",
        "ADD",
        "BATCH_MATMUL",
        "ELU",
        "GELU",
        "HARD_SWISH",
        "LEAKY_RELU",
        "MEAN",
        "MUL",
        "PRELU",
        "RELU",
        "RELU6",
        "SQUARED_DIFFERENCE",
        "SUB",
        "SUM",
    }
)
NARROW_ONLY = frozenset(
    {
        "DEPTH_TO_SPACE",
        "ELU",
        "GELU",
        "HARD_SWISH",
        "L2_NORMALIZATION",
        "PRELU",
        "SPACE_TO_DEPTH",
        "SQUARED_DIFFERENCE",
    }
)
"""Operations that have no kernel for 16 bits."""


BLIND = frozenset({"RANK", "SHAPE"})
"""Operations that look at no value, so that it is all the same to them in what it is stored."""


@dataclass(frozen=True)
class Chain:
    """``widths`` has the bits of the activations of each operation in integers, by its number; ``border`` those of the
    inputs and outputs of the model, 0 where they are float."""

    widths: Mapping[int, int]
    border: int
    tensors: Mapping[int, str]
    """The tensors whose ranges are needed, with the layer or operation that each belongs to."""
    groups: Sequence[frozenset[int]]
    """Tensors that must share one scale."""
    fixed: Mapping[int, tuple[float, float]]
    """Ranges that LiteRT prescribes."""

    def bits(self, graph: Graph, tensor: int) -> int:
        """The narrowest bits in which the tensor is written or read."""
        users = [*graph.consumers.get(tensor, ()), *([graph.producer[tensor]] if tensor in graph.producer else ())]
        widths = [self.widths[op.number] for op in users if op.number in self.widths]
        return min(widths, default=self.border or 8)


def draw(graph: Graph, found: Iterable[Found], plan: Plan, *, border: int = 0) -> Chain:
    """The chain that a plan makes of a graph."""
    layers = {f.op.number: f.name for f in found}
    widths = {
        f.op.number: plan[f.name].activation_bits for f in found if plan[f.name].is_static and f.op.number in layers
    }
    candidates = {op.number: op for op in graph.ops if op.number not in layers and _fits(graph, op, border)}
    widths |= _between(graph, candidates, widths)
    there = [op for op in graph.ops if op.number in widths]
    tensors: dict[int, str] = {}
    for op in there:
        for t in _activations(graph, op):
            tensors.setdefault(t, layers.get(op.number, graph.name(op.outputs[0])))
    for t in (*graph.inputs, *graph.outputs) if border else ():
        if graph.type(t) == "FLOAT32":
            tensors.setdefault(t, graph.name(t))
    return Chain(
        widths=widths, border=border, tensors=tensors, groups=_groups(graph, there), fixed=_fixed(graph, there, widths)
    )


def _fits(graph: Graph, op: Op, border: int) -> bool:
    """Whether an operation can compute in integers at all, and gains by it."""
    if op.kind not in SHARED | FREE | FIXED.keys() or not op.outputs:
        return False
    if any(graph.type(t) != "FLOAT32" for t in op.outputs) or not _activations(graph, op):
        return False
    if any(t not in graph.consumers and t not in graph.outputs for t in op.outputs):
        return False  # ai-edge-quantizer leaves a result in float that nobody reads, beside others in integers.
    if op.kind in FIXED and not border and set(op.outputs) & set(graph.outputs):
        return False  # Its result is turned to floats in any case, and as floats it is not rounded.
    return not (op.kind == "BATCH_MATMUL" and graph.is_constant(op.inputs[0]))


def _activations(graph: Graph, op: Op) -> list[int]:
    """The float tensors that an operation reads and writes, constants left out."""
    return [t for t in (*op.inputs, *op.outputs) if t >= 0 and graph.type(t) == "FLOAT32" and not graph.is_constant(t)]


def _between(graph: Graph, candidates: dict[int, Op], layers: Mapping[int, int]) -> dict[int, int]:
    """The widths of the candidates that stay; one whose neighbours compute in 16 bits must have a kernel for them."""
    while True:
        _drop_beside_floats(graph, candidates, layers)
        widths = _widened(graph, candidates, layers)
        too_wide = [n for n, op in candidates.items() if widths[n] == 16 and op.kind in NARROW_ONLY]
        if not too_wide:
            return widths
        for n in too_wide:
            del candidates[n]


def _drop_beside_floats(graph: Graph, candidates: dict[int, Op], widths: Mapping[int, int]) -> None:
    """Leave those that touch floats, and those that then do, and all that touch no layer in integers."""

    def is_integer(op: Op) -> bool:
        return op.number in widths or op.number in candidates

    def stays(op: Op) -> bool:
        return all(is_integer(o) for o in neighbours(graph, op))

    while dropped := [n for n, op in candidates.items() if not stays(op)]:
        for n in dropped:
            del candidates[n]
    reached = {n for n, op in candidates.items() if any(o.number in widths for o in neighbours(graph, op))}
    while more := {n for n in candidates.keys() - reached if _numbers(neighbours(graph, candidates[n])) & reached}:
        reached |= more
    for n in candidates.keys() - reached:
        del candidates[n]


def neighbours(graph: Graph, op: Op) -> list[Op]:
    """The operations that write what one reads, or read what it writes."""
    made: list[Op] = []
    for t in _activations(graph, op):
        if t in op.outputs:
            made.extend(user for user in graph.consumers.get(t, ()) if user.kind not in BLIND)
        elif t in graph.producer:
            made.append(graph.producer[t])
    return made


def _numbers(ops: Iterable[Op]) -> set[int]:
    return {op.number for op in ops}


def _widened(graph: Graph, candidates: Mapping[int, Op], layers: Mapping[int, int]) -> dict[int, int]:
    """The width of each candidate: the widest of its neighbours'."""
    widths = dict.fromkeys(candidates, 8)
    changed = True
    while changed:
        changed = False
        for n, op in candidates.items():
            widest = max((widths.get(o.number) or layers[o.number] for o in neighbours(graph, op)), default=8)
            if widest > widths[n]:
                widths[n], changed = widest, True
    return widths


def _groups(graph: Graph, ops: Iterable[Op]) -> list[frozenset[int]]:
    groups: list[frozenset[int]] = []
    for op in ops:
        if op.kind in SHARED:
            joined = frozenset(_activations(graph, op))
            for other in [g for g in groups if g & joined]:
                groups.remove(other)
                joined |= other
            groups.append(joined)
    return groups


def _fixed(graph: Graph, ops: Iterable[Op], widths: Mapping[int, int]) -> dict[int, tuple[float, float]]:
    made: dict[int, tuple[float, float]] = {}
    for op in ops:
        if op.kind in FIXED:
            low, high = FIXED[op.kind]
            if widths[op.number] == 8:
                made[op.outputs[0]] = (low, high - (high - low) / 256)
            else:
                made[op.outputs[0]] = (low * (1 - 2**-15), 1 - 2**-15)
    return made
