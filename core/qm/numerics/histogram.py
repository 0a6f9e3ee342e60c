"""What a stream saw, as a person looks at it: bins of equal width, and what a range would leave of it."""

from __future__ import annotations

import numpy as np

from qm.numerics.metric import decibel
from qm.numerics.range import Floats, expected_error
from qm.numerics.stream import Stream
from qm.types import Activation

BINS = 64


def histogram(stream: Stream, bins: int = BINS) -> tuple[Floats, Floats]:
    """Edges ``(bins + 1,)`` from the smallest to the largest value, and counts ``(bins,)`` between them.

    Counts are spread evenly over the stream's own bins, which are finer near zero.

    Raises:
        ValueError: the stream has no histogram, or saw nothing.
    """
    if not stream.has_histogram or not stream.values:
        raise ValueError("a histogram needs a stream that counted values")
    left, right, counts = stream.bins()
    edges = np.linspace(stream.low, stream.high, bins + 1)
    if stream.low == stream.high:
        return edges, np.append(np.zeros(bins - 1), counts.sum())
    # A bin that lies on one point is given a hair's width, so that it falls between two edges.
    near = np.minimum(left, right - 1e-9 * (stream.high - stream.low))
    total = np.cumsum(counts)
    below = np.interp(edges, np.stack([near, right], 1).ravel(), np.stack([total - counts, total], 1).ravel())
    below[0], below[-1] = 0.0, total[-1]
    return edges, np.maximum(np.diff(below), 0.0)


def activation(stream: Stream, *, tensor: str, layer: str, low: float, high: float, bits: int) -> Activation:
    """What calibration saw of a tensor, the range chosen, and what rounding and clipping to it should leave.

    Raises:
        ValueError: the stream has no histogram, or saw nothing.
    """
    edges, counts = histogram(stream)
    left, right, weights = stream.bins()
    power = float(weights @ (left * left + left * right + right * right)) / 3 / float(weights.sum())
    error = expected_error(stream, np.array([low]), np.array([high]), bits=bits, symmetric=False)
    outside = np.maximum(np.minimum(right, low) - left, 0) + np.maximum(right - np.maximum(left, high), 0)
    width = np.maximum(right - left, 1e-300)
    return Activation(
        tensor=tensor,
        layer=layer,
        bits=bits,
        low=low,
        high=high,
        edges=tuple(map(float, edges)),
        counts=tuple(map(float, counts)),
        sqnr_db=float(decibel(power, float(error[0]))),
        clipped=float(weights @ np.minimum(outside / width, 1)) / float(weights.sum()),
    )
