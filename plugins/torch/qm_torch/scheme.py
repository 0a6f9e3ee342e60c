"""What each layer IS in, read from the graph: the nodes that restore its weight, and those around its data."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from qm.plugin import F16, FLOAT, Activations, Granularity, Scheme
from qm_torch import packed
from qm_torch.layer import Found, ancestry, find

_RESHAPING = frozenset(
    {
        "_unsafe_view", "alias", "clone", "contiguous", "detach", "dropout", "expand", "flatten", "permute", "reshape",
        "squeeze", "t", "transpose", "unflatten", "unsqueeze", "view",
    }
)  # fmt: skip
"""Operations that move values and do not change them."""
_HALF = frozenset({torch.float16, torch.bfloat16})


def schemes(program: ExportedProgram) -> dict[str, Scheme]:
    """The scheme of each layer, by name."""
    return {f.name: scheme(f) for f in find(program)}


def is_quantized(program: ExportedProgram) -> bool:
    """Whether any layer is not in float."""
    return any(not s.is_float for s in schemes(program).values())


def scheme(found: Found) -> Scheme:
    """The scheme of one layer."""
    stored = found.leaves[0].meta["val"]
    if stored.dtype in _HALF:
        return F16
    if stored.dtype.is_floating_point:
        return FLOAT
    restoring = next((n for n in ancestry(found.weight) if is_dequantize(n)), None)
    activations, bits = _activations(found)
    granularity, group = _packed_groups(found) if restoring is None else _granularity(restoring, found)
    return Scheme(
        weight_bits=_stored_bits(found) if restoring is None else width(restoring),
        activations=activations,
        activation_bits=bits,
        granularity=granularity,
        group=group,
    )


def is_dequantize(node: Node) -> bool:
    """Whether the node turns integers back into real values."""
    return operation(node).startswith("dequantize")


def operation(node: Node) -> str:
    """The name of the operation without its overload, empty for a node that is none."""
    packet = getattr(node.target, "overloadpacket", None)
    return str(getattr(packet, "__name__", "")) if node.op == "call_function" else ""


def argument(node: Node, name: str) -> Any:
    """The argument of that name, as the operation's schema has it; None where there is none."""
    for position, declared in enumerate(node.target._schema.arguments):
        if declared.name == name:
            return node.args[position] if position < len(node.args) else node.kwargs.get(name, declared.default_value)
    return None


def width(node: Node) -> int:
    """The bits between the least and the greatest integer of a quantize or dequantize node.

    Integers of fewer bits than a byte may be stored one a byte, so that the dtype does not tell.
    """
    low, high = argument(node, "quant_min"), argument(node, "quant_max")
    if low is None or high is None:
        dtype = argument(node, "dtype") or argument(node, "input_dtype")
        return int(torch.iinfo(dtype).bits)
    return int(high - low).bit_length()


def _stored_bits(found: Found) -> int:
    """Bits a weight, where integers are restored by other means than a dequantize node."""
    if packed.is_packed(found.leaves[0]):
        return packed.BITS
    stored = found.leaves[0].meta["val"]
    count = 1
    for size in found.shape:
        count *= size
    return max(1, round(int(stored.numel()) * int(stored.element_size()) * 8 / count))


def _packed_groups(found: Found) -> tuple[Granularity, int]:
    """Of integers that are restored by plain operations: those that ``packed`` writes have groups."""
    group = packed.group(ancestry(found.weight)) if packed.is_packed(found.leaves[0]) else 0
    return (Granularity.GROUP, group) if group else (Granularity.CHANNEL, 0)


def _granularity(node: Node, found: Found) -> tuple[Granularity, int]:
    name = operation(node)
    whole = found.shape[found.place.axis] == 1  # One channel: its scale is that of the tensor.
    if name == "dequantize_per_channel_group":
        return Granularity.GROUP, int(argument(node, "group_size"))
    if name == "dequantize_affine":
        return _blocks([int(n) for n in argument(node, "block_size")], node)
    if name == "dequantize_per_tensor" and not whole:
        return Granularity.TENSOR, 0
    return Granularity.CHANNEL, 0


def _blocks(block: list[int], node: Node) -> tuple[Granularity, int]:
    shape = list(node.args[0].meta["val"].shape)
    if block == shape and shape[0] > 1:
        return Granularity.TENSOR, 0
    if block[-1] < shape[-1]:
        return Granularity.GROUP, block[-1]
    return Granularity.CHANNEL, 0


def _activations(found: Found) -> tuple[Activations, int]:
    restoring = _restoring(found.data)
    if found.kind == "embedding" or restoring is None:  # A table's rows are looked up, not multiplied.
        return Activations.FLOAT, 32
    bits = width(restoring)
    # Kernels without VNNI get seven of the eight bits, so that their sums do not saturate: the scheme is the same.
    bits = 8 if bits == 7 else bits
    scale = restoring.args[2 if operation(restoring) == "dequantize_affine" else 1]
    chosen = isinstance(scale, Node) and any(operation(n).startswith("choose_qparams") for n in ancestry(scale))
    return (Activations.DYNAMIC if chosen else Activations.STATIC), bits


def _restoring(node: Node) -> Node | None:
    """The dequantize node that a layer's data come from, behind what only moves them."""
    while operation(node) in _RESHAPING:
        node = node.args[0]
    return node if is_dequantize(node) else None
