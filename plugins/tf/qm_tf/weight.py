"""Which range of each channel of a weight its integers cover."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qm.numerics import weight_clips
from qm.plugin import Array
from qm_tf.graph import Graph
from qm_tf.layer import Found

_LARGEST_BIAS = 2.0**30
"""A bias is stored in 32 bits at the scale of the product; one bit is left for the sums."""

_LEAST = 1e-6
"""No channel's range is a smaller share of the widest channel's: one that holds zeros alone has none of its own."""


def axis(graph: Graph, f: Found) -> int:
    """The axis of the layer's weight along which its output channels lie."""
    rank = len(graph.shape(f.weights[0]))
    if f.kind == "BATCH_MATMUL":
        return rank - 2 if f.op.native.builtinOptions.adjY else rank - 1
    return f.place.axis % rank


def bounds(
    weight: Array,
    axis: int | None,
    *,
    bits: int,
    method: str,
    bias: Array | None = None,
    step: float = 0.0,
    power: Array | None = None,
) -> NDArray[np.float32]:
    """The largest magnitude that the integers of each channel cover, in the weight's rank; of all where axis is None.

    ``power`` is that of the input that each weight meets, in the weight's shape, where the method is hessian.
    ``bias``, of a layer whose input has the step ``step``, is a lower bound: it must fit in 32 bits at the product of
    the steps.
    """
    rows = _channels(weight, axis)
    widest = np.abs(rows).max(axis=1, initial=0.0)
    most = weight_clips(rows, bits=bits, method=method, power=None if power is None else _channels(power, axis))
    most = np.maximum(most, _LEAST * (widest.max(initial=0.0) or 1.0))
    if bias is not None and step:
        most = np.maximum(most, np.abs(bias) * ((1 << (bits - 1)) - 1) / (step * _LARGEST_BIAS))
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    return most.astype(np.float32).reshape(shape)


def _channels(values: Array, axis: int | None) -> NDArray[np.float64]:
    """The values as ``(channels, values)``."""
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    return rows.astype(np.float64)
