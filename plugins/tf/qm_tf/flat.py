"""The flatbuffer of a .tflite file, as objects: read, written, and its codes by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from qm.plugin import Array
from qm_tf.pack import packed

MAGIC = b"TFL3"

TYPES: dict[int, str] = {v: k for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
"""Tensor types by code: ``FLOAT32``, ``INT8``, ``INT4`` ..."""

OPERATORS: dict[int, str] = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
"""Builtin operators by code: ``CONV_2D``, ``CUSTOM`` ..."""

DTYPES = {
    "BOOL": "bool",
    "FLOAT16": "float16",
    "FLOAT32": "float32",
    "FLOAT64": "float64",
    "INT16": "int16",
    "INT2": "int8",
    "INT32": "int32",
    "INT4": "int8",
    "INT64": "int64",
    "INT8": "int8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "UINT8": "uint8",
}
"""NumPy's name of what a tensor of a type is read as; 4- and 2-bit integers are unpacked to int8."""

BITS = {"INT2": 2, "INT4": 4, "INT8": 8, "UINT8": 8, "INT16": 16}
"""Bits of the integer types that weights and activations are quantized to."""


def parse(content: bytes) -> Any:
    """The file's content as objects. What is not a flatbuffer raises whatever it happens to run into."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    for buffer in model.buffers:
        if buffer.offset:  # Large files keep the data of buffers behind the flatbuffer.
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def serialize(model: Any) -> bytes:
    """The bytes of the file."""
    return packed(model)


def operator(model: Any, op: Any) -> str:
    """The name of an operation's kind; that of a custom one begins with ``CUSTOM:``."""
    code = model.operatorCodes[op.opcodeIndex]
    name = OPERATORS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
    if name == "CUSTOM":
        return f"CUSTOM:{text(code.customCode)}"
    return name


def type_name(tensor: Any) -> str:
    """The name of a tensor's true type, which the interpreter does not tell for 4 and 2 bits."""
    return TYPES.get(tensor.type, "UNKNOWN")


def text(value: bytes | str | None) -> str:
    """A string of the flatbuffer."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


def shape(tensor: Any) -> tuple[int, ...]:
    """The shape as stored, a free length as 1."""
    return tuple(int(n) for n in ([] if tensor.shape is None else tensor.shape))


def free_shape(tensor: Any) -> tuple[int | None, ...]:
    """The shape with None for a free length."""
    signature = tensor.shapeSignature
    stored = shape(tensor)
    if signature is None or not len(signature):
        return stored
    return tuple(None if int(n) < 0 else int(n) for n in signature)


def array(model: Any, tensor: Any) -> Array | None:
    """The stored values of a constant, unpacked; None where the tensor is no constant.

    Integers of 4 and 2 bits are packed with the first value in the lowest bits. Source: the TensorFlow Lite schema.
    """
    data = model.buffers[tensor.buffer].data if tensor.buffer else None
    if data is None or not len(data):
        return None
    kind = type_name(tensor)
    raw = np.asarray(data, np.uint8)
    if kind in ("INT4", "INT2"):
        bits = BITS[kind]
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes = ((raw[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[: int(np.prod(shape(tensor)))]
        signed = codes.astype(np.int8)
        return np.where(signed >= 1 << (bits - 1), signed - (1 << bits), signed).astype(np.int8).reshape(shape(tensor))
    if kind not in DTYPES:
        return None
    return np.frombuffer(raw.tobytes(), np.dtype(DTYPES[kind])).reshape(shape(tensor))


def store(model: Any, tensor: Any, values: Array) -> None:
    """Put values of the tensor's own type in its buffer; 4-bit integers are packed. Unshared buffers only."""
    if type_name(tensor) == "INT4":
        codes = np.asarray(values, np.int8).reshape(-1).view(np.uint8) & 0xF
        codes = np.append(codes, np.zeros(codes.size % 2, np.uint8))
        packed = codes[::2] | (codes[1::2] << 4)
        model.buffers[tensor.buffer].data = packed
        return
    dtype = np.dtype(DTYPES[type_name(tensor)])
    model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(values, dtype).tobytes(), np.uint8)
