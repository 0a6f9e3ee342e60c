"""What is wrong in a flatbuffer that can be read: numbers that point nowhere, sizes that do not fit.

LiteRT checks the structure of the file, and trusts what stands in it: some such values end the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite, prod
from typing import Any

from qm_tf import flat
from qm_tf.graph import Graph, graphs

LARGEST = 1 << 31
"""Bytes that a tensor can take in a .tflite file."""

_BITS = flat.BITS | {"BOOL": 8, "FLOAT16": 16, "FLOAT32": 32, "FLOAT64": 64, "INT32": 32, "INT64": 64}
_BITS |= {"UINT16": 16, "UINT32": 32, "UINT64": 64}
_INTEGERS = frozenset({"INT8", "UINT8", "INT16"})
_ARITHMETIC = frozenset(
    {
        "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DIV",
        "FULLY_CONNECTED", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL", "PRELU", "RELU",
        "RELU6", "SOFTMAX", "SQUARED_DIFFERENCE", "SUB", "TANH", "TRANSPOSE_CONV",
    }
)  # fmt: skip
"""Operations whose integers stand for real values where any of them has a scale."""


def damage(model: Any) -> str:
    """The first thing wrong, empty where nothing is. May itself run into what is badly broken."""
    if not model.subgraphs:
        return "it has no graph"
    for number in range(len(model.subgraphs)):
        if wrong := next(_pointing_nowhere(model, model.subgraphs[number]), ""):
            return wrong
    for graph in graphs(model):
        if wrong := next(_unsound(graph), ""):
            return wrong
    return ""


def _pointing_nowhere(model: Any, native: Any) -> Iterator[str]:
    there = len(native.tensors or ())
    for op in native.operators or ():
        if not 0 <= op.opcodeIndex < len(model.operatorCodes):
            yield f"an operation is of kind {op.opcodeIndex}, of {len(model.operatorCodes)}"
        for t in (*_numbers(op.inputs), *_numbers(op.outputs), *_numbers(op.intermediates)):
            if not -1 <= t < there:
                yield f"an operation uses tensor {t}, of {there}"
    for t in (*_numbers(native.inputs), *_numbers(native.outputs)):
        if not 0 <= t < there:
            yield f"an input or output is tensor {t}, of {there}"
    for number, tensor in enumerate(native.tensors or ()):
        if not _is_text(tensor.name):
            yield f"the name of tensor {number} is no text"
        if not 0 <= tensor.buffer < len(model.buffers):
            yield f"tensor {flat.text(tensor.name)!r} is in buffer {tensor.buffer}, of {len(model.buffers)}"


def _unsound(graph: Graph) -> Iterator[str]:
    for number, tensor in enumerate(graph.native.tensors or ()):
        text = flat.text(tensor.name)
        shape, kind = flat.shape(tensor), flat.type_name(tensor)
        if any(n < 0 for n in shape):
            yield f"tensor {text!r} has the shape {list(shape)}"
        nbytes = -(-prod(shape) * _BITS.get(kind, 0) // 8)
        if nbytes >= LARGEST:
            yield f"tensor {text!r} would take {nbytes:,} bytes"
        data = graph.model.buffers[tensor.buffer].data
        if graph.is_constant(number) and nbytes and tensor.sparsity is None and len(data) != nbytes:
            yield f"tensor {text!r} has {len(data):,} of {nbytes:,} bytes"
        yield from _bad_scales(tensor, text, shape)
    yield from _bad_order(graph)
    for op in graph.ops:
        if op.kind in _ARITHMETIC:
            integers = [t for t in (*op.inputs, *op.outputs) if t >= 0 and graph.type(t) in _INTEGERS]
            bare = [t for t in integers if not _scales(graph.tensor(t))]
            if bare and len(bare) < len(integers):
                yield f"tensor {graph.name(bare[0])!r}, which {op.kind} uses, has no scale"


def _bad_scales(tensor: Any, text: str, shape: tuple[int, ...]) -> Iterator[str]:
    scales = _scales(tensor)
    if not all(isfinite(s) and s >= 0 for s in scales):
        yield f"a scale of tensor {text!r} is not a number above 0"
    if len(scales) > 1:
        axis = tensor.quantization.quantizedDimension
        if not 0 <= axis < len(shape) or shape[axis] != len(scales):
            yield f"tensor {text!r} of shape {list(shape)} has {len(scales)} scales along axis {axis}"
        zeros = tensor.quantization.zeroPoint
        if zeros is not None and len(zeros) not in (0, 1, len(scales)):
            yield f"tensor {text!r} has {len(scales)} scales and {len(zeros)} zero points"


def _bad_order(graph: Graph) -> Iterator[str]:
    made: set[int] = set()
    for op in graph.ops:
        for t in op.inputs:
            if t in graph.producer and t not in made:
                yield f"{op.kind} reads tensor {graph.name(t)!r} before it is there"
        made.update(op.outputs)


def _scales(tensor: Any) -> list[float]:
    quantization = tensor.quantization
    return [] if quantization is None or quantization.scale is None else [float(s) for s in quantization.scale]


def _is_text(value: bytes | str | None) -> bool:
    try:
        (value or b"").decode() if not isinstance(value, str) else value
    except UnicodeDecodeError:
        return False
    return True


def _numbers(values: Iterable[Any] | None) -> list[int]:
    return [] if values is None else [int(v) for v in values]
