"""The operations of a .tflite graph in TensorFlow, so that they can be differentiated.

Each takes its operands, of a batch of any length, and computes what the TensorFlow Lite operator of that name defines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

Tensor = Any
Operands = Sequence[Any]
"""Tensors, or NumPy arrays where the graph stores them; None where one is left out."""
Function = Callable[[Operands, Any], Any]

_PADDING = {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}


def activated(x: Tensor, o: Any) -> Tensor:
    """The activation that is fused into an operation with the options ``o``."""
    kinds = schema.ActivationFunctionType
    functions: dict[int, Callable[[Tensor], Tensor]] = {
        kinds.NONE: tf.identity,
        kinds.RELU: tf.nn.relu,
        kinds.RELU6: tf.nn.relu6,
        kinds.RELU_N1_TO_1: lambda v: tf.clip_by_value(v, -1.0, 1.0),
        kinds.TANH: tf.tanh,
    }
    return functions[getattr(o, "fusedActivationFunction", kinds.NONE)](x)


def _conv(operands: Operands, o: Any) -> Tensor:
    kernel = tf.transpose(operands[1], (1, 2, 3, 0))
    dilations = (o.dilationHFactor, o.dilationWFactor)
    return tf.nn.conv2d(operands[0], kernel, (o.strideH, o.strideW), _PADDING[o.padding], dilations=dilations)


def _depthwise(operands: Operands, o: Any) -> Tensor:
    _, height, width, channels = operands[1].shape
    inputs = operands[0].shape[-1]
    kernel = tf.reshape(operands[1], (height, width, inputs, channels // inputs))
    strides, dilations = (1, o.strideH, o.strideW, 1), (o.dilationHFactor, o.dilationWFactor)
    return tf.nn.depthwise_conv2d(operands[0], kernel, strides, _PADDING[o.padding], dilations=dilations)


def _transpose_conv(operands: Operands, o: Any) -> Tensor:
    shape = tf.concat([tf.shape(operands[2])[:1], np.asarray(operands[0])[1:]], 0)
    kernel = tf.transpose(operands[1], (1, 2, 0, 3))
    return tf.nn.conv2d_transpose(operands[2], kernel, shape, (o.strideH, o.strideW), _PADDING[o.padding])


def _fully_connected(operands: Operands, o: Any) -> Tensor:
    x, weight = operands[0], operands[1]
    if not o.keepNumDims:
        x = tf.reshape(x, (-1, weight.shape[1]))
    return tf.matmul(x, weight, transpose_b=True)


LINEAR: dict[str, Function] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transpose_conv,
}
"""The sums of products alone: no bias, no activation."""

BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}


def _layer(kind: str) -> Function:
    def layer(operands: Operands, o: Any) -> Tensor:
        x, place = LINEAR[kind](operands, o), BIAS[kind]
        if len(operands) > place and operands[place] is not None:
            x = x + operands[place]
        return activated(x, o)

    return layer


def _batch_matmul(operands: Operands, o: Any) -> Tensor:
    return tf.matmul(operands[0], operands[1], transpose_a=bool(o.adjX), transpose_b=bool(o.adjY))


def _pool(function: Callable[..., Tensor]) -> Function:
    def pool(operands: Operands, o: Any) -> Tensor:
        x = function(operands[0], (o.filterHeight, o.filterWidth), (o.strideH, o.strideW), _PADDING[o.padding])
        return activated(x, o)

    return pool


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    def binary(operands: Operands, o: Any) -> Tensor:
        return activated(function(operands[0], operands[1]), o)

    return binary


def _unary(function: Callable[[Tensor], Tensor]) -> Function:
    def unary(operands: Operands, o: Any) -> Tensor:
        return function(operands[0])

    return unary


def _reduce(function: Callable[..., Tensor]) -> Function:
    def reduce(operands: Operands, o: Any) -> Tensor:
        axes = [int(a) for a in np.asarray(operands[1]).reshape(-1)]
        return function(operands[0], axis=axes, keepdims=bool(o.keepDims))

    return reduce


def _reshape(operands: Operands, o: Any) -> Tensor:
    given = operands[1] if len(operands) > 1 and operands[1] is not None else o.newShape
    if tf.is_tensor(given):
        return tf.reshape(operands[0], given)
    # The graph is written for a batch of one: what it calls 1 there is the batch.
    shape = [int(n) for n in np.asarray(given).reshape(-1)]
    free = [-1, *shape[1:]] if shape and shape[0] == 1 and -1 not in shape[1:] else shape
    if shape and shape[0] == 1 and -1 in shape[1:]:
        known = abs(int(np.prod(shape)))
        rest = int(np.prod(operands[0].shape[1:])) // known
        free = [-1, *(rest if n == -1 else n for n in shape[1:])]
    return tf.reshape(operands[0], free)


def _strided_slice(operands: Operands, o: Any) -> Tensor:
    begin, end, strides = (np.asarray(v).copy() for v in operands[1:4])
    mask = int(o.endMask)
    if not int(o.shrinkAxisMask) & 1 and begin[0] == 0 and end[0] == 1:
        mask |= 1  # All of the batch.
    return tf.strided_slice(
        operands[0],
        begin,
        end,
        strides,
        begin_mask=int(o.beginMask),
        end_mask=mask,
        ellipsis_mask=int(o.ellipsisMask),
        new_axis_mask=int(o.newAxisMask),
        shrink_axis_mask=int(o.shrinkAxisMask),
    )


def _slice(operands: Operands, o: Any) -> Tensor:
    begin, size = (np.asarray(v).copy() for v in operands[1:3])
    if begin[0] == 0 and size[0] == 1:
        size[0] = -1
    return tf.slice(operands[0], begin, size)


def _resize(method: str) -> Function:
    def resize(operands: Operands, o: Any) -> Tensor:
        kinds = tf.raw_ops.ResizeBilinear if method == "bilinear" else tf.raw_ops.ResizeNearestNeighbor
        return kinds(
            images=operands[0],
            size=np.asarray(operands[1]),
            align_corners=bool(o.alignCorners),
            half_pixel_centers=bool(o.halfPixelCenters),
        )

    return resize


def _softmax(operands: Operands, o: Any) -> Tensor:
    return tf.nn.softmax(operands[0] * o.beta)


def _concatenation(operands: Operands, o: Any) -> Tensor:
    length = next((tf.shape(v)[:1] for v in operands if tf.is_tensor(v)), None)
    alike = [v if tf.is_tensor(v) or length is None else _broadcast(v, length) for v in operands]
    return activated(tf.concat(alike, o.axis), o)


def _broadcast(constant: Any, length: Tensor) -> Tensor:
    return tf.broadcast_to(constant, tf.concat([length, constant.shape[1:]], 0))


def _squeeze(operands: Operands, o: Any) -> Tensor:
    axes = [int(a) for a in ([] if o.squeezeDims is None else o.squeezeDims)]
    if not axes:
        axes = [i for i, n in enumerate(operands[0].shape) if n == 1 and i > 0]
    return tf.squeeze(operands[0], axes)


def _pad(operands: Operands, o: Any) -> Tensor:
    value = float(np.asarray(operands[2]).reshape(())) if len(operands) > 2 and operands[2] is not None else 0.0
    return tf.pad(operands[0], np.asarray(operands[1]), constant_values=value)


def _mirror_pad(operands: Operands, o: Any) -> Tensor:
    return tf.pad(operands[0], np.asarray(operands[1]), "REFLECT" if o.mode == 0 else "SYMMETRIC")


def _split(operands: Operands, o: Any) -> list[Tensor]:
    return list(tf.split(operands[1], o.numSplits, axis=int(np.asarray(operands[0]).reshape(()))))


def _gelu(operands: Operands, o: Any) -> Tensor:
    return tf.nn.gelu(operands[0], approximate=bool(o.approximate))


def _prelu(operands: Operands, o: Any) -> Tensor:
    x = operands[0]
    return tf.nn.relu(x) + operands[1] * tf.minimum(x, 0.0)


FUNCTIONS: dict[str, Function] = {
    **{kind: _layer(kind) for kind in LINEAR},
    "ABS": _unary(tf.abs),
    "ADD": _binary(tf.add),
    "AVERAGE_POOL_2D": _pool(tf.nn.avg_pool2d),
    "BATCH_MATMUL": _batch_matmul,
    "CONCATENATION": _concatenation,
    "DIV": _binary(tf.divide),
    "ELU": _unary(tf.nn.elu),
    "EXP": _unary(tf.exp),
    "EXPAND_DIMS": lambda operands, o: tf.expand_dims(operands[0], int(np.asarray(operands[1]).reshape(()))),
    "GELU": _gelu,
    "HARD_SWISH": _unary(lambda x: x * tf.nn.relu6(x + 3.0) / 6.0),
    "LEAKY_RELU": lambda operands, o: tf.nn.leaky_relu(operands[0], alpha=o.alpha),
    "LOGISTIC": _unary(tf.sigmoid),
    "MAXIMUM": _binary(tf.maximum),
    "MAX_POOL_2D": _pool(tf.nn.max_pool2d),
    "MEAN": _reduce(tf.reduce_mean),
    "MINIMUM": _binary(tf.minimum),
    "MIRROR_PAD": _mirror_pad,
    "MUL": _binary(tf.multiply),
    "NEG": _unary(tf.negative),
    "PAD": _pad,
    "PADV2": _pad,
    "PRELU": _prelu,
    "REDUCE_MAX": _reduce(tf.reduce_max),
    "RELU": _unary(tf.nn.relu),
    "RELU6": _unary(tf.nn.relu6),
    "RELU_N1_TO_1": _unary(lambda x: tf.clip_by_value(x, -1.0, 1.0)),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize("bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest"),
    "RSQRT": _unary(tf.math.rsqrt),
    "SLICE": _slice,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SQRT": _unary(tf.sqrt),
    "SQUARE": _unary(tf.square),
    "SQUARED_DIFFERENCE": _binary(tf.math.squared_difference),
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _binary(tf.subtract),
    "SUM": _reduce(tf.reduce_sum),
    "TANH": _unary(tf.tanh),
    "TRANSPOSE": lambda operands, o: tf.transpose(operands[0], np.asarray(operands[1])),
}
