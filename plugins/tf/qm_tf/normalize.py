"""A float model put in order: short names that tell the layers, and nothing that the runtime does not read."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from qm.plugin import unique
from qm_tf import flat, name
from qm_tf.graph import Graph
from qm_tf.layer import find

MARK = b"put in order by qm"
"""The description of a model whose tensors have their short names: they would not be told from a converter's."""


def normalize(model: Any, *, layers: Sequence[str] = ()) -> Any:
    """A copy whose tensors have short names; ``layers`` are the names that Keras has for its layers.

    Inputs and outputs get the names that the signature gives them, a layer's weights ``LAYER/kernel`` and
    ``LAYER/bias``, its result the layer's name. Notes of the converter go. What is in order stays as it is.
    """
    made = copy.deepcopy(model)
    if flat.text(made.description) == MARK.decode():
        return made
    graph = Graph(made)
    names: dict[int, str] = {}
    for places, numbers in ((_signature(made, "inputs"), graph.inputs), (_signature(made, "outputs"), graph.outputs)):
        for number in numbers:
            names.setdefault(number, places.get(number, graph.name(number)))
    found = find(graph)
    for f, short in zip(found, name.original([f.name for f in found], layers), strict=True):
        names.setdefault(f.weights[0], short + name.KERNEL)
        if f.bias >= 0:
            names.setdefault(f.bias, short + name.BIAS)
        names.setdefault(f.output, short)
    _name_the_rest(graph, names)
    order = sorted(names, key=lambda n: (n not in {*graph.inputs, *graph.outputs}, not _is_kernel(names[n]), n))
    for number, text in zip(order, unique(names[n] for n in order), strict=True):
        graph.tensor(number).name = text.encode()
    _strip(made)
    return made


def _name_the_rest(graph: Graph, names: dict[int, str]) -> None:
    rest = [op for op in graph.ops for t in op.outputs if t >= 0 and t not in names]
    shorts = name.without_model([name.short_name(graph.name(op.outputs[0])) for op in rest])
    for op, short in zip(rest, shorts, strict=True):
        for t in op.outputs:
            if t >= 0:
                names.setdefault(t, short or f"{op.kind.lower()}_{op.number}")
    for number in range(len(graph.native.tensors)):
        names.setdefault(number, f"c{number}")


def _is_kernel(text: str) -> bool:
    return text.endswith(name.KERNEL)


def _signature(model: Any, side: str) -> dict[int, str]:
    """Names by tensor number of the main graph, from its signature."""
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == 0:
            return {int(t.tensorIndex): flat.text(t.name) for t in getattr(signature, side) or ()}
    return {}


def _strip(model: Any) -> None:
    """Drop the converter's notes; the version of the runtime that is needed stays."""
    kept = [m for m in model.metadata or () if flat.text(m.name) == "min_runtime_version"]
    model.metadata = kept
    model.metadataBuffer = None
    model.description = MARK
    for signature in model.signatureDefs or ():
        signature.signatureKey = signature.signatureKey or b"serving_default"
