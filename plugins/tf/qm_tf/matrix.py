"""Layers as products of matrices: weights as ``(groups, out, in)``, and of the data the rows that they multiply."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from qm.numerics import patches, places
from qm.plugin import Array, fitting
from qm_tf.graph import Graph
from qm_tf.layer import Found

KINDS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
"""Layers that are products of one matrix, or one a group, with their data."""


def groups(graph: Graph, f: Found) -> int:
    """Parts of a layer that see channels of their own."""
    if f.kind == "FULLY_CONNECTED":
        return 1
    channels = graph.shape(f.data)[3]
    return channels if f.kind == "DEPTHWISE_CONV_2D" else channels // graph.shape(f.weights[0])[3]


def rows(graph: Graph, f: Found, weight: Array) -> Array:
    """``(groups, out, in)`` of the layer's weight."""
    parts = groups(graph, f)
    if f.kind == "DEPTHWISE_CONV_2D":
        return weight.reshape(-1, parts, weight.shape[3] // parts).transpose(1, 2, 0)
    return weight.reshape(parts, len(weight) // parts, -1)


def weight(graph: Graph, f: Found, rows: Array) -> Array:
    """The weight of its rows, or what belongs to each weight of what belongs to each value of them."""
    shape = graph.shape(f.weights[0])
    return (rows.transpose(2, 0, 1) if f.kind == "DEPTHWISE_CONV_2D" else rows).reshape(shape)


def data(
    graph: Graph, f: Found, values: Array, number: int = 0, *, most: int = fitting.POSITIONS
) -> NDArray[np.float32]:
    """Rows of what the layer reads, ``(groups, rows, in)``; of an image at most about ``most``, others for each
    number."""
    shape = graph.shape(f.weights[0])
    if f.kind == "FULLY_CONNECTED":
        flat = values.reshape(-1, shape[-1])
        return flat[None, places(len(flat), number, most)]
    options = f.op.native.builtinOptions
    strides, dilations = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    is_padded = options.padding == schema.Padding.SAME
    margins = [(0, 0)] * 2
    if is_padded:
        margins = [_margin(*lengths) for lengths in zip(values.shape[1:3], shape[1:3], strides, dilations, strict=True)]
    taken = patches(
        np.moveaxis(values, -1, 1),
        kernel=shape[1:3],
        strides=strides,
        dilations=dilations,
        margins=margins,
        number=number,
        most=most,
    )
    parts = groups(graph, f)
    batch, channels, count = taken.shape[:3]
    parted = taken.reshape(batch, parts, channels // parts, count, -1).transpose(1, 0, 3, 4, 2)
    made: NDArray[np.float32] = parted.reshape(parts, batch * count, -1)
    return made


def _margin(length: int, kernel: int, step: int, dilation: int) -> tuple[int, int]:
    """The zeros before and after, as TensorFlow's SAME has them."""
    missing = max((-(-length // step) - 1) * step + (kernel - 1) * dilation + 1 - length, 0)
    return missing // 2, missing - missing // 2
