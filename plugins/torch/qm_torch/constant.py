"""The constants of a program that has been opened for change: parameters and buffers, by qualified name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node


def constant(gm: GraphModule, node: Any) -> Tensor | None:
    """The value that a node reads from the module, None where it is none."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    found: Any = gm
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found.detach() if isinstance(found, Tensor) else None


def store(gm: GraphModule, name: str, value: Tensor) -> Node:
    """Keep a value as a buffer of that name; the node that reads it stands at the insertion point."""
    keep(gm, name, value)
    return gm.graph.get_attr(name)


def keep(gm: GraphModule, name: str, value: Tensor) -> None:
    """Keep a value as a buffer of that name, in the place of what had it."""
    *path, last = name.split(".")
    owner: torch.nn.Module = gm
    for part in path:
        if not hasattr(owner, part):
            owner.add_module(part, torch.nn.Module())
        owner = getattr(owner, part)
    if hasattr(owner, last):
        delattr(owner, last)
    owner.register_buffer(last, value.contiguous())


def replace(gm: GraphModule, node: Node, place: int, name: str, value: Tensor) -> None:
    """Have a node read a value, kept as a buffer of that name, as its argument at ``place``."""
    with gm.graph.inserting_before(node):
        made = store(gm, name, value)
    node.args = (*node.args[:place], *[None] * (place - len(node.args)), made, *node.args[place + 1 :])


def erase_unused(gm: GraphModule) -> None:
    """Drop the nodes that nothing reads, and the constants that no node reads."""
    gm.graph.eliminate_dead_code()
    used = {str(n.target) for n in gm.graph.nodes if n.op == "get_attr"}
    for prefix, module in list(gm.named_modules()):
        for name in [*module._parameters, *module._buffers]:
            if (f"{prefix}.{name}" if prefix else name) not in used:
                delattr(module, name)
    gm.recompile()
