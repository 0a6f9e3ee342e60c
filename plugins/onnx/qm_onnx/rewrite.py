"""Changing a copy of a model node by node: weights read, constants added, nodes replaced, what is unused dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from qm.plugin import Array, Plan, QuantizeJob, Scheme, Unsupported, UsageError
from qm_onnx.graph import TRANSPARENT, Constant, Scope, graphs, keep_domains, nodes, walk
from qm_onnx.model import OnnxModel
from qm_onnx.option import SCHEMES

MICROSOFT = "com.microsoft"
RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_CHANGES_VALUES = {"Cast", "DequantizeLinear", "QuantizeLinear"}


class Rewrite:
    """A copy of a model under change. ``finish`` carries the replacements out and gives the model.

    ``folder`` is where its external data lies; one weight at a time is read from there.
    """

    def __init__(self, proto: ModelProto, *, folder: Path | None = None) -> None:
        self.proto = ModelProto()
        self.proto.CopyFrom(proto)
        self.folder = folder
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

    def constant(self, scope: Scope, name: str) -> Array | None:
        """The float constant behind an operand, see ``constant``."""
        return constant(scope, name, folder=self.folder)

    def weight(self, scope: Scope, name: str) -> Array | None:
        """The float constant behind an operand, see ``weight``."""
        return weight(scope, name, folder=self.folder)

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

    def home(self, scope: Scope, node: NodeProto) -> GraphProto:
        """The graph to keep a layer's constants in: its own, the outermost one for a recurrent layer.

        Exporters put a recurrent layer into both branches of an If, with the same weights: outside, they are stored
        once. Other layers keep theirs near: where a DequantizeLinear reads a constant from outside its graph, ONNX
        Runtime (1.31.1) fails to open the model ("Missing required weight").
        """
        return self.proto.graph if node.op_type in RECURRENT else scope.graph

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


def rewrite(job: QuantizeJob, method: str, proto: ModelProto | None = None) -> tuple[OnnxModel, Rewrite]:
    """The job's model, and a rewrite of it, or of ``proto`` where the model had to be changed first.

    Raises:
        Unsupported: it is no ONNX model, or the plan asks for what it does not have or the method does not offer.
    """
    if not isinstance(job.model, OnnxModel):
        raise Unsupported(f"{job.model!r} is not an ONNX model", hint="Choose a method for its own format.")
    job.plan.check((layer.name for layer in job.model.layers()), SCHEMES[method], f"onnx.{method}")
    return job.model, Rewrite(proto or job.model.proto, folder=job.model.folder)


def constant(scope: Scope, name: str, *, folder: Path | None = None) -> Array | None:
    """The constant float32 tensor behind an operand; None where it is computed, cast, or quantized already."""
    found = behind(scope, name, external=lambda tensor: numpy_helper.to_array(tensor, str(folder or "")))
    return None if found is None else found[1]


def behind(scope: Scope, name: str, *, external: Callable[[TensorProto], Array]) -> tuple[Constant, Array] | None:
    """The constant float32 tensor behind an operand, and its values as they reach it; see ``constant``.

    ``external`` reads what lies in a file of its own.
    """
    found = scope.resolve(name)
    if found is None or found.tensor.data_type != TensorProto.FLOAT:
        return None
    if any(node.op_type in _CHANGES_VALUES for node in found.via):
        return None
    lies_beside = found.tensor.data_location == TensorProto.EXTERNAL
    value: Array = external(found.tensor) if lies_beside else numpy_helper.to_array(found.tensor)
    for node in reversed(found.via):
        value = _reshaped(scope, node, value)
    return found, value


def weight(scope: Scope, name: str, *, folder: Path | None = None) -> Array | None:
    """As ``constant``, for what is to be quantized.

    Raises:
        UsageError: it holds NaN or infinity.
    """
    value = constant(scope, name, folder=folder)
    if value is not None and not np.isfinite(value).all():
        raise UsageError(
            f"the weight {name!r} holds NaN or infinity",
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
    idle = {_key(n) for n in graph.node if n.op_type in {"Constant", *TRANSPARENT} and not used.intersection(n.output)}
    for i in reversed(range(len(graph.node))):
        if _key(graph.node[i]) in idle:
            del graph.node[i]
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name in unread:
            del graph.initializer[i]
    return len(unread) + len(idle)


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
    evaluate = ReferenceEvaluator(single)
    outputs: list[Array] = evaluate.run(None, feeds)
    return outputs[0]
