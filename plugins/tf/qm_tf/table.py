"""Tables of embeddings in integers: LiteRT looks up rows of int8 and turns them to floats after it.

ai-edge-quantizer leaves the table of a GATHER as it is, unless all around it computes in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qm.plugin import Array, Plan
from qm_tf import flat
from qm_tf.graph import Graph
from qm_tf.layer import Found, find

_LEAST = 1e-9


def write(model: Any, plan: Plan) -> None:
    """Store the tables of GATHER that the plan asks for in int8, a scale for each column."""
    graph = Graph(model)
    for f in reversed([f for f in find(graph) if f.kind == "GATHER" and not plan[f.name].is_float]):
        _write(model, graph, f)


def _write(model: Any, graph: Graph, f: Found) -> None:
    table = graph.tensor(f.weights[0])
    values = np.asarray(graph.array(f.weights[0]))
    by_row = _looks_up_rows(f)
    most = np.abs(values).max(axis=tuple(range(values.ndim - 1)) if by_row else None)
    scales = np.atleast_1d(np.maximum(most, _LEAST) / 127).astype(np.float32)
    codes = np.clip(np.rint(values / scales), -127, 127)
    table.type = schema.TensorType.INT8
    table.quantization = _quantization(scales, values.ndim - 1)
    table.buffer = _buffer(model, codes)
    found = _twin(graph, f, scales)
    f.op.native.outputs = [found]
    model.operatorCodes[f.op.native.opcodeIndex].version = max(model.operatorCodes[f.op.native.opcodeIndex].version, 2)
    graph.native.operators.insert(f.op.number + 1, _dequantize(model, found, f.output, per_axis=scales.size > 1))


def _looks_up_rows(f: Found) -> bool:
    options = f.op.native.builtinOptions
    return options is None or (options.axis == 0 and not getattr(options, "batchDims", 0))


def _quantization(scales: Array, axis: int) -> Any:
    made = schema.QuantizationParametersT()
    made.scale, made.zeroPoint = scales.tolist(), [0] * scales.size
    made.quantizedDimension = axis if scales.size > 1 else 0
    return made


def _buffer(model: Any, codes: Array) -> int:
    made = schema.BufferT()
    made.data = np.frombuffer(np.ascontiguousarray(codes, np.int8).tobytes(), np.uint8)
    model.buffers.append(made)
    return len(model.buffers) - 1


def _twin(graph: Graph, f: Found, scales: Array) -> int:
    """A new int8 tensor of the shape of the layer's result."""
    result = graph.tensor(f.output)
    made = schema.TensorT()
    made.shape, made.shapeSignature = result.shape, result.shapeSignature
    made.type, made.buffer, made.hasRank = schema.TensorType.INT8, 0, result.hasRank
    made.name = (graph.name(f.output) + "_quantized").encode()
    made.quantization = _quantization(scales, len(flat.shape(result)) - 1)
    graph.native.tensors.append(made)
    return len(graph.native.tensors) - 1


def _dequantize(model: Any, source: int, result: int, *, per_axis: bool) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex = _code(model, schema.BuiltinOperator.DEQUANTIZE, version=5 if per_axis else 2)
    made.inputs, made.outputs = [source], [result]
    made.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    made.builtinOptions = schema.DequantizeOptionsT()
    return made


def _code(model: Any, builtin: int, *, version: int) -> int:
    codes: Sequence[Any] = model.operatorCodes
    for number, code in enumerate(codes):
        if code.builtinCode == builtin:
            code.version = max(code.version, version)
            return number
    made = schema.OperatorCodeT()
    made.builtinCode, made.version = builtin, version
    made.deprecatedBuiltinCode = min(builtin, 127)
    model.operatorCodes.append(made)
    return len(model.operatorCodes) - 1
