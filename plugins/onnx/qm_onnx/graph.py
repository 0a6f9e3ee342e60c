"""Walking an ONNX graph: nodes through control flow, who makes and who uses a tensor, constants behind casts."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import prod

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

ONNX_DOMAINS = ("", "ai.onnx")

# What may stand between a layer and its weight without making it another weight.
TRANSPARENT = frozenset(
    {
        "Cast",
        "DequantizeLinear",
        "Flatten",
        "Identity",
        "QuantizeLinear",
        "Reshape",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


@dataclass(frozen=True)
class Constant:
    """A tensor found behind an operand, and the nodes passed on the way to it, nearest the operand first."""

    tensor: TensorProto
    via: tuple[NodeProto, ...] = ()

    @property
    def count(self) -> int:
        """Elements of the tensor."""
        return prod(self.tensor.dims)

    def passed(self, kind: str) -> NodeProto | None:
        """The first node of that kind on the way."""
        return next((n for n in self.via if n.op_type == kind), None)


@dataclass
class Scope:
    """A graph, with what can be seen from inside it. ``path`` is the name of the node that holds it, with a slash."""

    graph: GraphProto
    path: str = ""
    parent: Scope | None = None
    producers: dict[str, NodeProto] = field(default_factory=dict)
    consumers: dict[str, list[NodeProto]] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.constants.update((t.name, t) for t in self.graph.initializer)
        for node in self.graph.node:
            self.producers.update((name, node) for name in node.output if name)
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
            if node.op_type == "Constant" and (tensor := attribute(node, "value")) is not None:
                self.constants[node.output[0]] = tensor.t

    def producer(self, name: str) -> NodeProto | None:
        """The node that makes the tensor, here or further out."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.producers:
                return scope.producers[name]
            scope = scope.parent
        return None

    def constant(self, name: str) -> TensorProto | None:
        """The constant of that name, here or further out."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.constants:
                return scope.constants[name]
            scope = scope.parent
        return None

    def resolve(self, name: str) -> Constant | None:
        """The constant behind an operand, through casts, transposes and dequantization."""
        via: list[NodeProto] = []
        while name:
            if (tensor := self.constant(name)) is not None:
                return Constant(tensor, tuple(via))
            node = self.producer(name)
            if node is None or node.op_type not in TRANSPARENT or not node.input:
                return None
            via.append(node)
            name = node.input[0]
        return None

    def inner(self, node: NodeProto) -> Iterator[Scope]:
        """The scopes of the graphs that a control-flow node holds."""
        for graph in subgraphs(node):
            yield Scope(graph, f"{self.path}{node.name}/", self)


def attribute(node: NodeProto, name: str) -> AttributeProto | None:
    """The attribute of that name, None where the node has none."""
    return next((a for a in node.attribute if a.name == name), None)


def integer(node: NodeProto, name: str, default: int) -> int:
    """The integer attribute of that name."""
    found = attribute(node, name)
    return default if found is None else found.i


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Graphs that a control-flow node holds."""
    for a in node.attribute:
        if a.type == AttributeProto.GRAPH:
            yield a.g
        elif a.type == AttributeProto.GRAPHS:
            yield from a.graphs


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all graphs inside it, outer ones first."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes, those inside control flow included."""
    for g in graphs(graph):
        yield from g.node


def tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """All stored tensors: initializers and constants, those inside control flow included."""
    for graph in graphs(proto.graph):
        yield from graph.initializer
        for node in graph.node:
            for a in node.attribute:
                if a.type == AttributeProto.TENSOR:
                    yield a.t
                elif a.type == AttributeProto.TENSORS:
                    yield from a.tensors


def walk(graph: GraphProto) -> Iterator[tuple[Scope, NodeProto]]:
    """Nodes with their scope, in execution order; a control-flow node comes before what it holds."""
    yield from _walk(Scope(graph))


def _walk(scope: Scope) -> Iterator[tuple[Scope, NodeProto]]:
    for node in scope.graph.node:
        yield scope, node
        for inner in scope.inner(node):
            yield from _walk(inner)


def copied(proto: ModelProto) -> ModelProto:
    """A copy that may be changed."""
    fresh = ModelProto()
    fresh.CopyFrom(proto)
    return fresh


def stored(proto: ModelProto, name: str) -> TensorProto:
    """The initializer of that name; there must be one."""
    return next(t for t in proto.graph.initializer if t.name == name)


def opset(proto: ModelProto) -> int:
    """The version of the standard operator set, 1 where none is named."""
    return max((o.version for o in proto.opset_import if o.domain in ONNX_DOMAINS), default=1)


def set_opset(proto: ModelProto, version: int) -> None:
    """Name the version of the standard operator set, without converting anything."""
    for entry in proto.opset_import:
        if entry.domain in ONNX_DOMAINS:
            entry.version = version
            return
    proto.opset_import.add(domain="", version=version)


def keep_domains(proto: ModelProto) -> None:
    """Drop the operator sets that no node uses; the standard one stays."""
    used = {"", *(n.domain for n in nodes(proto.graph)), *(n.domain for f in proto.functions for n in f.node)}
    versions = {("" if o.domain in ONNX_DOMAINS else o.domain): o.version for o in proto.opset_import}
    del proto.opset_import[:]
    proto.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in versions.items() if d in used)


def uses(node: NodeProto) -> Iterator[str]:
    """Names of the tensors a node reads, those that graphs inside it capture included."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from captured(graph)


def captured(graph: GraphProto) -> list[str]:
    """Tensors that a graph reads from outside, in order of first use."""
    known = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    known |= {name for node in graph.node for name in node.output}
    reads: Iterable[str] = [name for node in graph.node for name in uses(node)] + [o.name for o in graph.output]
    return [name for name in dict.fromkeys(reads) if name not in known]


def shorten(graph: GraphProto, names: Iterable[str]) -> None:
    """Make the graph one whose outputs are the named tensors, without the nodes, in order, that they do not need."""
    del graph.output[:]
    graph.output.extend(ValueInfoProto(name=n) for n in names)
    given = {v.name for v in graph.input}
    needed = {o.name for o in graph.output}
    for i in reversed(range(len(graph.node))):
        if needed.isdisjoint(graph.node[i].output):
            del graph.node[i]
        else:
            needed.update(name for name in uses(graph.node[i]) if name not in given)


def sort(graph: GraphProto) -> None:
    """Put nodes in topological order, of all such orders the first by the order they had; inner graphs too."""
    order = _order(graph)
    if order != sorted(order):
        copies = [NodeProto.FromString(graph.node[i].SerializeToString()) for i in order]
        del graph.node[:]
        graph.node.extend(copies)
    for node in graph.node:
        for inner in subgraphs(node):
            sort(inner)


def _order(graph: GraphProto) -> list[int]:
    """Places of the nodes in topological order; as they are where there is a cycle, which ONNX Runtime will tell."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    missing = [{maker[name] for name in uses(node) if name in maker} for node in graph.node]
    users: dict[int, list[int]] = {}
    for i, makers in enumerate(missing):
        for made in makers:
            users.setdefault(made, []).append(i)
    ready = [i for i, makers in enumerate(missing) if not makers]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for user in users.get(order[-1], ()):
            missing[user].discard(order[-1])
            if not missing[user]:
                heapq.heappush(ready, user)
    return order if len(order) == len(graph.node) else list(range(len(graph.node)))
