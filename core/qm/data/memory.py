"""Data sets that are Python objects: arrays, dicts, tuples, lists of samples, iterables, other data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from qm.data import label
from qm.data.choice import choose
from qm.data.fit import Fit, matches
from qm.data.label import Labels
from qm.data.source import Arrays, Listed, Row, Rows, Source, Streamed, guarded
from qm.errors import UsageError
from qm.types import Array, Dataset, TensorSpec


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A source with what came along."""

    source: Source
    labels: Labels | None = None
    class_names: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)


def as_array(value: object, subject: str) -> Array:
    """The value as an array.

    Raises:
        UsageError: it cannot be one.
    """
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as e:
        raise UsageError(
            f"{subject} cannot be an array: {str(e).splitlines()[0]}", hint="Give NumPy arrays of one shape."
        ) from e


def labels_of(value: object) -> object:
    """What the object carries as ``labels``, a method of that name aside."""
    labels: object = getattr(value, "labels", None)
    return None if callable(labels) else labels


def from_arrays(
    arrays: Mapping[str, Rows], inputs: Sequence[TensorSpec], subjects: Mapping[str, str], notes: list[str]
) -> Arrays:
    """Arrays by input name as a source; one that is a single sample gets its batch axis."""
    whole: dict[str, Rows] = {}
    for spec in inputs:
        array = arrays[spec.name]
        if array.shape and len(array.shape) == len(spec.shape) - 1 and matches(array.shape, spec.shape[1:]):
            array = (array if isinstance(array, np.ndarray) else array[:])[None]
            notes.append(f"took {subjects[spec.name]} as one sample and added the batch axis")
        whole[spec.name] = array
    return Arrays(whole, subjects)


def open_object(
    value: Any,
    inputs: Sequence[TensorSpec],
    fit: Fit,
    where: str,
    *,
    limit: int | None = None,
    again: Callable[[], Iterable[object]] | None = None,
) -> Opened:
    """The source that a Python object is; ``again`` makes it anew where it is an iterator.

    Raises:
        UsageError: it is no data set, or its arrays are not what the model wants.
    """
    if isinstance(value, Mapping):
        return _open_mapping(value, inputs, where)
    if isinstance(value, tuple):
        return _open_tuple(value, inputs, where)
    if hasattr(value, "__array__"):
        return _open_tuple((value,), inputs, where)
    labels = labels_of(value)
    if isinstance(value, list):
        return _open_list(value, inputs, where, labels=labels)
    if isinstance(value, Iterator) and again is None:
        kept = list(islice(guarded(value, where), limit))
        opened = _open_list(kept, inputs, where, labels=labels, limit=limit)
        opened.notes.append(f"kept the {len(kept)} samples of a one-shot iterator in memory")
        return opened
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        count = len(value) if isinstance(value, Dataset) else None
        return _open_stream(again or (lambda: value), inputs, fit, where, labels=labels, limit=limit, count=count)
    raise UsageError(
        f"{where} is {type(value).__name__!r}, which is no data set",
        hint="Give an array, a dict of arrays, a tuple (x, y), or an iterable of samples.",
    )


def _subject(name: str, where: str) -> str:
    return f"array {name!r} of {where}"


def _open_mapping(value: Mapping[str, object], inputs: Sequence[TensorSpec], where: str) -> Opened:
    value = {str(name): array for name, array in value.items()}
    choice = choose(list(value), inputs, where)
    subjects = {name: _subject(array, where) for name, array in choice.inputs.items()}
    arrays: dict[str, Rows] = {name: as_array(value[array], subjects[name]) for name, array in choice.inputs.items()}
    notes = list(choice.notes)
    source = from_arrays(arrays, inputs, subjects, notes)
    labels = None
    if choice.labels:
        subject = _subject(choice.labels, where)
        labels = label.from_array(as_array(value[choice.labels], subject), len(source), subject, notes)
    return Opened(source=source, labels=labels, notes=notes)


def _open_tuple(value: tuple[object, ...], inputs: Sequence[TensorSpec], where: str) -> Opened:
    if len(value) not in (len(inputs), len(inputs) + 1):
        names = ", ".join(spec.name for spec in inputs)
        raise UsageError(
            f"{where} has {len(value)} array{'s' if len(value) != 1 else ''} for a model of {len(inputs)} "
            f"input{'s' if len(inputs) != 1 else ''}",
            hint=f"Give ({names}), with the labels last if there are any.",
        )
    subjects = {spec.name: where if len(value) == 1 else f"array {i} of {where}" for i, spec in enumerate(inputs)}
    arrays = {s.name: as_array(array, subjects[s.name]) for s, array in zip(inputs, value, strict=False)}
    notes: list[str] = []
    source = from_arrays(arrays, inputs, subjects, notes)
    labels = None
    if len(value) > len(inputs):
        subject = f"the last array of {where}"
        labels = label.from_array(as_array(value[-1], subject), len(source), subject, notes)
    return Opened(source=source, labels=labels, notes=notes)


