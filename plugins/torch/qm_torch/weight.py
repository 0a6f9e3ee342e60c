"""The integers of weights, and the biases that go with them: fitted to what the inputs of the layers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from qm.numerics import Grid
from qm.plugin import Array, Dataset, Progress, Scheme, fitting
from qm_torch import bias, layer, matrix, watch
from qm_torch.constant import constant
from qm_torch.model import TorchModel


@dataclass(frozen=True, eq=False)
class Rounded:
    """A weight as integers of a grid."""

    grid: Grid
    integers: Array


@dataclass(frozen=True)
class Shared:
    """A weight that layers share, or a single layer's: the names it is kept under, and who reads it."""

    targets: tuple[str, ...]
    nodes: tuple[Node, ...]
    value: Tensor
    bits: int

    @property
    def rows(self) -> Array:
        """The weight as matrices ``(groups, out, in)``."""
        return matrix.rows(self.nodes[0], self.value.numpy())


def shared(gm: GraphModule, schemes: Mapping[Node, Scheme]) -> list[Shared]:
    """The weights of the layers, each once however many layers read it."""
    found: dict[tuple[object, ...], Shared] = {}
    for node, scheme in schemes.items():
        place = layer.operand(node)
        read: Any = node.args[place.weight]
        value = constant(gm, read)
        assert value is not None
        key = (value.data_ptr(), place.axis, tuple(value.shape))
        before = found.get(key)
        if before is None:
            found[key] = Shared((str(read.target),), (node,), value, scheme.weight_bits)
        else:
            names = tuple(dict.fromkeys((*before.targets, str(read.target))))
            found[key] = replace(before, targets=names, nodes=(*before.nodes, node))
    return list(found.values())


def divided(
    gm: GraphModule, schemes: Mapping[Node, Scheme], wishes: fitting.Wishes
) -> tuple[list[Shared], list[fitting.Product]]:
    """The weights of the layers, and as products with room for what their inputs are."""
    # Layers that share a weight may have schemes of their own.
    parts = [{n: s for n, s in schemes.items() if s == scheme} for scheme in dict.fromkeys(schemes.values())]
    weights = [one for part in parts for one in shared(gm, part)]
    return weights, [fitting.Product.of(w.rows, w.bits, (n.args[0] for n in w.nodes), wishes) for w in weights]


def fit(
    model: TorchModel,
    gm: GraphModule,
    schemes: Mapping[Node, Scheme],
    data: Dataset,
    wishes: fitting.Wishes,
    *,
    progress: Progress,
) -> dict[Node, Rounded]:
    """The integers of the layers' weights; biases are changed in the graph where they are to make good what is lost."""
    weights, products = divided(gm, schemes, wishes)
    made: dict[Node, Rounded] = {}
    shifts: dict[Node, Array] = {}
    for part in fitting.portions(products):
        _watch(model, gm, [weights[i] for i in part], [products[i] for i in part], data, progress)
        for i in progress.track(part, "rounding weights", total=len(part)):
            one, product = weights[i], products[i]
            grid = product.grid(wishes)
            integers = product.integers(grid, wishes)
            made.update(dict.fromkeys(one.nodes, Rounded(grid, integers.reshape(one.value.shape))))
            if wishes.biases:
                shifts |= {n: product.shift(integers, grid, n.args[0]) for n in one.nodes}
            product.forget()
    for node, shift in shifts.items():
        correct(gm, node, shift)
    return made


def _watch(
    model: TorchModel,
    gm: GraphModule,
    weights: list[Shared],
    products: list[fitting.Product],
    data: Dataset,
    progress: Progress,
) -> None:
    """Take in what the inputs of the layers are in the float model."""
    readers: dict[Node, list[tuple[Shared, fitting.Product]]] = {}
    for one, product in zip(weights, products, strict=True):
        for tensor in product.moments:
            assert isinstance(tensor, Node)
            readers.setdefault(tensor, []).append((one, product))
    if not readers:
        return

    def see(number: int, node: Node, value: Array) -> None:
        for one, product in readers[node]:
            reader = next(n for n in one.nodes if n.args[0] is node)
            product.moments[node].update(matrix.data(reader, tuple(one.value.shape), value, number))

    watch.walk(model, gm, readers, data, see, progress=progress, doing="watching inputs", most=fitting.SAMPLES)


def correct(gm: GraphModule, node: Node, shift: Array) -> None:
    """Let the layer add ``(out,)`` to its results; where its bias is computed it stays as it was."""
    if (value := shifted(gm, node, shift)) is not None:
        bias.write(gm, node, value)


def shifted(gm: GraphModule, node: Node, shift: Array) -> Tensor | None:
    """The layer's bias with ``(out,)`` added; None where it is computed."""
    there = bias.read(gm, node)
    if there is None and bias.given(node) is not None:
        return None
    change = shift if there is None else there.numpy().astype(np.float64) + shift
    return torch.from_numpy(change).to(there.dtype if there is not None else torch.float32)
