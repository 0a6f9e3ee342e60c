"""From an exported program to a graph that can be changed, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree


def opened(program: ExportedProgram) -> GraphModule:
    """A copy of the program's graph; constants are nodes of their own, and may be replaced."""
    gm: Any = program.module()
    return gm


def closed(gm: GraphModule, like: ExportedProgram) -> ExportedProgram:
    """The program of a changed graph, with the inputs of ``like``, free lengths included."""
    for node in list(gm.graph.nodes):
        if node.op == "call_module" and str(node.target).startswith("_guards"):
            gm.graph.erase_node(node)
    gm.recompile()
    args, kwargs = like.example_inputs
    args, kwargs = pytree.tree_map_only(torch.Tensor, lambda t: t.clone(), (args, kwargs))
    flat = [_lengths(node, like) for node in placeholders(like)]
    with torch.no_grad():
        return torch.export.export(gm, args, kwargs, dynamic_shapes=_shaped(gm, flat, args, kwargs), strict=False)


def placeholders(program: ExportedProgram) -> list[Node]:
    """The nodes that take what a user gives, in order."""
    names = {s.arg.name for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT}
    return [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]


def _lengths(node: Node, program: ExportedProgram) -> dict[int, Any] | None:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    made: dict[int, Any] = {}
    for axis, length in enumerate(value.shape):
        if not isinstance(length, torch.SymInt):
            continue
        expression = length.node.expr
        bounds = program.range_constraints.get(expression)
        if bounds is None:
            made[axis] = Dim.AUTO
            continue
        ends: dict[str, int] = {}
        for key, end in (("min", bounds.lower), ("max", bounds.upper)):
            if end.is_Integer and (key == "max" or int(end) > 0):
                ends[key] = int(end)
        made[axis] = Dim(str(expression), **ends)
    return made


def _shaped(gm: GraphModule, flat: list[dict[int, Any] | None], args: Any, kwargs: Any) -> Any:
    """The free lengths in the structure of the arguments, by their names; None where there are none."""
    if not any(flat):
        return None
    _, spec = pytree.tree_flatten((args, kwargs))
    positional, named = pytree.tree_unflatten(flat, spec)
    codegen: Any = gm.graph._codegen
    names = [name for name in codegen.pytree_info.orig_args if name != "self"]
    return {**dict(zip(names, positional, strict=False)), **named}
