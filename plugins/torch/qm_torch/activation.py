"""Which node holds what a layer gives: behind the normalization and the activation function that alone read it."""

from __future__ import annotations

import torch
from torch.fx import Node

_ATEN = torch.ops.aten
_NORMALIZING = frozenset({_ATEN.batch_norm, _ATEN._native_batch_norm_legit_no_training})
_BOUNDING = frozenset({_ATEN.relu, _ATEN.relu_, _ATEN.relu6, _ATEN.hardtanh, _ATEN.hardtanh_, _ATEN.clamp})


def result(node: Node) -> Node:
    """The node whose value is what the runtime's fused operation gives.

    Quantizing folds normalization into the layer, and a runtime fuses a bound on its result, so that only the value
    behind both can be compared. Where the value is quantized in between, the one read back is meant.
    """
    current = _behind(node, _NORMALIZING)
    return _behind(current, _BOUNDING)


def _behind(node: Node, operations: frozenset[object]) -> Node:
    reader = _reader(node)
    if getattr(reader.target, "overloadpacket", None) in operations:
        return reader
    return node


def _reader(node: Node) -> Node:
    """The one node that reads the value, past quantizing and restoring it; the node itself where there are several."""
    current = node
    while len(current.users) == 1:
        (user,) = current.users
        packet = str(getattr(getattr(user.target, "overloadpacket", None), "__name__", ""))
        if not packet.startswith(("quantize_per_", "dequantize_per_", "quantize_affine", "dequantize_affine")):
            return user
        current = user
    return node
