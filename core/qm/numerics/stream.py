"""What a tensor's values were, sample by sample in one pass, with nothing kept but counts."""

from __future__ import annotations

import math
import sys

import numpy as np
from numpy.typing import NDArray

from qm.types import Array

MANTISSA_BITS = 6
"""Each octave of magnitude has 2**6 bins, 0.8 to 1.6 percent of the value wide."""

SUBSAMPLE = 4096
"""About this many values of a tensor are counted for one sample; the extremes see all of them."""

_BINS = 1 << MANTISSA_BITS
_OCTAVES = 512  # sign and exponent of float32
_PENDING = 16384
_UPPER = 1 if sys.byteorder == "little" else 0  # where the upper half of a float32 lies
_GOLDEN = (math.sqrt(5) - 1) / 2


class Stream:
    """Statistics of one tensor: exact smallest and largest value, and a histogram of a subsample.

    The histogram counts the upper bits of the float32 pattern: sign, exponent and 6 bits of mantissa. It needs no range
    ahead, so that histograms add up. Only octaves that were seen take memory, 512 bytes each and 256 kB at most, beside
    32 kB for values that wait to be counted together, however many samples there are.

    At most ``limit`` values of a sample are counted. With few samples, give a larger one.
    """

    def __init__(self, *, histogram: bool = True, limit: int = SUBSAMPLE) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.samples = 0
        self.values = 0
        self.nonfinite = 0
        self._limit = limit
        self._size, self._stride = 0, 1
        self._row = np.full(_OCTAVES if histogram else 0, -1, np.int16)
        self._counts = np.zeros((0, _BINS), np.int64)
        self._pending = np.empty(_PENDING if histogram else 0, np.uint16)
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Stream {self.samples} samples, {self.low:.6g} to {self.high:.6g}>"

    @property
    def has_histogram(self) -> bool:
        """Whether values are counted."""
        return bool(self._row.size)

    @property
    def nbytes(self) -> int:
        """Bytes the statistics take."""
        return self._row.nbytes + self._counts.nbytes + self._pending.nbytes

    def update(self, values: Array, *, counted: bool = True) -> None:
        """Take in the tensor's values for one sample, for the extremes alone where they are not ``counted``.

        The first are always counted, so that there is a histogram. NaN and infinity are counted in ``nonfinite``.
        """
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        if not flat.size:
            return
        low, high = float(np.minimum.reduce(flat)), float(np.maximum.reduce(flat))
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = flat[np.isfinite(flat)]
            self.nonfinite += flat.size - finite.size
            self.update(finite, counted=counted)
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self.has_histogram and (counted or not self.values):
            self._sample(flat)
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
        other._count_pending()
        octaves = np.flatnonzero(other._row >= 0)
        self._add(octaves, other._counts[other._row[octaves]])

    def bins(self, *, per_octave: int = _BINS) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Left edges, right edges and counts of the bins that are not empty, in ascending order, within low..high.

        ``per_octave`` is a power of two, 64 at most; fewer bins are wider.
        """
        self._count_pending()
        octaves = np.flatnonzero(self._row >= 0)
        index = (octaves[:, None] * per_octave + np.arange(per_octave)).reshape(-1)
        counts = self._counts[self._row[octaves]].reshape(index.size, -1).sum(axis=1)
        index, counts = index[counts > 0], counts[counts > 0]
        sign = _OCTAVES // 2 * per_octave
        near, far = (_float_at(index % sign + i, per_octave) for i in (0, 1))
        left, right = np.where(index >= sign, -far, near), np.where(index >= sign, -near, far)
        order = np.lexsort((right, left))
        left, right = (np.clip(edge[order], self.low, self.high) for edge in (left, right))
        return left, right, counts[order].astype(np.float64)

    def _sample(self, flat: NDArray[np.float32]) -> None:
        """Lay a subsample by, to be counted with others at once: one count costs much, whatever it counts."""
        if flat.size != self._size:
            self._count_pending()
            self._size, self._stride = flat.size, _stride(flat.size, self._limit)
        # Phases by the golden ratio fall evenly, in any number of samples, and need no random state.
        phase = int(self.samples * _GOLDEN % 1 * self._stride)
        upper = flat.view(np.uint16)[_UPPER + 2 * phase :: 2 * self._stride]
        if self._waiting + upper.size > self._pending.size:
            self._count_pending()
        if upper.size > self._pending.size:
            self._count(upper)
            return
        self._pending[self._waiting : self._waiting + upper.size] = upper
        self._waiting += upper.size

    def _count_pending(self) -> None:
        if self._waiting:
            self._count(self._pending[: self._waiting])
            self._waiting = 0

    def _count(self, upper: NDArray[np.uint16]) -> None:
        index = upper >> np.uint16(7 - MANTISSA_BITS)
        first, last = int(index.min()) // _BINS, int(index.max()) // _BINS
        counts = np.bincount(index - np.uint16(first * _BINS), minlength=(last - first + 1) * _BINS)
        counts = counts.reshape(-1, _BINS)
        touched = np.flatnonzero(counts.any(axis=1))
        # Samples of different size weigh by their size.
        self._add(touched + first, counts[touched] * self._stride)

    def _add(self, octaves: NDArray[np.intp], counts: NDArray[np.int64]) -> None:
        new = octaves[self._row[octaves] < 0]
        if new.size:
            self._row[new] = np.arange(len(self._counts), len(self._counts) + new.size)
            self._counts = np.concatenate([self._counts, np.zeros((new.size, _BINS), np.int64)])
        self._counts[self._row[octaves]] += counts


def _stride(size: int, limit: int) -> int:
    """The least stride that visits at most ``limit`` values, and every channel and every column alike.

    It shares no factor with the size, and so with no axis.
    """
    stride = -(-size // limit)
    while stride > 1 and math.gcd(stride, size) > 1:
        stride += 1
    return stride


def _float_at(index: NDArray[np.int64], per_octave: int) -> NDArray[np.float64]:
    """The float32 at which the bin of that number begins, for positive values."""
    bits = index.astype(np.uint32) * np.uint32((1 << 23) // per_octave)
    return bits.view(np.float32).astype(np.float64)
