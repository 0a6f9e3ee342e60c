"""The operations with weights of an exported program, and the names they keep."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from qm.plugin import Layer, Plan, Scheme, unique
from qm_torch.packed import is_packed

_ATEN = torch.ops.aten


@dataclass(frozen=True)
class Operand:
    """Where an operation keeps its data and its weight among its arguments."""

    data: int
    weight: int
    axis: int = 0
    """The axis of the weight along which the output channels lie."""


OPERATORS = {
    _ATEN.conv1d: Operand(0, 1),
    _ATEN.conv2d: Operand(0, 1),
    _ATEN.conv3d: Operand(0, 1),
    _ATEN.conv_transpose1d: Operand(0, 1, axis=1),
    _ATEN.conv_transpose2d: Operand(0, 1, axis=1),
    _ATEN.conv_transpose3d: Operand(0, 1, axis=1),
    _ATEN.linear: Operand(0, 1),
    _ATEN.embedding: Operand(1, 0),
}
_NAME = "qm_layer"
"""The key in a node's module stack under which the layer's name is kept: such stacks survive being exported again, and
being saved."""


_PARAMETRIZED = re.compile(r"\.?parametrizations\.(\w+)\.\w+$")


@dataclass(frozen=True)
class Found:
    """A layer where it stands. ``leaves`` are the placeholders that the weight is made of: packed integers first, then
    the largest."""

    name: str
    kind: str
    node: Node
    leaves: tuple[Node, ...]

    @property
    def place(self) -> Operand:
        return OPERATORS[self.node.target.overloadpacket]

    @property
    def data(self) -> Node:
        """What feeds the operation."""
        return self.node.args[self.place.data]

    @property
    def weight(self) -> Node:
        """The weight as the operation reads it, behind whatever restores it."""
        return self.node.args[self.place.weight]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight as the operation reads it."""
        return tuple(self.weight.meta["val"].shape)


def find(program: ExportedProgram) -> list[Found]:
    """Every operation with a constant weight, in execution order, under unique names."""
    fixed = constants(program)
    found: list[tuple[Node, tuple[Node, ...]]] = []
    for node in program.graph.nodes:
        if is_operator(node) and (leaves := _leaves(node.args[operand(node).weight], fixed)):
            found.append((node, leaves))
    names = unique(_name(node, [fixed[leaf.name] for leaf in leaves]) for node, leaves in found)
    return [Found(name, kind(node), node, leaves) for name, (node, leaves) in zip(names, found, strict=True)]


def is_operator(node: Node) -> bool:
    """Whether the node is of a kind that has weights."""
    return node.op == "call_function" and getattr(node.target, "overloadpacket", None) in OPERATORS


def operand(node: Node) -> Operand:
    """Where the node keeps its data and its weight."""
    return OPERATORS[node.target.overloadpacket]


def kind(node: Node) -> str:
    """The name of the ATen operation: ``conv2d``, ``linear``."""
    return str(node.target.overloadpacket.__name__)


def named(graph: Graph) -> dict[Node, str]:
    """The layers of any graph made of a stamped program (``program.module().graph``, prepared or not), by node."""
    return {n: name for n in graph.nodes if is_operator(n) and (name := _stamped(n))}


def schemes(graph: Graph, plan: Plan) -> dict[Node, Scheme]:
    """What the plan asks for, of the layers that are to be quantized, by node."""
    return {node: plan[name] for node, name in named(graph).items() if not plan[name].is_float}


def stamp(program: ExportedProgram) -> None:
    """Write every layer's name into its node, so that it is the same after quantizing, exporting again and loading."""
    for found in find(program):
        stack = found.node.meta.get("nn_module_stack") or {}
        # The type stays: quantizers go by it.
        module = next(reversed(stack.values()))[1] if stack else ""
        found.node.meta["nn_module_stack"] = {**stack, _NAME: (found.name, module)}


def constants(program: ExportedProgram) -> dict[str, str]:
    """Parameters, buffers and other constants: the name of each in the program's state, by its placeholder."""
    signature = program.graph_signature
    return {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }


def value(program: ExportedProgram, target: str) -> torch.Tensor:
    """The parameter, buffer or constant of that name."""
    return program.state_dict[target] if target in program.state_dict else program.constants[target]


def layers(program: ExportedProgram) -> tuple[Layer, ...]:
    """The layers as the core sees them."""
    found = find(program)
    fixed = constants(program)
    stored = [_storage(value(program, fixed[f.leaves[0].name])) for f in found]
    users = Counter(stored)
    first = dict(zip(reversed(stored), reversed([f.name for f in found]), strict=True))
    return tuple(
        Layer(
            name=f.name,
            kind=f.kind,
            weights=prod(f.shape),
            macs=macs(program, f),
            tied=first[s] if users[s] > 1 else None,
        )
        for f, s in zip(found, stored, strict=True)
    )


def macs(program: ExportedProgram, found: Found) -> int:
    """Multiply-accumulates for one sample, 0 where lengths but the batch are free."""
    if found.kind == "embedding":
        return 0
    weight, out, data = found.shape, found.node.meta["val"].shape, found.data.meta["val"].shape
    each = weight[-1] if found.kind == "linear" else prod(weight[1:])
    spread = data if found.kind.startswith("conv_transpose") else out
    total = prod(map(_length, spread)) * each / batch(program)
    return int(total) if getattr(total, "is_number", True) else 0


def batch(program: ExportedProgram) -> Any:
    """The first length that all inputs and outputs share (a number or a symbol), else 1."""
    ends = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in program.graph_signature.user_inputs]
    ends += [n for n in program.graph.output_node().args[0] if isinstance(n, Node)]
    shapes = [n.meta["val"].shape for n in ends if isinstance(n.meta.get("val"), torch.Tensor)]
    firsts = {_length(shape[0]) if len(shape) else 1 for shape in shapes}
    return firsts.pop() if len(firsts) == 1 and 0 not in firsts else 1


def _length(size: Any) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else size


def _storage(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def _stamped(node: Node) -> str | None:
    stack = node.meta.get("nn_module_stack") or {}
    # Exporting again puts a prefix before the key.
    return next((str(name) for key, (name, _) in reversed(stack.items()) if key.endswith(_NAME)), None)


def _name(node: Node, targets: list[str]) -> str:
    """The module's qualified name; that of the parameter where a module has several, as attention has."""
    if stamped := _stamped(node):
        return stamped
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    module = str(stack[-1][0]) if stack else ""
    target = _PARAMETRIZED.sub(r".\1", targets[0])
    if module and target == f"{module}.weight":
        return module
    if not module or target.startswith(f"{module}."):
        bare = target.removesuffix(".weight")
        return bare if bare != "weight" and not bare.startswith("_frozen_param") else kind(node)
    return module


def _leaves(node: Any, fixed: dict[str, str]) -> tuple[Node, ...]:
    """The constants that a node is made of alone, as in ``Found``; none where it depends on an input."""
    if not isinstance(node, Node):
        return ()
    leaves = [n for n in ancestry(node) if n.op in ("placeholder", "get_attr")]
    if not leaves or any(n.name not in fixed for n in leaves):
        return ()
    return tuple(sorted(leaves, key=lambda n: (not is_packed(n), -n.meta["val"].numel())))


def ancestry(node: Node) -> Iterator[Node]:
    """The node and all that it is computed from, nearest first."""
    waiting, seen = [node], {node}
    while waiting:
        current = waiting.pop(0)
        yield current
        for source in current.all_input_nodes:
            if source not in seen:
                seen.add(source)
                waiting.append(source)
