"""How far the integers of few-bit weights reach."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch.fx import GraphModule, Node

from qm.numerics import Grid, grid_for_range, weight_clips
from qm.plugin import Scheme
from qm_torch import layer
from qm_torch.constant import constant

FEW = 4
"""Up to so many bits the choice matters: at 8 the greatest weight is the best end."""


def grids(gm: GraphModule, schemes: Mapping[Node, Scheme], *, method: str) -> dict[Node, Grid]:
    """The grids of the few-bit weights with a scale for each output channel, by layer; ``method`` as ``weight_clips``
    has it."""
    made = {}
    for node, scheme in schemes.items():
        if scheme.weight_bits <= FEW and not scheme.group:
            place = layer.operand(node)
            value = constant(gm, node.args[place.weight])
            assert value is not None
            rows = np.moveaxis(value.numpy(), place.axis, 0).reshape(value.shape[place.axis], -1)
            reach = weight_clips(rows.astype(np.float64), bits=scheme.weight_bits, method=method)
            made[node] = grid_for_range(
                -reach, reach, bits=scheme.weight_bits, symmetric=True, signed=True, axis=place.axis
            )
    return made
