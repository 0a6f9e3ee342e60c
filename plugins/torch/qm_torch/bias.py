"""The biases of layers, read and replaced in a program that has been opened for change."""

from __future__ import annotations

from torch import Tensor
from torch.fx import GraphModule, Node

from qm_torch.constant import constant, replace

PLACE = 2
"""Where convolutions and linear layers keep their bias among their arguments."""


def read(gm: GraphModule, node: Node) -> Tensor | None:
    """The bias; None where there is none, or it is computed."""
    return constant(gm, given(node))


def given(node: Node) -> object:
    """What stands in the place of the bias, None where nothing does."""
    return node.args[PLACE] if len(node.args) > PLACE else node.kwargs.get("bias")


def write(gm: GraphModule, node: Node, value: Tensor) -> None:
    """Have the layer, and it alone, add a bias of ``(out,)``."""
    node.kwargs = {name: v for name, v in node.kwargs.items() if name != "bias"}
    replace(gm, node, PLACE, _name(gm, node), value)


def _name(gm: GraphModule, node: Node) -> str:
    """Where a bias may be kept: where the layer's own is, if nothing else reads it, else beside the weight."""
    own, weight = given(node), node.args[1]
    if isinstance(own, Node) and own.op == "get_attr" and len(own.users) == 1:
        return str(own.target)
    assert isinstance(weight, Node)
    taken = {str(n.target) for n in gm.graph.nodes if n.op == "get_attr"}
    name = f"{str(weight.target).removesuffix('weight')}bias"
    while name in taken:
        name += "_folded"
    return name
