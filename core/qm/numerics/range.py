"""Which range of a tensor's values the integers should cover."""

from __future__ import annotations

import difflib

import numpy as np
from numpy.typing import NDArray

from qm.errors import UsageError
from qm.numerics.stream import Stream

Floats = NDArray[np.float64]

METHODS = ("minmax", "percentile", "mse", "entropy")

_COARSE = np.exp2(-np.arange(24) / 3)  # down to 1/200 of the full range
_FINE = (np.exp2(np.linspace(-0.5, 0.5, 9)), np.exp2(np.linspace(-0.1, 0.1, 9)), np.exp2(np.linspace(-0.02, 0.02, 9)))

_ENTROPY_BINS = 2048
_ENTROPY_STEPS = (64, 16, 4)
_ENTROPY_BITS = 8


def needs_histogram(method: str) -> bool:
    """Whether the method takes more than the extremes.

    Raises:
        UsageError: there is no such method.
    """
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, 1)
        raise UsageError(
            f"there is no range method {method!r}",
            hint=(f"Did you mean {near[0]!r}? " if near else "") + f"The methods are: {', '.join(METHODS)}.",
        )
    return method != "minmax"


def choose_range(
    stream: Stream, method: str, *, bits: int = 8, symmetric: bool = False, percentile: float = 99.99
) -> tuple[float, float]:
    """The range to quantize, ``low <= 0 <= high``; ``(-m, m)`` where it is symmetric, and never beyond the extremes.

    ``minmax`` covers all that was seen. ``percentile`` cuts ``100 - percentile`` percent of the values, half of them
    from each end, or of the magnitudes where symmetric. ``mse`` keeps the mean squared error of clipping and rounding
    least, ``entropy`` the Kullback-Leibler divergence of the magnitudes.

    Raises:
        UsageError: there is no such method, the percentile is not above 50 and up to 100, or nothing was seen.
        ValueError: the method needs the histogram that the stream was made without.
    """
    if needs_histogram(method) and not stream.has_histogram:
        raise ValueError(f"range method {method!r} needs a stream with a histogram")
    if not 50 < percentile <= 100:
        raise UsageError(f"percentile {percentile} is out of range", hint="Give more than 50 and at most 100.")
    if not stream.values:
        raise UsageError("a range cannot be chosen from no values", hint="Calibrate with samples that hold numbers.")
    low, high = min(stream.low, 0.0), max(stream.high, 0.0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    if method == "percentile":
        low, high = _percentile(stream, percentile, low, high, symmetric=symmetric)
    elif method == "mse":
        low, high = _least_squares(stream, bits, low, high, symmetric=symmetric)
    elif method == "entropy":
        low, high = _least_divergence(stream, bits, low, high)
    return low, high


def expected_error(stream: Stream, low: Floats, high: Floats, *, bits: int, symmetric: bool) -> Floats:
    """Mean squared error of values quantized to each of the ranges ``(n,)``, rounding and clipping both.

    Values are taken as uniform within a bin of the histogram, and the squared error is integrated exactly. The grids
    are those of ``grid_for_range``, narrow where symmetric.
    """
    left, right, counts = stream.bins()
    return _error(left, right, counts / counts.sum(), low, high, bits=bits, symmetric=symmetric)


def _percentile(stream: Stream, percentile: float, low: float, high: float, *, symmetric: bool) -> tuple[float, float]:
    left, right, counts = stream.bins()
    if symmetric:
        most = _quantile(*_magnitudes(left, right, counts), percentile / 100)
        return -most, most
    tail = (100 - percentile) / 200
    ends = _quantile(left, right, counts, tail), _quantile(left, right, counts, 1 - tail)
    return min(max(ends[0], low), 0.0), max(min(ends[1], high), 0.0)


def _quantile(left: Floats, right: Floats, counts: Floats, share: float) -> float:
    """The value that the share of all counts lies below, linear within a bin."""
    above = np.cumsum(counts)
    goal = share * above[-1]
    i = min(int(np.searchsorted(above, goal)), len(counts) - 1)
    within = 1 - (above[i] - goal) / counts[i]
    return float(left[i] + np.clip(within, 0, 1) * (right[i] - left[i]))


def _magnitudes(left: Floats, right: Floats, counts: Floats) -> tuple[Floats, Floats, Floats]:
    """The bins of the absolute values, in ascending order; two bins may overlap, from below and above zero."""
    near, far = np.minimum(np.abs(left), np.abs(right)), np.maximum(np.abs(left), np.abs(right))
    order = np.lexsort((far, near))
    return near[order], far[order], counts[order]


def _least_squares(stream: Stream, bits: int, low: float, high: float, *, symmetric: bool) -> tuple[float, float]:
    """Search both ends by coordinate descent, from ever finer grids, the full range always among the candidates."""
    # Errors are integrated within a bin, so that wider ones do.
    left, right, counts = stream.bins(per_octave=16)
    # What is far below a step of the full range is rounded to zero by every candidate, or too little to count.
    heard = np.maximum(-left, right) > np.exp2(-(bits + 6)) * max(-low, high)
    bins = left[heard], right[heard], counts[heard]

    def best(lows: Floats, highs: Floats) -> tuple[float, float]:
        lows, highs = np.broadcast_arrays(np.maximum(lows, low), np.minimum(highs, high))
        i = int(np.argmin(_error(*bins, lows, highs, bits=bits, symmetric=symmetric)))
        return float(lows[i]), float(highs[i])

    at = best(low * _COARSE, high * _COARSE)
    if symmetric or low == 0 or high == 0:
        for fine in _FINE:
            at = best(at[0] * fine, at[1] * fine)
        return at
    one = np.ones(1)
    at = best(at[0] * one, np.append(high * _COARSE, at[1]))
    at = best(np.append(low * _COARSE, at[0]), at[1] * one)
    for fine in _FINE:
        at = best(at[0] * one, at[1] * fine)
        at = best(at[0] * fine, at[1] * one)
    return at


def _error(
    left: Floats, right: Floats, counts: Floats, low: Floats, high: Floats, *, bits: int, symmetric: bool
) -> Floats:
    """Sum of squared errors for each candidate range."""
    levels = (1 << bits) - 2 if symmetric else (1 << bits) - 1
    step = np.maximum((high - low) / levels, np.finfo(np.float32).tiny)[:, None]
    first = np.rint(low[:, None] / step)
    # A bin that the extremes have cut to a point keeps a little width, so that one formula serves all.
    width = np.maximum(right - left, 1e-6 * np.maximum(np.abs(left), np.abs(right)) + 1e-300)
    area = _integral(left + width, step, first, levels) - _integral(left, step, first, levels)
    total: Floats = np.maximum(area, 0) @ (counts / width)
    return total


def _integral(x: Floats, step: Floats, first: Floats, levels: int) -> Floats:
    """The integral from 0 to x of the squared distance to the nearest level ``step * k``, k from ``first`` on.

    From level to level it grows by step**3 / 12; at a distance r beyond the nearest, by r**3 / 3, clipped values too.
    """
    k = x / step
    np.rint(k, out=k)
    np.clip(k, first, first + levels, out=k)
    r = x - k * step
    result: Floats = k * (step**3 / 12) + r * r * r / 3
    return result


def _least_divergence(stream: Stream, bits: int, low: float, high: float) -> tuple[float, float]:
    """Clip the magnitudes where quantizing them changes their distribution least, by Kullback and Leibler.

    Exact zeros stay exact in every range and are left out. Above 8 bits the histogram is no finer than the grid, and
    the full range stays. Source: Migacz, "8-bit inference with TensorRT", 2017; here the levels are of equal width,
    and as many as the grid really has between zero and the clip.
    """
    left, right, counts = stream.bins()
    nonzero = np.maximum(-left, right) > np.finfo(np.float32).tiny
    if bits > _ENTROPY_BITS or not nonzero.any():
        return low, high
    most = max(-low, high)
    hist = _linear(left[nonzero], right[nonzero], counts[nonzero], most)

    def divergence(size: int) -> float:
        clip = most * size / _ENTROPY_BINS
        span = min(clip, -low) + min(clip, high)
        return _divergence(hist, size, round(clip / span * ((1 << bits) - 1)))

    first, last = 1 << bits, _ENTROPY_BINS
    for step in _ENTROPY_STEPS:
        size = min(range(last, first - 1, -step), key=divergence)
        first, last = max(size - step, 1 << bits), min(size + step, _ENTROPY_BINS)
    clip = most * size / _ENTROPY_BINS
    return max(low, -clip), min(high, clip)


def _linear(left: Floats, right: Floats, counts: Floats, most: float) -> Floats:
    """The magnitudes' histogram in bins of equal width from 0 to ``most``, counts spread evenly over theirs."""
    edges = np.linspace(0, most, _ENTROPY_BINS + 1)
    below = np.zeros(edges.size)
    for side in (right <= 0, left >= 0):
        if side.any():
            near, far, n = _magnitudes(left[side], right[side], counts[side])
            total = np.cumsum(n)
            below += np.interp(edges, np.stack([near, far], 1).ravel(), np.stack([total - n, total], 1).ravel())
    return np.diff(below)


def _divergence(hist: Floats, size: int, levels: int) -> float:
    """Divergence of the first ``size`` bins, the rest clipped into the last, from their average over each level."""
    kept = hist[:size]
    clipped = kept.copy()
    clipped[-1] += hist[size:].sum()
    starts = -(-np.arange(levels) * size // levels)
    occupied = kept > 0
    shares = np.add.reduceat(kept, starts) / np.maximum(np.add.reduceat(occupied, starts, dtype=np.int64), 1)
    merged = np.where(occupied, np.repeat(shares, np.diff(starts, append=size)), 0)
    if not merged.any():
        return np.inf
    seen = clipped > 0
    p = clipped[seen] / clipped.sum()
    # Clipped values may fall where there were none; a millionth stands for the probability of what was never seen.
    q = np.maximum(merged[seen] / merged.sum(), 1e-6)
    return float(p @ np.log(p / q))
