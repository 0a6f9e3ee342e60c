"""A program that learns with its integers to be: rounding stands where ``ptq.write`` writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from qm.numerics import Grid, grid_for_range, quantize
from qm.plugin import Array, Plan, Scheme, fitting
from qm_torch import answer, layer
from qm_torch.annotation import Annotation
from qm_torch.constant import constant, keep
from qm_torch.range import Range
from qm_torch.rounding import ActivationRounding, Kept, WeightRounding
from qm_torch.weight import Rounded, Shared, shared

Values = dict[str, Tensor]
"""What was learnt, by name: values and scales."""
_START = fitting.Wishes(rounding="nearest", ranges="auto", biases=False)
"""How grids are chosen that learning starts from."""


def biases(gm: GraphModule, schemes: Mapping[Node, Scheme]) -> dict[str, Node]:
    """The nodes that read the biases of the layers, by name."""
    ends = [node.args[2] for node in schemes if len(node.args) > 2 and layer.kind(node) != "embedding"]
    return {str(end.target): end for end in ends if isinstance(end, Node) and constant(gm, end) is not None}


class Student(nn.Module):
    """The answers of a graph, its weights and the tensors that ``drawn`` names rounded; takes tensors in order.

    ``gm`` is changed, and must not be used elsewhere. ``ranges`` are those of the tensors, by name.
    """

    def __init__(
        self, gm: GraphModule, drawn: Annotation, plan: Plan, ranges: Mapping[str, Range], *, bits: int
    ) -> None:
        super().__init__()
        for held in (*gm.parameters(), *gm.buffers()):
            held.requires_grad_(False)  # noqa: FBT003
        schemes = layer.schemes(gm.graph, plan)
        self.weights: dict[str, WeightRounding] = {}
        self.biases: dict[str, Kept] = {}
        self.roundings: dict[str, ActivationRounding] = {}
        self._first = next(iter(gm.graph.nodes))
        for number, one in enumerate(shared(gm, schemes)):
            made = WeightRounding(one.value, _grid(one))
            self.weights[one.targets[0]] = made
            rounded = self._called(gm, f"qm_weight_{number}", made)
            for node in one.nodes:
                place = layer.operand(node).weight
                node.args = (*node.args[:place], rounded, *node.args[place + 1 :])
        for number, (name, end) in enumerate(biases(gm, schemes).items()):
            value = constant(gm, end)
            assert value is not None
            self.biases[name] = Kept(value)
            end.replace_all_uses_with(self._called(gm, f"qm_bias_{number}", self.biases[name]))
        self._round(gm, drawn, ranges, bits)
        self.net = answer.answering(gm)

    def _called(self, gm: GraphModule, name: str, module: nn.Module) -> Node:
        gm.add_module(name, module)
        with gm.graph.inserting_before(self._first):
            return gm.graph.call_module(name)

    def _round(self, gm: GraphModule, drawn: Annotation, ranges: Mapping[str, Range], bits: int) -> None:
        for tensor, readers in drawn.readers.items():
            root = drawn.root(tensor).name
            name = f"qm_range_{root}"
            if root not in self.roundings:
                self.roundings[root] = ActivationRounding(grid_for_range(*ranges[tensor.name], bits=bits))
                gm.add_module(name, self.roundings[root])
            with gm.graph.inserting_after(tensor):
                rounded = gm.graph.call_module(name, (tensor,))
            for reader in readers:
                reader.replace_input_with(tensor, rounded)

    def forward(self, inputs: Sequence[Any]) -> tuple[Tensor, ...]:
        """The answers."""
        made: tuple[Tensor, ...] = self.net(*inputs)
        return made

    def values(self) -> Values:
        """What was learnt, in copies; weights as their integers stand for."""
        with torch.no_grad():
            return {
                **{f"weight {name}": w().clone() for name, w in self.weights.items()},
                **{f"step {name}": w.scale.flatten().clone() for name, w in self.weights.items()},
                **{f"bias {name}": b.value.detach().clone() for name, b in self.biases.items()},
                **{f"range {name}": r.scale.clone() for name, r in self.roundings.items()},
            }

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All that is learnt, by what it belongs to, in an order that stays the same."""
        for name, weight in self.weights.items():
            yield name, weight.weight
            yield f"step {name}", weight.factor
        for name, bias in self.biases.items():
            yield name, bias.value
        for name, rounding in self.roundings.items():
            yield f"range {name}", rounding.factor


def _grid(one: Shared) -> Grid:
    """The grid that learning starts from."""
    return fitting.Product.of(one.rows, one.bits, (), _START).grid(_START)


def give(gm: GraphModule, schemes: Mapping[Node, Scheme], values: Values) -> dict[Node, Rounded]:
    """Keep the biases that were learnt in the graph that a student was made of; its weights, by layer."""
    made: dict[Node, Rounded] = {}
    for one in shared(gm, schemes):
        grid = replace(_grid(one), scale=values[f"step {one.targets[0]}"].numpy())
        integers = quantize(values[f"weight {one.targets[0]}"].numpy(), grid)
        made.update(dict.fromkeys(one.nodes, Rounded(grid, integers)))
    for name in biases(gm, schemes):
        keep(gm, name, values[f"bias {name}"])
    return made


def ranges(drawn: Annotation, chosen: Mapping[Node, Range], values: Values, *, bits: int) -> dict[Node, Range]:
    """The ranges that were learnt, and those of the other tensors as they were chosen.

    The zero point of a range stays, so that it is exactly the range of the grid that was learnt.
    """
    made = dict(chosen)
    for tensor in drawn.readers:
        grid = grid_for_range(*chosen[tensor], bits=bits)
        scale = float(values[f"range {drawn.root(tensor).name}"])
        low, high = ((end - int(grid.zero_point)) * scale for end in grid.limits)
        made[tensor] = (low, high)
    return made


def tensors(inputs: Sequence[Array]) -> list[Tensor]:
    """Arrays as tensors of their own."""
    return [torch.from_numpy(np.array(values)) for values in inputs]
