"""A dynamically quantized program as oneDNN computes it best: a range for each row of the activations.

``torch.dynamic`` writes one range a tensor, found at each run, which is how XNNPACK is told; it finds one a row. oneDNN
does as it is told, so that AOTInductor is given the products of integers, and what restores them, one by one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from qm_torch import trace
from qm_torch.constant import constant, erase_unused, store
from qm_torch.qdq import OPS

ATEN = torch.ops.aten


def prepared(program: ExportedProgram) -> ExportedProgram:
    """The program for oneDNN; one without dynamic activations as it is."""
    if not any(_is_dynamic(node) for node in program.graph.nodes):
        return program
    gm = trace.opened(program)
    for node in list(gm.graph.nodes):
        if _is_dynamic(node):
            _by_row(gm, node)
    erase_unused(gm)
    return trace.closed(gm, program)


def _is_dynamic(node: Node) -> bool:
    """Whether this is a linear layer with integer weights and activations in ranges found at run time."""
    if node.target is not ATEN.linear.default:
        return False
    data, weight = node.args[:2]
    return (
        getattr(data, "target", None) is OPS.dequantize_per_tensor.tensor
        and getattr(weight, "target", None) is OPS.dequantize_per_channel.default
    )


def _by_row(gm: GraphModule, linear: Node) -> None:
    """Replace a layer by its sums of integer products.

    With x = s (q - z) a row and w = t v an output channel, x . w = s t (q . v) - s z t sum(v).
    Source: Jacob et al., "Quantization and training of neural networks", 2018, section 2.3, equation 7.
    """
    restored: Any = linear.args[0]
    integers: Any = restored.args[0]
    data: Any = integers.args[0]
    weight: Any = linear.args[1]
    name = str(weight.args[0].target)
    stored, scale = constant(gm, weight.args[0]), constant(gm, weight.args[1])
    assert stored is not None and scale is not None
    levels = restored.args[4] - restored.args[3]
    width, graph = stored.shape[1], gm.graph
    with graph.inserting_before(linear):
        # Integer by integer a constant of its own: compilers match a transposed weight that is stored as such.
        factor = store(gm, f"{name}_transposed", stored.T.contiguous())
        steps = graph.get_attr(str(weight.args[1].target))
        offsets = store(gm, f"{name}_sum", stored.sum(1).float() * scale)
        rows = graph.call_function(ATEN.reshape.default, (data, [-1, width]))
        small, zero, step = _rows(graph, rows, levels)
        sums = graph.call_function(ATEN._int_mm.default, (small, factor))
        real = graph.call_function(ATEN.to.dtype, (sums, torch.float32))
        for factors in (step, steps):
            real = graph.call_function(ATEN.mul.Tensor, (real, factors))
        shift = graph.call_function(ATEN.mul.Tensor, (graph.call_function(ATEN.mul.Tensor, (step, zero)), offsets))
        real = graph.call_function(ATEN.sub.Tensor, (real, shift))
        if len(linear.args) > 2 and linear.args[2] is not None:
            real = graph.call_function(ATEN.add.Tensor, (real, linear.args[2]))
        lead = [graph.call_function(ATEN.sym_size.int, (data, i)) for i in range(data.meta["val"].ndim - 1)]
        back = graph.call_function(ATEN.reshape.default, (real, [*lead, stored.shape[0]]))
    linear.replace_all_uses_with(back)


def _rows(graph: Graph, rows: Node, levels: int) -> tuple[Node, Node, Node]:
    """Signed integers, and the zero point and the step of each row, ``(rows, 1)`` both."""
    call = graph.call_function
    lowest = -(levels + 1) // 2
    low = call(ATEN.clamp.default, (call(ATEN.amin.default, (rows, [-1], True)), None, 0.0))
    high = call(ATEN.clamp.default, (call(ATEN.amax.default, (rows, [-1], True)), 0.0))
    span = call(ATEN.div.Tensor, (call(ATEN.sub.Tensor, (high, low)), float(levels)))
    step = call(ATEN.clamp.default, (span, torch.finfo(torch.float32).eps))
    zero = call(ATEN.rsub.Scalar, (call(ATEN.round.default, (call(ATEN.div.Tensor, (low, step)),)), lowest))
    exact = call(ATEN.add.Tensor, (call(ATEN.round.default, (call(ATEN.div.Tensor, (rows, step)),)), zero))
    kept = call(ATEN.clamp.default, (exact, lowest, lowest + levels))
    return call(ATEN.to.dtype, (kept, torch.int8)), zero, step