def _open_list(
    items: Sequence[object],
    inputs: Sequence[TensorSpec],
    where: str,
    *,
    labels: object,
    limit: int | None = None,
) -> Opened:
    read = _Reader(inputs, where)
    rows = [read(item, index) for index, item in enumerate(items)]
    notes = list(read.notes)
    found = read.labels(labels, len(rows), limit, notes)
    return Opened(source=Listed(rows, read.subjects), labels=found, notes=notes)


def _open_stream(
    again: Callable[[], Iterable[object]],
    inputs: Sequence[TensorSpec],
    fit: Fit,
    where: str,
    *,
    labels: object,
    limit: int | None = None,
    count: int | None = None,
) -> Opened:
    """Without a length, one pass counts the samples and fits each; with one, only the first is looked at, later."""
    read = _Reader(inputs, where)
    if count is None:
        count = 0
        for row in _rows(again, read, where, limit):
            fit(row, count, read.subjects, batched=False)
            count += 1
    if count and next(_rows(again, read, where, 1), None) is None:
        raise UsageError(
            f"{where} gave {count} samples the first time and none the second",
            hint="Return a new iterator at each call.",
        )
    notes = list(read.notes)
    if count == limit:
        notes.append(f"took the first {count} samples")
    found = read.labels(labels, count, limit, notes)
    source = Streamed(lambda: _rows(again, _Reader(inputs, where), where, count), count, where, read.subjects)
    return Opened(source=source, labels=found, notes=notes)


def _rows(again: Callable[[], Iterable[object]], read: _Reader, where: str, limit: int | None) -> Iterator[Row]:
    for index, item in enumerate(islice(guarded(again(), where), limit)):
        yield read(item, index)


class _Reader:
    """Reads samples as users write them: a dict by input name, a tuple in the inputs' order with the label last, an
    array where the model has one input."""

    def __init__(self, inputs: Sequence[TensorSpec], where: str) -> None:
        self.inputs = inputs
        self.where = where
        self.notes: list[str] = []
        self.subjects = {spec.name: where for spec in inputs}
        self._labels: list[Array] = []

    def __call__(self, item: object, index: int) -> Row:
        subject = f"sample {index} of {self.where}"
        if isinstance(item, Mapping):
            item = {str(name): array for name, array in item.items()}
            choice = choose(list(item), self.inputs, subject)
            self.notes += [note for note in choice.notes if note not in self.notes]
            parts = {name: item[array] for name, array in choice.inputs.items()}
            if choice.labels:
                self._labels.append(as_array(item[choice.labels], subject))
        elif isinstance(item, tuple) or (isinstance(item, list) and len(self.inputs) > 1):
            if len(item) not in (len(self.inputs), len(self.inputs) + 1):
                raise UsageError(
                    f"{subject} has {len(item)} parts for a model of {len(self.inputs)} inputs",
                    hint="Give one array for each input, and the label last if there is one.",
                )
            parts = {spec.name: part for spec, part in zip(self.inputs, item, strict=False)}
            if len(item) > len(self.inputs):
                self._labels.append(as_array(item[-1], subject))
        elif len(self.inputs) > 1:
            names = ", ".join(spec.name for spec in self.inputs)
            raise UsageError(f"{subject} is one array, but the model has the inputs {names}", hint="Give dicts.")
        else:
            parts = {self.inputs[0].name: item}
        return {name: as_array(part, subject) for name, part in parts.items()}

    def labels(self, given: object, count: int, limit: int | None, notes: list[str]) -> Labels | None:
        """The labels: given with the set, of which ``limit`` may have left out the last, or met in the samples."""
        if given is not None:
            subject = f"labels of {self.where}"
            array = as_array(given, subject)
            return label.from_array(array[:count] if count == limit else array, count, subject, notes)
        if not self._labels:
            return None
        subject = f"the samples of {self.where}"
        flat = [array.reshape(-1) if array.size > 1 else array.reshape(()) for array in self._labels]
        return label.from_array(as_array(flat, subject), count, subject, notes)
