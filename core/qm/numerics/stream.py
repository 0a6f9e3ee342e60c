"""What a tensor's values were, sample by sample in one pass, with nothing kept but counts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qm.types import Array

MANTISSA_BITS = 6
"""Each octave of magnitude has 2**6 bins, 0.8 to 1.6 percent of the value wide."""

SUBSAMPLE = 16384
"""At most this many values of a tensor are counted for one sample; the extremes see all of them."""

_BINS = 1 << MANTISSA_BITS
_SHIFT = np.uint32(23 - MANTISSA_BITS)
_OCTAVES = 512  # sign and exponent of float32
_GOLDEN = (math.sqrt(5) - 1) / 2


class Stream:
    """Statistics of one tensor: exact smallest and largest value, and a histogram of a subsample.

    The histogram counts the upper bits of the float32 pattern: sign, exponent and 6 bits of mantissa. It needs no range
    ahead, so that histograms add up. Only octaves that were seen take memory, 512 bytes each and 256 kB at most,
    however many samples there are.
    """

    def __init__(self, *, histogram: bool = True, limit: int = SUBSAMPLE) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.samples = 0
        self.values = 0
        self.nonfinite = 0
        self.limit = limit
        self._row = np.full(_OCTAVES if histogram else 0, -1, np.int16)
        self._counts = np.zeros((0, _BINS), np.int64)

    def __repr__(self) -> str:
        return f"<Stream {self.samples} samples, {self.low:.6g} to {self.high:.6g}>"

    @property
    def has_histogram(self) -> bool:
        """Whether values are counted."""
        return bool(self._row.size)

    @property
    def nbytes(self) -> int:
        """Bytes the statistics take."""
        return self._row.nbytes + self._counts.nbytes

    def update(self, values: Array) -> None:
        """Take in the tensor's values for one sample. NaN and infinity are counted apart, in ``nonfinite``."""
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = flat[np.isfinite(flat)]
            self.nonfinite += flat.size - finite.size
            if finite.size:
                self.update(finite)
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self.has_histogram:
            self._count(flat)
        self.samples += 1
        self.values += flat.size

    def merge(self, other: Stream) -> None:
        """Take in what another stream saw of the same tensor.

        Raises:
            ValueError: one has a histogram, the other has none.
        """
        if self.has_histogram != other.has_histogram:
            raise ValueError("a stream with a histogram and one without cannot be merged")
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.samples += other.samples
        self.values += other.values
        self.nonfinite += other.nonfinite
        octaves = np.flatnonzero(other._row >= 0)
        self._add(octaves, other._counts[other._row[octaves]])

    def bins(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Left edges, right edges and counts of the bins that are not empty, in ascending order, within low..high."""
        octaves = np.flatnonzero(self._row >= 0)
        index = (octaves[:, None] * _BINS + np.arange(_BINS)).reshape(-1)
        counts = self._counts[self._row[octaves]].reshape(-1)
        index, counts = index[counts > 0], counts[counts > 0]
        magnitude = index % (_OCTAVES // 2 * _BINS)
        near, far = (_float_at(magnitude + i) for i in (0, 1))
        negative = index >= _OCTAVES // 2 * _BINS
        left, right = np.where(negative, -far, near), np.where(negative, -near, far)
        order = np.lexsort((right, left))
        left, right = (np.clip(edge[order], self.low, self.high) for edge in (left, right))
        return left, right, counts[order].astype(np.float64)

    def _count(self, flat: NDArray[np.float32]) -> None:
        stride = -(-flat.size // self.limit)
        if stride > 1:
            # A stride that shares no factor with the size visits every channel and every column alike.
            while math.gcd(stride, flat.size) > 1:
                stride += 1
            # Phases by the golden ratio fall evenly, in any number of samples, and need no random state.
            phase = int(self.samples * _GOLDEN % 1 * stride)
            flat = flat[phase::stride]
        index = flat.view(np.uint32) >> _SHIFT
        first = int(index.min()) // _BINS
        last = int(index.max()) // _BINS
        counts = np.bincount(index - np.uint32(first * _BINS), minlength=(last - first + 1) * _BINS)
        counts = counts.reshape(-1, _BINS)
        touched = np.flatnonzero(counts.any(axis=1))
        # Samples of different size weigh by their size.
        self._add(touched + first, counts[touched] * stride)

    def _add(self, octaves: NDArray[np.intp], counts: NDArray[np.int64]) -> None:
        new = octaves[self._row[octaves] < 0]
        if new.size:
            self._row[new] = np.arange(len(self._counts), len(self._counts) + new.size)
            self._counts = np.concatenate([self._counts, np.zeros((new.size, _BINS), np.int64)])
        self._counts[self._row[octaves]] += counts


def _float_at(index: NDArray[np.int64]) -> NDArray[np.float64]:
    """The float32 at which the bin of that number begins, for positive values."""
    return (index.astype(np.uint32) << _SHIFT).view(np.float32).astype(np.float64)
