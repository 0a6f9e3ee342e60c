"""Which range of each channel of a weight its integers cover."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from qm.plugin import Array
from qm_tf.graph import Graph
from qm_tf.layer import Found

Floats = NDArray[np.float64]

_NEWTON_STEPS = 20
_SHRINK = np.linspace(1.0, 0.3, 71)
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
    weight: Array, axis: int | None, *, bits: int, method: str, bias: Array | None = None, step: float = 0.0
) -> NDArray[np.float32]:
    """The largest magnitude that the integers of each channel cover, in the weight's rank; of all where axis is None.

    ``bias``, of a layer whose input has the step ``step``, is a lower bound: it must fit in 32 bits at the product of
    the steps.
    """
    values = np.asarray(weight, np.float64)
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(weight.shape[axis], -1)
    widest = np.abs(rows).max(axis=1, initial=0.0)
    most = METHODS[method](rows, widest, bits)
    most = np.maximum(most, _LEAST * (widest.max(initial=0.0) or 1.0))
    if bias is not None and step:
        most = np.maximum(most, np.abs(bias) * ((1 << (bits - 1)) - 1) / (step * _LARGEST_BIAS))
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    return most.astype(np.float32).reshape(shape)


def _minmax(rows: Floats, widest: Floats, bits: int) -> Floats:
    return widest


def _octav(rows: Floats, widest: Floats, bits: int) -> Floats:
    """Newton's steps towards the clip of least squared error, rounding noise taken as uniform.

    Source: Sakr et al., "Optimal clipping and magnitude-aware differentiation for improved quantization-aware
    training", 2022, equation 6.
    """
    magnitude = np.abs(rows)
    noise = 4.0**-bits / 3
    clip = widest / 2
    for _ in range(_NEWTON_STEPS):
        outside = magnitude > clip[:, None]
        count = outside.sum(axis=1)
        weighed = noise * (rows.shape[1] - count) + count
        clip = (magnitude * outside).sum(axis=1) / np.maximum(weighed, np.finfo(np.float64).tiny)
    return np.where(clip > 0, np.minimum(clip, widest), widest)


def _mse(rows: Floats, widest: Floats, bits: int) -> Floats:
    """The clip of least squared error, by trial."""
    high = (1 << (bits - 1)) - 1
    low = -high if bits >= 8 else -high - 1
    best, least = widest.copy(), np.full(len(rows), np.inf)
    for share in _SHRINK:
        step = np.maximum(widest * share / high, np.finfo(np.float64).tiny)[:, None]
        error = np.square(np.clip(np.rint(rows / step), low, high) * step - rows).sum(axis=1)
        better = error < least
        best[better], least[better] = widest[better] * share, error[better]
    return best


METHODS: Mapping[str, Callable[[Floats, Floats, int], Floats]] = {"minmax": _minmax, "mse": _mse, "octav": _octav}
