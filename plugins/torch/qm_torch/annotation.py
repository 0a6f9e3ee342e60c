"""Which tensors of a program are to be integers, and who reads them as such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.fx import Graph, Node

from qm.plugin import Plan
from qm_torch import layer
from qm_torch.fold import is_zero_padding

ATEN = torch.ops.aten
_ADDITIONS = (ATEN.add.Tensor, ATEN.add_.Tensor)
_ACTIVATIONS = (ATEN.relu, ATEN.relu_, ATEN.relu6, ATEN.hardtanh, ATEN.hardtanh_)
_MAXIMA = (ATEN.max_pool2d.default,)


@dataclass
class Annotation:
    """What to write into a graph.

    ``readers`` are, by the tensor that is to be quantized, the operations that read its integers; ``owners`` the layer
    that each tensor is named after; ``sources``, where a tensor holds nothing but values of another, that other, whose
    range it takes; ``results`` what else layers make, whose range XNNPACK needs to know.
    """

    readers: dict[Node, list[Node]] = field(default_factory=dict)
    owners: dict[Node, str] = field(default_factory=dict)
    sources: dict[Node, Node] = field(default_factory=dict)
    results: dict[Node, str] = field(default_factory=dict)

    def read(self, tensor: Node, reader: Node, owner: str) -> None:
        """Have ``reader`` read integers of ``tensor``."""
        readers = self.readers.setdefault(tensor, [])
        if reader not in readers:
            readers.append(reader)
        self.owners.setdefault(tensor, owner)

    def root(self, tensor: Node) -> Node:
        """The tensor whose range this one takes."""
        while tensor in self.sources:
            tensor = self.sources[tensor]
        return tensor


def annotate(graph: Graph, names: Mapping[Node, str], plan: Plan) -> Annotation:
    """The tensors that layers with static activations read, and what around them lets kernels stay in integers."""
    made = Annotation()
    static = {node: name for node, name in names.items() if plan[name].is_static}
    for node, name in static.items():
        data = node.args[layer.operand(node).data]
        if isinstance(data, Node):
            made.read(data, node, name)
            _carry(made, data, name)
    _residuals(graph, made, static)
    for node, name in static.items():
        if (end := activated(node)) not in made.readers:
            made.results[end] = name
    return made


def _carry(made: Annotation, tensor: Node, owner: str) -> None:
    """What only moves values, or takes the greatest, takes integers and gives them in the same scale."""
    while _only_moves(tensor) and isinstance(source := tensor.args[0], Node):
        made.read(source, tensor, owner)
        made.sources[tensor] = source
        tensor = source


def _only_moves(node: Node) -> bool:
    return node.target in _MAXIMA or (node.target is ATEN.pad.default and is_zero_padding(node))


def _residuals(graph: Graph, made: Annotation, static: Mapping[Node, str]) -> None:
    """Sums of a layer's result and a tensor that is quantized anyway: the kernel adds its integers itself."""
    for node in graph.nodes:
        if node.target not in _ADDITIONS or len(node.args) != 2 or node.kwargs or not _is_quantized(made, node):
            continue
        first, second = node.args
        for own, other in ((first, second), (second, first)):
            if own in static and len(own.users) == 1 and other in made.readers and other < own:
                made.read(other, node, made.owners[other])
                break


def activated(node: Node) -> Node:
    """What one activation function makes of a result that nothing else reads, else the result itself."""
    users = list(node.users)
    is_activated = len(users) == 1 and getattr(users[0].target, "overloadpacket", None) in _ACTIVATIONS
    return users[0] if is_activated else node


def _is_quantized(made: Annotation, node: Node) -> bool:
    """Whether the result, or what one activation makes of it, is quantized."""
    return node in made.readers or activated(node) in made.readers
