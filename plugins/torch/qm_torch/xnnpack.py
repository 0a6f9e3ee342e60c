"""A statically quantized program as XNNPACK takes it: signed activations, and integers behind each layer too.

``torch.ptq`` writes programs for oneDNN, which AOTInductor calls: its kernels take unsigned activations, and may give
float. XNNPACK's take signed ones, and give integers, in ranges that calibration has noted in the program.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from qm.numerics import grid_for_range
from qm_torch import note, qdq, trace
from qm_torch.qdq import OPS

_STATIC = (OPS.quantize_per_tensor.default, OPS.dequantize_per_tensor.default)
_MIDDLE = 128


def prepared(program: ExportedProgram) -> ExportedProgram:
    """The program for XNNPACK; one without static activations as it is."""
    if not any(_is_unsigned(node) for node in program.graph.nodes):
        return program
    gm = trace.opened(program)
    for node in list(gm.graph.nodes):
        if (found := note.read(node)) is not None:
            qdq.activations(gm, node, list(node.users), grid_for_range(*found))
    for node in gm.graph.nodes:
        if _is_unsigned(node):
            tensor, scale, zero, low, high, _ = node.args
            node.args = (tensor, scale, zero - _MIDDLE, low - _MIDDLE, high - _MIDDLE, torch.int8)
    gm.recompile()
    return trace.closed(gm, program)


def _is_unsigned(node: Node) -> bool:
    return node.target in _STATIC and node.args[5] is torch.uint8
