"""Two models' outputs compared as they come, with sums kept and outputs dropped."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from qm.numerics.metric import cosine_of, decibel, top1_agreement
from qm.types import Array, Batch


class Tally:
    """What is known so far of one output. All sums are over float64.

    ``unlike`` counts samples whose shapes differ, as when a detector finds another number of boxes: their error cannot
    be said, and neither can the error of the whole. ``finite`` and ``other_finite`` say whether every value was.
    """

    def __init__(self) -> None:
        self.signal = self.noise = self.other_square = self.dot = 0.0
        self.values = self.samples = self.unlike = 0
        self.finite = self.other_finite = True
        self.is_float = True
        self._agreements = array("d")
        self._sqnr_db = array("d")
        self._slices: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]] | None] = {}

    def update(self, reference: Array, other: Array) -> None:
        """Take in one sample: its output by the reference, and by the other."""
        self.samples += 1
        self.is_float &= reference.dtype.kind == "f"
        if reference.shape != other.shape:
            self.unlike += 1
            self._agreements.append(np.nan)
            self._sqnr_db.append(np.nan)
            return
        self._agreements.append(_agreement(reference, other))
        if reference.dtype.kind not in "fiub":
            self._sqnr_db.append(np.nan)
            return
        self._add(reference.astype(np.float64), other.astype(np.float64))

    @property
    def sqnr_db(self) -> float:
        """SQNR over all values of all samples; NaN where a value is not finite or a shape differs."""
        return float("nan") if self.unlike or not self.values else float(decibel(self.signal, self.noise))

    @property
    def cosine(self) -> float:
        """Cosine over all values of all samples; NaN as for ``sqnr_db``."""
        whole = not self.unlike and self.values and self.finite and self.other_finite
        return cosine_of(self.dot, self.signal, self.other_square) if whole else float("nan")

    @property
    def agreement(self) -> float:
        """Mean over samples of ``sample_agreement``; NaN where it cannot be said of one."""
        return float(self.sample_agreement.mean()) if self.samples else float("nan")

    @property
    def sample_agreement(self) -> NDArray[np.float64]:
        """By sample, the share of rows with the same top entry, or of equal values where they are not floats.

        NaN where the last axis has less than two entries, so that there is no top to agree on.
        """
        return np.array(self._agreements)

    @property
    def sample_sqnr_db(self) -> NDArray[np.float64]:
        """SQNR by sample."""
        return np.array(self._sqnr_db)

    @property
    def slice_sqnr_db(self) -> dict[int, NDArray[np.float64]]:
        """SQNR of each slice over all samples, by axis, the first one left out, where its length never changed."""
        return {axis: decibel(*sums) for axis, sums in self._slices.items() if sums is not None}

    def _add(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        finite, other_finite = bool(np.isfinite(a).all()), bool(np.isfinite(b).all())
        self.finite &= finite
        self.other_finite &= other_finite
        with np.errstate(invalid="ignore", over="ignore"):
            signal, noise = np.square(a), np.square(a - b)
            if not (finite and other_finite):
                noise[~(np.isfinite(a) & np.isfinite(b))] = np.nan
            self._sqnr_db.append(float(decibel(signal.sum(), noise.sum())))
            self.signal += float(signal.sum())
            self.noise += float(noise.sum())
            self.other_square += float(np.square(b).sum())
            self.dot += float(np.vdot(a, b))
        self.values += a.size
        for axis in range(1, a.ndim):
            self._add_slices(axis, signal, noise)

    def _add_slices(self, axis: int, signal: NDArray[np.float64], noise: NDArray[np.float64]) -> None:
        others = tuple(i for i in range(signal.ndim) if i != axis)
        more = signal.sum(axis=others), noise.sum(axis=others)
        sums = self._slices.get(axis, more)
        if sums is None or sums[0].shape != more[0].shape:
            self._slices[axis] = None
        elif axis in self._slices:
            self._slices[axis] = sums[0] + more[0], sums[1] + more[1]
        else:
            self._slices[axis] = more


class Comparison:
    """Two models' outputs compared, sample by sample; ``outputs`` has a tally by output name."""

    def __init__(self) -> None:
        self.outputs: dict[str, Tally] = {}

    def update(self, reference: Batch, other: Batch, *, samples: int = 1) -> None:
        """Take in the outputs for ``samples`` samples; for more than one, the first axis counts them.

        Raises:
            ValueError: the outputs' names differ, or the first axis of one is not ``samples`` long.
        """
        if set(reference) != set(other):
            raise ValueError(f"outputs {sorted(reference)} and {sorted(other)} cannot be compared")
        for name, values in reference.items():
            tally = self.outputs.setdefault(name, Tally())
            if samples == 1:
                tally.update(np.asarray(values), np.asarray(other[name]))
                continue
            if not len(values) == len(other[name]) == samples:
                raise ValueError(f"output {name!r} has {len(values)} and {len(other[name])} rows, not {samples}")
            for i in range(samples):
                tally.update(values[i : i + 1], other[name][i : i + 1])

    @property
    def samples(self) -> int:
        """How many samples were compared."""
        return max((t.samples for t in self.outputs.values()), default=0)

    @property
    def finite(self) -> bool:
        """Whether no output of the other model has NaN or infinity where the reference has none."""
        return all(t.other_finite or not t.finite for t in self.outputs.values())

    @property
    def sqnr_db(self) -> float:
        """SQNR of the worst float output, NaN where one cannot be said; of integers where no output is float."""
        numbers = [t for t in self.outputs.values() if t.values or t.unlike]
        floats = [t for t in numbers if t.is_float]
        return min((t.sqnr_db for t in floats or numbers), default=float("nan"), key=_rank)

    @property
    def agreement(self) -> float:
        """Agreement of the worst of the outputs that have a top entry to agree on; NaN where none has."""
        rates = [t.agreement for t in self.outputs.values()]
        return min((rate for rate in rates if not np.isnan(rate)), default=float("nan"))


def _rank(value: float) -> float:
    """NaN below everything."""
    return -np.inf if np.isnan(value) else value


def _agreement(reference: Array, other: Array) -> float:
    if reference.dtype.kind != "f":
        return float((reference == other).mean()) if reference.size else float("nan")
    if reference.ndim == 0 or reference.shape[-1] < 2 or not reference.size:
        return float("nan")
    return top1_agreement(reference, other)
