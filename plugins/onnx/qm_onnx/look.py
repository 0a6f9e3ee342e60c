"""Sessions that show what the tensors of a model hold, all of it or no more than may widen their extremes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, numpy_helper

from qm.numerics import Stream
from qm.plugin import Array, Batch
from qm_onnx import chain, runtime
from qm_onnx.graph import Scope
from qm_onnx.model import OnnxModel
from qm_onnx.site import KINDS

SPARED = 0.25
"""The share of all values that need not be looked at any more for which another session is opened."""


class Look:
    """A session, and under which name of an input or output it shows each tensor."""

    def __init__(self, session: ort.InferenceSession, places: Mapping[str, str]) -> None:
        self._session = session
        self._specs = runtime.specs(session.get_inputs())
        fed = {s.name for s in self._specs}
        self._fed = [t for t, place in places.items() if place in fed]
        self._made = {t: place for t, place in places.items() if place not in fed}

    def values(self, batch: Batch) -> Iterator[tuple[str, Array]]:
        """The name and the value of each tensor. A value is let go as soon as the next is asked for.

        Raises:
            UsageError: the batch does not fit the model.
        """
        wanted, tensors = list(self._made.values()), list(self._made)
        with runtime.fitting(self._specs, batch):
            fed = {s.name: np.asarray(batch[s.name]) for s in self._specs}
            results = self._session.run(wanted, fed) if wanted else []
        for name in self._fed:
            yield name, np.asarray(batch[name])
        while results:
            yield tensors[len(results) - 1], np.asarray(results.pop())


def watching(model: OnnxModel, tensors: Iterable[str], nodes: Sequence[NodeProto] = ()) -> ort.InferenceSession:
    """A session with the tensors as outputs too, those that are no inputs; ``nodes`` come to those of the graph.

    So are the results of all layers, wanted or not: what ONNX Runtime fuses with a layer whose result nobody looks at
    changes the last bits of what follows, and these are not to depend on what else is looked at.
    """
    scope = Scope(model.proto.graph)
    results = [n.output[0] for n in scope.graph.node if n.op_type in KINDS and not _is_activated(scope, n.output[0])]
    inputs = {s.name for s in model.inputs()}
    return model.session(extra_outputs=[t for t in [*tensors, *results] if t not in inputs], extra_nodes=nodes)


def narrowed(
    model: OnnxModel, streams: Mapping[str, Stream], images: Iterable[str]
) -> tuple[dict[str, str], list[NodeProto]]:
    """Where what may still widen the extremes of the tensors is found, after some samples, and nodes that make it.

    Values behind a Relu are never below 0, and those behind a Clip never beyond its limits: once a limit was reached
    that extreme is known. Of ``images``, which have four axes, the peak of each channel is all that is looked at where
    only the largest value is open. No places are given where that spares little.
    """
    scope = Scope(model.proto.graph)
    pooled = set(images)
    places: dict[str, str] = {}
    peaks: list[NodeProto] = []
    for name, stream in streams.items():
        least, most = _limits(scope, name)
        if stream.low <= least and stream.high >= most:
            continue
        places[name] = name
        if stream.low <= least and name in pooled:
            places[name] = f"{name}/peaks"
            peaks.append(helper.make_node("GlobalMaxPool", [name], [places[name]], name=places[name]))
    spared = sum(s.values for t, s in streams.items() if places.get(t) != t)
    if spared < SPARED * sum(s.values for s in streams.values()):
        return {}, []
    return places, peaks


def _limits(scope: Scope, name: str) -> tuple[float, float]:
    """Between which values the operation that makes the tensor keeps it, whatever it reads."""
    node = scope.producer(name)
    if node is not None and node.op_type == "Relu":
        return 0.0, math.inf
    if node is not None and node.op_type == "Clip":
        least, most = (scope.constant(n) if n else None for n in [*node.input, "", ""][1:3])
        return _number(least, -math.inf), _number(most, math.inf)
    return -math.inf, math.inf


def _number(tensor: TensorProto | None, default: float) -> float:
    return default if tensor is None else float(numpy_helper.to_array(tensor).item())


def _is_activated(scope: Scope, name: str) -> bool:
    """Whether an activation alone reads the tensor; it does the same inside a layer as behind it."""
    readers = scope.consumers.get(name, [])
    return len(readers) == 1 and readers[0].op_type in chain.FUSED
