"""Integers written into a graph: what turns values into them, and back, in the operations that compilers know."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed
from torch.fx import GraphModule, Node

from qm.numerics import Grid, grid_for, quantize
from qm.plugin import Scheme
from qm_torch import layer
from qm_torch.constant import constant, keep

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


def weights(gm: GraphModule, schemes: Mapping[Node, Scheme], grids: Mapping[Node, Grid] | None = None) -> None:
    """Store the weights of the layers as integers of their schemes, one scale a channel, and restore them before each.

    ``grids`` are those of layers whose scales are chosen already. Layers that share a weight go on sharing it.
    """
    # Read before anything is replaced: layers may share the name of a weight too.
    values = {node: constant(gm, node.args[layer.operand(node).weight]) for node in schemes}
    written: dict[tuple[int, int, tuple[int, ...]], tuple[str, Grid]] = {}
    for node, value in values.items():
        assert value is not None
        operand = layer.operand(node)
        key = (value.data_ptr(), operand.axis, tuple(value.shape))
        if key not in written:
            stored: Any = node.args[operand.weight]
            grid = (grids or {}).get(node) or grid_for(value.numpy(), bits=schemes[node].weight_bits, axis=operand.axis)
            _store(gm, str(stored.target), value, grid)
            written[key] = str(stored.target), grid
        _restore(gm, node, operand.weight, *written[key])


def _store(gm: GraphModule, name: str, value: torch.Tensor, grid: Grid) -> None:
    keep(gm, name, torch.from_numpy(quantize(value.numpy(), grid)))
    keep(gm, f"{name}_scale", torch.from_numpy(np.ascontiguousarray(grid.scale)))
    keep(gm, f"{name}_zero_point", torch.zeros(grid.scale.shape, dtype=torch.int64))


def _restore(gm: GraphModule, node: Node, place: int, name: str, grid: Grid) -> None:
    with gm.graph.inserting_before(node):
        parts = [gm.graph.get_attr(name + end) for end in ("", "_scale", "_zero_point")]
        back = gm.graph.call_function(
            OPS.dequantize_per_channel.default, (*parts, grid.axis, *grid.limits, DTYPES[grid.dtype])
        )
    node.args = (*node.args[:place], back, *node.args[place + 1 :])


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
