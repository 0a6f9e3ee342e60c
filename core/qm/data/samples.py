"""Samples that are ready to feed, and what is done with them: subsets, splits, batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qm.data.fit import Fit
from qm.data.label import Labels
from qm.data.source import Source
from qm.errors import UsageError
from qm.types import Array, Batch, Dataset, TensorSpec

DIGITS = 20
BRIGHT = 128
"""Whole numbers that reach this look like pixels; counts and smaller codes seldom do."""


class Samples:
    """A data set fitted to a model's inputs. Nothing is kept that can be read again.

    ``indices`` are the samples' numbers in the whole set, ``notes`` what was done to bring them here.
    """

    def __init__(
        self,
        source: Source,
        fit: Fit,
        *,
        named: str,
        labels: Labels | None = None,
        class_names: tuple[str, ...] | None = None,
        notes: Sequence[str] = (),
        indices: Sequence[int] | None = None,
    ) -> None:
        self._source = source
        self._fit = fit
        self._labels = labels
        self._notes = list(notes)
        self.source = named
        self.class_names = class_names
        self.indices: tuple[int, ...] = tuple(range(len(source)) if indices is None else indices)

    @property
    def notes(self) -> list[str]:
        """What was done: casts, axes added, files skipped, arrays chosen."""
        return [*dict.fromkeys([*self._notes, *self._fit.notes])]

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class indices, one a sample."""
        return None if self._labels is None else self._labels[list(self.indices)]

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """A short digest of each sample as it lies in its source, by which it is known again in another set."""
        return tuple(part.hex()[:DIGITS] for part in self._source.digests(self.indices))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of samples and labels as they lie in their source, and of the model's inputs, in hexadecimal."""
        total = hashlib.sha256("; ".join(map(str, self._fit.inputs)).encode())
        for part in self.digests:
            total.update(part.encode())
        if (labels := self.labels) is not None:
            total.update(labels.tobytes())
        return total.hexdigest()

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        subjects = self._source.subjects
        for index, row in zip(self.indices, self._source.walk(self.indices), strict=True):
            yield self._fit(row, index, subjects, batched=self._source.batched)

    def __getitem__(self, position: int) -> dict[str, Array]:
        index = self.indices[position]
        row = next(self._source.walk([index]))
        return self._fit(row, index, self._source.subjects, batched=self._source.batched)

    def __repr__(self) -> str:
        return f"<Samples {self.source}, {len(self)} of {len(self._source)}>"

    def check(self) -> None:
        """Look for what is wrong before anything heavy is run: the first sample always, the others where cheap.

        Raises:
            UsageError: there are no samples, or something is wrong with them.
        """
        if not self.indices:
            raise UsageError(f"data set {self.source!r} has no samples", hint="Give at least one.")
        _ = self[0]
        self._notes += self._source.check(self.indices, self._fit)

    def has(self, names: AbstractSet[str]) -> bool:
        """Whether these are the names of the inputs."""
        return names == {spec.name for spec in self._fit.inputs}

    def refit(self, inputs: Sequence[TensorSpec]) -> Samples:
        """The same samples for a model whose inputs have the same names."""
        return self._with(self.indices, fit=Fit(inputs))

    def subset(self, indices: Sequence[int]) -> Samples:
        """The samples at these positions, in this order."""
        return self._with([self.indices[i] for i in indices])

    def take(self, count: int, seed: int = 0) -> Samples:
        """A draw of ``count`` samples as ``split`` makes it; all of them where there are no more."""
        if count >= len(self):
            return self
        taken, _ = self.split(count, seed)
        taken._notes.append(f"took {count} of {len(self)} samples, drawn at random with seed {seed}")
        return taken

    def split(self, count: int, seed: int) -> tuple[Samples, Samples]:
        """``count`` samples drawn at random and the rest, in their old order; in proportion by label if there are any.

        Raises:
            UsageError: one of the two would be empty.
        """
        total = len(self)
        if not 1 <= count < total:
            raise UsageError(
                f"{total} sample{'s' if total != 1 else ''} of {self.source!r} cannot be split into {count} and a rest",
                hint="Give at least 2 samples." if total < 2 else f"Take 1 to {total - 1} samples.",
            )
        rng = np.random.default_rng(seed)
        labels = self.labels
        drawn = rng.permutation(total)[:count] if labels is None else _in_proportion(labels, count, rng)
        is_first = np.zeros(total, dtype=bool)
        is_first[drawn] = True
        return self.subset(np.flatnonzero(is_first).tolist()), self.subset(np.flatnonzero(~is_first).tolist())

    def _with(self, indices: Sequence[int], *, fit: Fit | None = None) -> Samples:
        return Samples(
            self._source,
            fit or self._fit,
            named=self.source,
            labels=self._labels,
            class_names=self.class_names,
            notes=self._notes,
            indices=indices,
        )


def _in_proportion(labels: Labels, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of ``count`` samples, classes in proportion; the largest remainders get what is left, ties by lot."""
    order = rng.permutation(len(labels))
    _, kinds, sizes = np.unique(labels[order], return_inverse=True, return_counts=True)
    quota, remainder = np.divmod(sizes * count, len(labels))
    by_remainder = np.lexsort((rng.random(len(sizes)), -remainder))
    quota[by_remainder[: count - quota.sum()]] += 1
    by_kind = np.argsort(kinds, kind="stable")
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(len(labels)) - np.repeat(starts, sizes)
    return order[by_kind[rank < np.repeat(quota, sizes)]].astype(np.int64)


def batches(data: Dataset, size: int) -> Iterator[dict[str, Array]]:
    """The samples joined along axis 0, ``size`` together; fewer at the end and where the next has another shape."""
    held: list[Batch] = []
    for sample in data:
        if held and (len(held) == size or not _alike(held[0], sample)):
            yield _joined(held)
            held = []
        held.append(sample)
    if held:
        yield _joined(held)


def _alike(a: Batch, b: Batch) -> bool:
    return all(a[name].shape == b[name].shape for name in a)


def _joined(samples: Sequence[Batch]) -> dict[str, Array]:
    return {
        name: np.concatenate([s[name] for s in samples]) if len(samples) > 1 else samples[0][name]
        for name in samples[0]
    }


def suspicion(samples: Samples, inputs: Sequence[TensorSpec]) -> str | None:
    """A doubt about the range of values, None where there is none: whole numbers of 0..255 in a float input.

    Only a look at eight samples, and only a guess: there are models that want raw pixels.
    """
    some = samples.subset([i * len(samples) // 8 for i in range(8)] if len(samples) > 8 else range(len(samples)))
    floats = [spec.name for spec in inputs if np.dtype(spec.dtype).kind == "f"]
    raw = set(floats)
    high = dict.fromkeys(floats, 0.0)
    for sample in some:
        for name in list(raw):
            values = sample[name]
            high[name] = max(high[name], float(values.max(initial=0)))
            if values.min(initial=0) < 0 or values.max(initial=0) > 255 or (values != np.floor(values)).any():
                raw.discard(name)
    found = [name for name in floats if name in raw and high[name] >= BRIGHT]
    if not found:
        return None
    return (
        f"the values of input {found[0]!r} look like raw pixels 0..255; "
        "if the model expects normalised input give scale in a .toml"
    )
