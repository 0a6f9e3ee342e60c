"""A flatbuffer made smaller without a change to what it computes.

What nothing reads goes, and buffers of the same bytes become one; ``pack`` then stores equal vectors once, such as the
zero points of weights and biases, 8 bytes a channel that are all 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qm_tf import flat
from qm_tf.graph import graphs


def compact(model: Any) -> Any:
    """The model itself, made smaller in place."""
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            _strip(tensor)
    _drop_tensors(model)
    _drop_codes(model)
    _merge_buffers(model)
    model.signatureDefs = model.signatureDefs or None
    return model


def _strip(tensor: Any) -> None:
    quantization = tensor.quantization
    if quantization is None:
        return
    quantization.min = quantization.max = None
    if (quantization.scale is None or not len(quantization.scale)) and getattr(quantization, "details", None) is None:
        tensor.quantization = None


def _drop_tensors(model: Any) -> None:
    """Drop the tensors that no operation, input or output names, and number the others anew."""
    for graph in graphs(model):
        used = {t for op in graph.ops for t in (*op.inputs, *op.outputs, *_hidden(op.native))}
        used |= {*graph.inputs, *graph.outputs}
        used |= {
            t.tensorIndex
            for s in model.signatureDefs or ()
            if s.subgraphIndex == graph.number
            for t in (*(s.inputs or ()), *(s.outputs or ()))
        }
        order = [t for t in range(len(graph.native.tensors)) if t in used]
        new = {-1: -1} | {old: number for number, old in enumerate(order)}
        graph.native.tensors = [graph.tensor(t) for t in order]
        graph.native.inputs = [new[t] for t in graph.inputs]
        graph.native.outputs = [new[t] for t in graph.outputs]
        for op in graph.ops:
            op.native.inputs = [new[t] for t in op.inputs]
            op.native.outputs = [new[t] for t in op.outputs]
            if _hidden(op.native):
                op.native.intermediates = [new[t] for t in _hidden(op.native)]
        for s in model.signatureDefs or ():
            if s.subgraphIndex == graph.number:
                for t in (*(s.inputs or ()), *(s.outputs or ())):
                    t.tensorIndex = new[t.tensorIndex]


def _hidden(op: Any) -> tuple[int, ...]:
    return tuple(int(t) for t in ([] if op.intermediates is None else op.intermediates))


def _drop_codes(model: Any) -> None:
    ops = [op for subgraph in model.subgraphs for op in subgraph.operators or ()]
    order = sorted({op.opcodeIndex for op in ops})
    new = {old: number for number, old in enumerate(order)}
    model.operatorCodes = [model.operatorCodes[old] for old in order]
    for op in ops:
        op.opcodeIndex = new[op.opcodeIndex]


def _merge_buffers(model: Any) -> None:
    """Keep one buffer of each content, those that are read; number 0 stays empty, as the schema wants it."""
    old = model.buffers
    kept: list[Any] = [type(old[0])()]
    by_content: dict[bytes, int] = {}
    stateful = {t.buffer for subgraph in model.subgraphs for t in subgraph.tensors if t.isVariable}

    def place(number: int) -> int:
        data = old[number].data
        if data is None or not len(data):
            return 0
        content = np.asarray(data, np.uint8).tobytes()
        if number in stateful or content not in by_content:
            kept.append(old[number])
            by_content.setdefault(content, len(kept) - 1)
            return len(kept) - 1
        return by_content[content]

    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            tensor.buffer = place(tensor.buffer)
    for entry in model.metadata or ():
        entry.buffer = place(entry.buffer)
    model.buffers = kept
    model.metadataBuffer = None


def compacted(content: bytes) -> bytes:
    """The bytes of a file, made smaller."""
    return flat.serialize(compact(flat.parse(content)))
