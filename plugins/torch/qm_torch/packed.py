"""Weights of 4 bits in a program: two integers a byte, and the plain operations that restore them at each reader."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch.fx import GraphModule, Node

from qm.numerics import Grid, pack_int4
from qm.plugin import Array
from qm_torch.constant import keep

ATEN = torch.ops.aten
BITS = 4
"""Integers of so many bits, or fewer, are kept two a byte."""
SPLIT = ATEN.bitwise_right_shift.Tensor
"""The first operation on the bytes, which tells that they are packed."""
_SCALED = ATEN.mul.Tensor


def store(gm: GraphModule, name: str, integers: Array, *, lowest: int) -> None:
    """Keep integers from ``lowest`` to ``lowest + 15`` of any shape, as ``(ceil(n / 2),)`` bytes."""
    keep(gm, name, torch.from_numpy(pack_int4((integers.reshape(-1).astype(np.int16) - lowest).astype(np.uint8))))


def restored(gm: GraphModule, name: str, shape: tuple[int, ...]) -> Node:
    """The integers above the lowest, uint8 of the shape; nodes stand at the insertion point.

    The shifts are counted at each run, so that compilers take nothing of this for a constant: they would unpack it in
    the file.
    """
    call = gm.graph.call_function
    count = int(np.prod(shape))
    shifts = call(ATEN.arange.start_step, (0, 2 * BITS, BITS), {"dtype": torch.uint8})
    halves = call(SPLIT, (call(ATEN.unsqueeze.default, (gm.graph.get_attr(name), -1)), shifts))
    flat = call(ATEN.reshape.default, (call(ATEN.bitwise_and.Scalar, (halves, (1 << BITS) - 1)), [-1]))
    if count % 2:
        flat = call(ATEN.slice.Tensor, (flat, 0, 0, count))
    return call(ATEN.reshape.default, (flat, list(shape)))


def is_packed(node: Node) -> bool:
    """Whether a constant is of bytes that hold two integers each."""
    return any(user.target is SPLIT for view in node.users for user in view.users)


def scaled(gm: GraphModule, steps: Node, middle: Node, scale: Node, grid: Grid, shape: tuple[int, ...]) -> Node:
    """The floats of integers in groups along the last axis; nodes stand at the insertion point.

    ``steps`` are of the shape, ``middle`` and ``scale`` ``(..., groups)``. These are not repeated for each weight: as
    they are constants, compilers would do so in the file.
    """
    call = gm.graph.call_function
    *lead, groups = grid.scale.shape
    whole, length = groups * grid.group, shape[-1]
    if whole > length:
        steps = call(ATEN.constant_pad_nd.default, (steps, [0, whole - length]))
    parted = call(ATEN.reshape.default, (steps, [*lead, groups, grid.group]))
    away = call(ATEN.sub.Tensor, (parted, call(ATEN.unsqueeze.default, (middle, -1))))
    floats = call(_SCALED, (away, call(ATEN.unsqueeze.default, (scale, -1))))
    flat = call(ATEN.reshape.default, (floats, [*lead, whole]))
    return call(ATEN.slice.Tensor, (flat, -1, 0, length)) if whole > length else flat


def group(sources: Iterable[Node]) -> int:
    """How many weights have a scale in common, from the nodes that ``scaled`` wrote; 0 where it wrote none."""
    for node in sources:
        if node.target is _SCALED and getattr(node.args[1], "target", None) is ATEN.unsqueeze.default:
            return int(node.meta["val"].shape[-1])
    return 0
