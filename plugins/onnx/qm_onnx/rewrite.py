"""Changing a copy of a model node by node: weights read, constants added, nodes replaced, what is unused dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from qm_onnx.graph import TRANSPARENT, Scope, graphs, keep_domains, nodes, walk

from qm.plugin import Array, Plan, Scheme, UsageError

MICROSOFT = "com.microsoft"
_CHANGES_VALUES = {"Cast", "DequantizeLinear", "QuantizeLinear"}


class Rewrite:
    """A copy of a model under change. ``finish`` carries the replacements out and gives the model."""

    def __init__(self, proto: ModelProto) -> None:
        self.proto = ModelProto()
        self.proto.CopyFrom(proto)
        self.sites: list[tuple[Scope, NodeProto]] = list(walk(self.proto.graph))
        self._changes: dict[int, dict[str, list[NodeProto]]] = {}
        self._tensors: dict[tuple[int, str], str] = {}
        self._names = {name for graph in graphs(self.proto.graph) for name in _names(graph)}

    def planned(self, plan: Plan) -> list[tuple[Scope, NodeProto, Scheme]]:
        """Nodes that are layers of the plan and not to stay in float, in execution order."""
        wanted = plan.quantized()
        named = ((scope.path + node.name, scope, node) for scope, node in self.sites)
        return [(scope, node, wanted[name]) for name, scope, node in named if name in wanted]

    def fresh(self, stem: str) -> str:
        """A name, of a tensor or a node, that the model does not have."""
        name, n = stem, 1
        while name in self._names:
            name, n = f"{stem}_{n}", n + 1
        self._names.add(name)
        return name

    def tensor(self, graph: GraphProto, stem: str, value: Array | TensorProto) -> str:
        """The name of a constant in ``graph``; equal values are stored once a graph."""
        made = value if isinstance(value, TensorProto) else numpy_helper.from_array(value)
        key = (id(graph), hashlib.sha256(made.SerializeToString(deterministic=True)).hexdigest())
        if key not in self._tensors:
            self._tensors[key] = self.fresh(stem)
            stored = graph.initializer.add()
            stored.CopyFrom(made)
            stored.name = self._tensors[key]
        return self._tensors[key]

    def replace(self, scope: Scope, node: NodeProto, by: Sequence[NodeProto]) -> None:
        """Put other nodes in the place of one."""
        self._changes.setdefault(id(scope.graph), {})[_key(node)] = list(by)

    def finish(self, *domains: str) -> ModelProto:
        """The changed model, with those operator sets imported that it uses."""
        self._carry_out()
        prune(self.proto.graph)
        known = {o.domain for o in self.proto.opset_import}
        self.proto.opset_import.extend(helper.make_opsetid(d, 1) for d in domains if d not in known)
        keep_domains(self.proto)
        return self.proto

    def _carry_out(self) -> None:
        scopes = {id(scope.graph): scope.graph for scope, _ in self.sites}
        # An outer graph copies its nodes together with the graphs inside them, which must have changed before.
        for key, inner in reversed(scopes.items()):
            if changes := self._changes.get(key):
                made = [new for node in inner.node for new in changes.get(_key(node), [node])]
                copies = [NodeProto.FromString(node.SerializeToString()) for node in made]
                del inner.node[:]
                inner.node.extend(copies)


def weight(scope: Scope, name: str) -> Array | None:
    """The constant float tensor behind an operand; None where it is computed, cast, or quantized already.

    Raises:
        UsageError: it holds NaN or infinity.
    """
    found = scope.resolve(name)
    if found is None or found.tensor.data_type != TensorProto.FLOAT:
        return None
    if any(node.op_type in _CHANGES_VALUES for node in found.via):
        return None
    value: Array = numpy_helper.to_array(found.tensor)
    for node in reversed(found.via):
        value = _reshaped(scope, node, value)
    if not np.isfinite(value).all():
        raise UsageError(
            f"the weight {found.tensor.name!r} holds NaN or infinity",
            hint="Leave its layer in float with a rule, or repair the model.",
        )
    return value


def prune(graph: GraphProto) -> None:
    """Drop constants, and what only moves constants, where nothing reads them; inner graphs too."""
    while True:
        used = {name for node in nodes(graph) for name in node.input}
        used |= {output.name for g in graphs(graph) for output in g.output}
        dropped = sum(_drop_unread(g, used) for g in list(graphs(graph)))
        if not dropped:
            return


def _drop_unread(graph: GraphProto, used: set[str]) -> int:
    unread = {t.name for t in graph.initializer if t.name not in used}
    count = 0
    for items, idle in (
        (graph.node, lambda n: n.op_type in {"Constant", *TRANSPARENT} and not used & set(n.output)),
        (graph.initializer, lambda t: t.name in unread),
        (graph.input, lambda value: value.name in unread),
    ):
        for i in reversed(range(len(items))):
            if idle(items[i]):
                del items[i]
                count += 1
    return count


def attributes(node: NodeProto) -> dict[str, object]:
    """A node's attributes by name, as ``make_node`` takes them."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _key(node: NodeProto) -> str:
    """What tells a node from the others of its graph: no two make the same tensor."""
    return next((name for name in node.output if name), "")


def _names(graph: GraphProto) -> Iterable[str]:
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield node.name
        yield from node.output


def _reshaped(scope: Scope, node: NodeProto, value: Array) -> Array:
    """What a node that only moves a constant makes of it."""
    single = NodeProto.FromString(node.SerializeToString())
    feeds = {node.input[0]: value}
    for name in node.input[1:]:
        if name and (tensor := scope.constant(name)) is not None:
            feeds[name] = numpy_helper.to_array(tensor)
    return np.asarray(ReferenceEvaluator(single).run(None, feeds)[0])
