"""A statically quantized program as XNNPACK takes it: signed activations, and integers behind each layer too.

``torch.ptq`` writes programs for oneDNN, which AOTInductor calls: its kernels take unsigned activations, and may give
float, to some readers or to all. XNNPACK's take signed ones, and give integers to all readers, in ranges that
calibration has noted in the program.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from qm.numerics import grid_for_range
from qm_torch import annotation, layer, note, qdq, trace
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
        elif _is_integer_layer(node):
            _share(gm, annotation.activated(node))
    for node in gm.graph.nodes:
        if _is_unsigned(node):
            tensor, scale, zero, low, high, _ = node.args
            node.args = (tensor, scale, zero - _MIDDLE, low - _MIDDLE, high - _MIDDLE, torch.int8)
    gm.recompile()
    return trace.closed(gm, program)


def _is_integer_layer(node: Node) -> bool:
    """Whether this is a layer that reads integers, of data and weight."""
    if not layer.is_operator(node):
        return False
    place = layer.operand(node)
    read = [getattr(node.args[i], "target", None) for i in (place.data, place.weight)]
    return read == [OPS.dequantize_per_tensor.default, OPS.dequantize_per_channel.default]


def _share(gm: GraphModule, result: Node) -> None:
    """Have every reader of a result read its integers, where some do: with one in float there is no kernel for both."""
    written = next((user for user in result.users if user.target is OPS.quantize_per_tensor.default), None)
    if written is None:
        return
    for reader in [user for user in result.users if user is not written]:
        with gm.graph.inserting_before(reader):
            back = gm.graph.call_function(OPS.dequantize_per_tensor.default, (written, *written.args[1:]))
        reader.replace_input_with(result, back)


def _is_unsigned(node: Node) -> bool:
    return node.target in _STATIC and node.args[5] is torch.uint8
