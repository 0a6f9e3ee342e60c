"""Where samples lie before they are fitted to a model: in arrays, in lists, in streams that begin again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from qm.data.fit import Fit, refuse_alien, refuse_infinite
from qm.errors import QmError, UsageError
from qm.types import Array

Row = Mapping[str, Array]
"""One sample by input name, as it lies in its source."""

_BLOCK = 1 << 24


class Source(Protocol):
    """Samples by number."""

    @property
    def subjects(self) -> Mapping[str, str]:
        """What an error calls the array of each input: ``array 'x' of 'digits.npz'``."""
        ...

    @property
    def batched(self) -> bool:
        """Whether the samples surely have a batch axis."""
        ...

    def __len__(self) -> int: ...

    def walk(self, indices: Sequence[int]) -> Iterator[Row]:
        """The samples of these numbers, in this order."""
        ...

    def digests(self, indices: Sequence[int]) -> Iterator[bytes]:
        """A digest of the content of each sample."""
        ...

    def check(self, indices: Sequence[int], fit: Fit) -> list[str]:
        """Look ahead for what is wrong with these samples as far as that is cheap, and say what will be done to them.

        Raises:
            UsageError: something is.
        """
        ...


class Rows(Protocol):
    """What an array and an array on disk share."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[np.generic]: ...
    def __getitem__(self, part: slice, /) -> Array: ...


@dataclass(frozen=True)
class Arrays:
    """Arrays of one length by input name, the samples along axis 0."""

    arrays: Mapping[str, Rows]
    subjects: Mapping[str, str]
    batched: bool = True

    def __post_init__(self) -> None:
        lengths = {}
        for name, array in self.arrays.items():
            refuse_alien(array.dtype, self.subjects[name])
            if not array.shape:
                raise UsageError(f"{self.subjects[name]} is a single number", hint="Give one entry for each sample.")
            lengths[name] = array.shape[0]
        first = next(iter(lengths))
        for name, length in lengths.items():
            if length != lengths[first]:
                raise UsageError(
                    f"{self.subjects[first]} has {lengths[first]} samples but {self.subjects[name]} has {length}",
                    hint="Give as many samples for each input.",
                )

    def __len__(self) -> int:
        return next(iter(self.arrays.values())).shape[0]

    def walk(self, indices: Sequence[int]) -> Iterator[Row]:
        for index in indices:
            yield {name: array[index : index + 1] for name, array in self.arrays.items()}

    def digests(self, indices: Sequence[int]) -> Iterator[bytes]:
        return map(digest, self.walk(indices))

    def check(self, indices: Sequence[int], fit: Fit) -> list[str]:
        """Arrays in memory are searched for NaN and infinity; those on disk would have to be read twice."""
        for name, array in self.arrays.items():
            if isinstance(array, np.ndarray) and array.dtype.kind == "f":
                _refuse_infinite_rows(array, indices, self.subjects[name])
        return []


def _refuse_infinite_rows(array: Array, indices: Sequence[int], subject: str) -> None:
    """Search in blocks, so that the mask takes little memory."""
    step = max(1, _BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(indices), step):
        part = np.asarray(indices[start : start + step])
        finite = np.isfinite(array[part].reshape(len(part), -1)).all(axis=1)
        if not finite.all():
            index = int(part[np.flatnonzero(~finite)[0]])
            refuse_infinite(array[index], subject, index)


@dataclass(frozen=True)
class Listed:
    """Samples held in a list."""

    rows: Sequence[Row]
    subjects: Mapping[str, str]
    batched: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def walk(self, indices: Sequence[int]) -> Iterator[Row]:
        return (self.rows[index] for index in indices)

    def digests(self, indices: Sequence[int]) -> Iterator[bytes]:
        return map(digest, self.walk(indices))

    def check(self, indices: Sequence[int], fit: Fit) -> list[str]:
        """Every sample is fitted once: each may have another shape."""
        for index in indices:
            fit(self.rows[index], index, self.subjects, batched=self.batched)
        return []


@dataclass(frozen=True)
class Streamed:
    """Samples that come only one after another; ``again`` begins anew for each pass."""

    again: Callable[[], Iterable[Row]]
    count: int
    where: str
    subjects: Mapping[str, str]
    batched: bool = False

    def __len__(self) -> int:
        return self.count

    def walk(self, indices: Sequence[int]) -> Iterator[Row]:
        if any(later <= earlier for earlier, later in pairwise(indices)):
            ascending = sorted(set(indices))
            held = dict(zip(ascending, self.walk(ascending), strict=True))
            yield from (held[index] for index in indices)
            return
        wanted = iter(indices)
        target = next(wanted, None)
        if target is None:
            return
        came = 0
        for came, row in enumerate(self.again(), 1):
            if came - 1 == target:
                yield row
                target = next(wanted, None)
                if target is None:
                    return
        raise UsageError(
            f"{self.where} gave {came} samples this time and {self.count} the first time",
            hint="Give the same samples at every pass: make a new iterator each time.",
        )

    def digests(self, indices: Sequence[int]) -> Iterator[bytes]:
        return map(digest, self.walk(indices))

    def check(self, indices: Sequence[int], fit: Fit) -> list[str]:
        """The pass that counted the samples has fitted them; where the length was known, only the first is."""
        return []


@dataclass(frozen=True)
class Prepared:
    """A source whose samples are scaled or transposed for one input, as a description says."""

    source: Source
    name: str
    preparation: Callable[[Array], Array]
    notes: list[str] = field(default_factory=list)

    @property
    def subjects(self) -> Mapping[str, str]:
        return self.source.subjects

    @property
    def batched(self) -> bool:
        return self.source.batched

    def __len__(self) -> int:
        return len(self.source)

    def walk(self, indices: Sequence[int]) -> Iterator[Row]:
        for row in self.source.walk(indices):
            yield {**row, self.name: self.preparation(row[self.name])}

    def digests(self, indices: Sequence[int]) -> Iterator[bytes]:
        salt = repr(self.preparation).encode()
        return (hashlib.sha256(part + salt).digest() for part in self.source.digests(indices))

    def check(self, indices: Sequence[int], fit: Fit) -> list[str]:
        return [*self.source.check(indices, fit), *self.notes]


def digest(row: Row) -> bytes:
    """A digest of names, dtypes, shapes and values."""
    total = hashlib.sha256()
    for name in sorted(row):
        array = np.ascontiguousarray(row[name])
        total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        total.update(array.tobytes())
    return total.digest()


def guarded(items: Iterable[object], where: str) -> Iterator[object]:
    """The items; what the user's own code raises on the way is said to come from ``where``.

    Raises:
        UsageError: the iteration raised.
    """
    try:
        yield from items
    except (QmError, GeneratorExit):
        raise
    except Exception as e:
        raise UsageError(
            f"{where} raised {type(e).__name__}: {e}", hint="Run it alone to see where, or add --traceback."
        ) from e
