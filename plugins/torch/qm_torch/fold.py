"""What inference has no need of, taken out of a program before it is quantized: batch norm, padding, dropout.

Each layer keeps its name; results change by rounding alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from qm_torch import bias
from qm_torch.constant import constant, erase_unused, replace

ATEN = torch.ops.aten
CONVOLUTIONS = {ATEN.conv1d.default: 1, ATEN.conv2d.default: 2}
"""Convolutions, by how many axes they slide along."""

_DROPOUT = (ATEN.dropout.default, ATEN.feature_dropout.default, ATEN.alpha_dropout.default)


def fold(gm: GraphModule) -> GraphModule:
    """Fold, in place, all that can be."""
    for node in list(gm.graph.nodes):
        if node.target in _DROPOUT and node.args[2] is False:
            node.replace_all_uses_with(node.args[0])
        elif node.target is ATEN.batch_norm.default:
            _batch_norm(gm, node)
    for node in list(gm.graph.nodes):
        if node.target in CONVOLUTIONS:
            _padding(node)
    erase_unused(gm)
    return gm


def _batch_norm(gm: GraphModule, norm: Node) -> None:
    """Scale the convolution before a batch norm instead.

    Source: Jacob et al., "Quantization and training of neural networks", 2018, section 3.2, equation 14.
    """
    conv = norm.args[0]
    gamma, beta, mean, variance, is_training, _, epsilon = norm.args[1:8]
    if not isinstance(conv, Node) or conv.target not in CONVOLUTIONS or len(conv.users) > 1 or is_training:
        return
    weight = constant(gm, conv.args[1])
    # Another reader of the weights would get them scaled too.
    if weight is None or len(conv.args[1].users) > 1:
        return
    known = [constant(gm, n) for n in (gamma, beta, mean, variance, bias.given(conv))]
    if known[2] is None or known[3] is None:
        return
    scale = torch.rsqrt(known[3].double() + float(epsilon))
    if known[0] is not None:
        scale = scale * known[0]
    offset = known[1] if known[1] is not None else torch.zeros_like(scale)
    own = known[4] if known[4] is not None else torch.zeros_like(scale)
    scaled = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).to(weight.dtype)
    replace(gm, conv, 1, str(conv.args[1].target), scaled)
    bias.write(gm, conv, (offset + (own - known[2]) * scale).to(weight.dtype))
    norm.replace_all_uses_with(conv)


def _padding(conv: Node) -> None:
    """Let a convolution pad by itself where an even padding of zeros comes before it."""
    pad = conv.args[0]
    if not isinstance(pad, Node) or pad.target is not ATEN.pad.default or not is_zero_padding(pad):
        return
    amounts: Any = pad.args[1]
    even = [amounts[i] for i in range(0, len(amounts), 2)][::-1]
    if amounts[0::2] != amounts[1::2] or len(even) != CONVOLUTIONS[conv.target]:
        return
    own: Any = argument(conv, 4) or [0] * len(even)
    if isinstance(own, str):
        return
    values = [argument(conv, i) for i in range(7)]
    ones = [1] * len(even)
    conv.args = (
        pad.args[0],
        values[1],
        values[2],
        values[3] or ones,
        [a + b for a, b in zip(own, even, strict=False)],
        values[5] or ones,
        values[6] or 1,
    )
    conv.kwargs = {}


def is_zero_padding(node: Node) -> bool:
    """Whether a padding puts zeros."""
    mode = node.args[2] if len(node.args) > 2 else "constant"
    return mode == "constant" and not (node.args[3] if len(node.args) > 3 else 0)


def argument(node: Node, place: int) -> Any:
    """An argument of an operation, None where it is left to its default."""
    if place < len(node.args):
        return node.args[place]
    schema = node.target._schema.arguments
    return node.kwargs.get(schema[place].name)
