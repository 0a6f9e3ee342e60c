"""Layers rounded in turn: each is fitted to what reaches it through those that are rounded already.

Its weights follow the way that its inputs have moved, and its biases make good what is left on average.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

import torch
from torch.fx import GraphModule, Node

from qm.numerics import Drift
from qm.plugin import Array, Dataset, Progress, Scheme, fitting
from qm_torch import bias, matrix, weight
from qm_torch.model import TorchModel
from qm_torch.way import Way
from qm_torch.weight import Rounded, Shared

Pair = tuple[Shared, fitting.Product]


def fit(
    model: TorchModel,
    gm: GraphModule,
    schemes: Mapping[Node, Scheme],
    data: Dataset,
    wishes: fitting.Wishes,
    *,
    progress: Progress,
) -> dict[Node, Rounded]:
    """The integers of the layers' weights, as ``weight.fit``, one layer after another."""
    way = Way(model, gm, data, most=fitting.SAMPLES)
    made: dict[Node, Rounded] = {}
    shifts: dict[Node, Array] = {}
    order = {node: i for i, node in enumerate(gm.graph.nodes)}
    pairs = sorted(zip(*weight.divided(gm, schemes, wishes), strict=True), key=lambda p: order[p[0].nodes[0]])
    for part in progress.track(list(_parts(pairs)), "rounding layers in turn"):
        drifts = [product.drifts() for _, product in part]
        _watch(way, part, drifts, ahead=[n for n in schemes if n not in made])
        for (one, product), seen in zip(part, drifts, strict=True):
            goal = product.behind(seen, wishes)
            grid = goal.grid(wishes)
            integers = goal.integers(grid, wishes)
            made.update(dict.fromkeys(one.nodes, Rounded(grid, integers.reshape(one.value.shape))))
            value = torch.from_numpy(goal.values(integers, grid).reshape(one.value.shape)).to(one.value.dtype)
            for node in one.nodes:
                own = None
                if wishes.biases:
                    shifts[node] = product.lost(integers, grid, seen[node.args[0]])
                    own = weight.shifted(gm, node, shifts[node])
                way.change(node, value, bias.given(node) if own is None else own)
            product.forget()
    for node, shift in shifts.items():
        weight.correct(gm, node, shift)
    return made


def _parts(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Neighbours that read the same tensors: of two layers in a row each would make good the same movement."""
    for places in fitting.portions([product for _, product in pairs]):
        part: list[Pair] = []
        for one, product in (pairs[i] for i in places):
            if part and set(part[0][1].moments) != set(product.moments):
                yield part
                part = []
            part.append((one, product))
        yield part


def _watch(way: Way, part: Sequence[Pair], drifts: Sequence[Mapping[Hashable, Drift]], ahead: list[Node]) -> None:
    """Take in how the inputs of the layers have moved; layers ``ahead`` may change yet."""
    readers = {
        next(n for n in one.nodes if n.args[0] is tensor): (one, drift)
        for (one, _), seen in zip(part, drifts, strict=True)
        for tensor, drift in seen.items()
    }
    for number, node, before, now in way.inputs(readers, ahead):
        one, drift = readers[node]
        drift.update(*(matrix.data(node, tuple(one.value.shape), v.detach().numpy(), number) for v in (before, now)))
