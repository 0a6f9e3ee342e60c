"""Integers written into a graph: what turns values into them, and back, in the operations that compilers know."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed
from torch.fx import GraphModule, Node

from qm.numerics import Grid, grid_for, group_grid, limits, quantize
from qm.plugin import Array, Scheme
from qm_torch import layer, packed
from qm_torch.constant import constant, keep
from qm_torch.weight import Rounded

ATEN = torch.ops.aten
OPS = torch.ops.quantized_decomposed
DTYPES = {np.dtype("int8"): torch.int8, np.dtype("uint8"): torch.uint8}


def activations(gm: GraphModule, tensor: Node, readers: list[Node], grid: Grid) -> None:
    """Have the readers read the tensor by way of integers of the grid."""
    parameters = (float(grid.scale), int(grid.zero_point), *grid.limits, DTYPES[grid.dtype])
    with gm.graph.inserting_after(tensor):
        integers = gm.graph.call_function(OPS.quantize_per_tensor.default, (tensor, *parameters))
    for reader in readers:
        with gm.graph.inserting_before(reader):
            back = gm.graph.call_function(OPS.dequantize_per_tensor.default, (integers, *parameters))
        reader.replace_input_with(tensor, back)


def weights(gm: GraphModule, schemes: Mapping[Node, Scheme], rounded: Mapping[Node, Rounded] | None = None) -> None:
    """Store the weights of the layers as integers of their schemes, and restore them before each.

    ``rounded`` are those whose integers are chosen already; the others are rounded to the nearest. Layers that share a
    weight and its scheme go on sharing it. Integers of up to 4 bits are stored two a byte.
    """
    # Read before anything is replaced: layers may share the name of a weight too.
    values = {node: constant(gm, node.args[layer.operand(node).weight]) for node in schemes}
    keys = {node: _key(node, value, schemes[node]) for node, value in values.items()}
    written: dict[tuple[object, ...], tuple[str, Grid]] = {}
    for node, value in values.items():
        assert value is not None
        place = layer.operand(node).weight
        if keys[node] not in written:
            made = (rounded or {}).get(node) or _nearest(value.numpy(), schemes[node], layer.operand(node).axis)
            name = str(node.args[place].target)
            if any(keys.get(reader) != keys[node] for reader in _readers(gm, name)):
                name = f"{name}_{schemes[node]}"
            _store(gm, name, made.integers, made.grid)
            written[keys[node]] = name, made.grid
        _restore(gm, node, place, *written[keys[node]], tuple(value.shape))


def _nearest(value: Array, scheme: Scheme, axis: int) -> Rounded:
    """Symmetric scales, one for each output channel along ``axis``, or the best for each group along the last."""
    if scheme.group:
        grid = group_grid(value, bits=scheme.weight_bits, group=scheme.group, axis=value.ndim - 1)
    else:
        grid = grid_for(value, bits=scheme.weight_bits, axis=axis)
    return Rounded(grid, quantize(value, grid))


def _key(node: Node, value: Any, scheme: Scheme) -> tuple[object, ...]:
    """What two layers have in common that share the integers of their weight."""
    axis = None if scheme.group else layer.operand(node).axis
    return value.data_ptr(), tuple(value.shape), axis, scheme.weight_bits, scheme.group


def _readers(gm: GraphModule, name: str) -> list[Node]:
    return [user for node in gm.graph.nodes if node.op == "get_attr" and node.target == name for user in node.users]


def _store(gm: GraphModule, name: str, integers: Array, grid: Grid) -> None:
    if grid.bits <= packed.BITS:
        packed.store(gm, name, integers, lowest=_lowest(grid))
    else:
        keep(gm, name, torch.from_numpy(integers))
    keep(gm, f"{name}_scale", torch.from_numpy(np.ascontiguousarray(grid.scale)))
    if grid.group:
        packed.store(gm, f"{name}_zero_point", grid.zero_point, lowest=0)
    else:
        keep(gm, f"{name}_zero_point", torch.zeros(grid.scale.shape, dtype=torch.int64))


def _lowest(grid: Grid) -> int:
    return limits(packed.BITS, signed=grid.signed)[0]


def _restore(gm: GraphModule, node: Node, place: int, name: str, grid: Grid, shape: tuple[int, ...]) -> None:
    with gm.graph.inserting_before(node):
        back = _groups(gm, name, grid, shape) if grid.group else _channels(gm, name, grid, shape)
    node.args = (*node.args[:place], back, *node.args[place + 1 :])


def _channels(gm: GraphModule, name: str, grid: Grid, shape: tuple[int, ...]) -> Node:
    call = gm.graph.call_function
    if grid.bits <= packed.BITS:
        above = call(ATEN.to.dtype, (packed.restored(gm, name, shape), DTYPES[grid.dtype]))
        integers = call(ATEN.add.Tensor, (above, _lowest(grid)))
    else:
        integers = gm.graph.get_attr(name)
    parts = [gm.graph.get_attr(name + end) for end in ("_scale", "_zero_point")]
    return call(OPS.dequantize_per_channel.default, (integers, *parts, grid.axis, *grid.limits, DTYPES[grid.dtype]))


def _groups(gm: GraphModule, name: str, grid: Grid, shape: tuple[int, ...]) -> Node:
    call = gm.graph.call_function
    steps = call(ATEN.to.dtype, (packed.restored(gm, name, shape), torch.float32))
    middle = call(ATEN.to.dtype, (packed.restored(gm, f"{name}_zero_point", grid.zero_point.shape), torch.float32))
    return packed.scaled(gm, steps, middle, gm.graph.get_attr(f"{name}_scale"), grid, shape)


def dynamic(gm: GraphModule, node: Node, *, bits: int) -> None:
    """Have a layer read its data by way of integers whose range is found at each run."""
    data: Any = node.args[0]
    high = (1 << bits) - 1
    smallest = torch.finfo(torch.float32).eps
    with gm.graph.inserting_before(node):
        found = gm.graph.call_function(OPS.choose_qparams.tensor, (data, 0, high, smallest, torch.uint8))
        scale, zero = (gm.graph.call_function(operator.getitem, (found, i)) for i in (0, 1))
        parameters = (scale, zero, 0, high, torch.uint8)
        integers = gm.graph.call_function(OPS.quantize_per_tensor.tensor, (data, *parameters))
        back = gm.graph.call_function(OPS.dequantize_per_tensor.tensor, (integers, *parameters))
    node.args = (back, *node.args[1:])
