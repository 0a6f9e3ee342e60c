"""Labels: class indices, one a sample, from arrays or from words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qm.errors import UsageError
from qm.types import Array

Labels = NDArray[np.int64]

_HINT = "Save the labels as class indices: integers, one a sample."


def from_array(array: Array, count: int, subject: str, notes: list[str]) -> Labels:
    """The class indices that an array holds, as integers or one-hot.

    Raises:
        UsageError: their number is not ``count``, or they are no class indices.
    """
    if array.ndim == 0 or len(array) != count:
        length = len(array) if array.ndim else 1
        raise UsageError(
            f"{subject} holds {length} label{'s' if length != 1 else ''} for {count} sample{'s' if count != 1 else ''}",
            hint="Give one label for each sample, or leave the labels out.",
        )
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{subject} holds labels of dtype {array.dtype.name!r}, not integers", hint=_HINT)
    if array.ndim > 1 and array.size == count:
        array = array.reshape(count)
    if array.ndim == 2:
        return _from_one_hot(array, subject, notes)
    if array.ndim != 1:
        raise UsageError(f"{subject} holds labels of shape {list(array.shape)}, not one a sample", hint=_HINT)
    wrong = np.flatnonzero(array != np.floor(array)) if array.dtype.kind == "f" else np.flatnonzero(array < 0)
    if array.dtype.kind == "f" and not wrong.size:
        wrong = np.flatnonzero(~np.isfinite(array) | (array < 0))
    if wrong.size:
        value = array[wrong[0]]
        raise UsageError(f"{subject} holds {value} as the label of sample {wrong[0]}, no class index", hint=_HINT)
    if array.dtype.kind == "f":
        notes.append(f"took labels from {array.dtype.name} to integers")
    labels: Labels = array.astype(np.int64)
    return labels


def _from_one_hot(array: Array, subject: str, notes: list[str]) -> Labels:
    is_one_hot = np.isin(array, (0, 1)).all(axis=1) & (array.astype(np.float64).sum(axis=1) == 1)
    if not is_one_hot.all():
        raise UsageError(
            f"{subject} holds labels of shape {list(array.shape)} that are not one-hot (sample "
            f"{int(np.flatnonzero(~is_one_hot)[0])})",
            hint=_HINT,
        )
    notes.append(f"took one-hot labels of {array.shape[1]} classes to class indices")
    labels: Labels = array.argmax(axis=1).astype(np.int64)
    return labels


def from_words(
    words: Sequence[str], subject: str, classes: Sequence[str] | None = None
) -> tuple[Labels, tuple[str, ...] | None]:
    """Class indices, and the classes' names where the words are names.

    Words that are all numbers are the indices; else the index is the place in ``classes``, or among the words sorted.

    Raises:
        UsageError: a word is not among ``classes``.
    """
    if classes is None and all(word.isdecimal() for word in words):
        return np.array([int(word) for word in words], dtype=np.int64), None
    names = tuple(classes) if classes is not None else tuple(sorted(set(words)))
    place = {name: index for index, name in enumerate(names)}
    for word in words:
        if word not in place:
            near = difflib.get_close_matches(word, names, 1)
            guess = f"Did you mean {near[0]!r}? " if near else ""
            raise UsageError(
                f"{subject} has the label {word!r}, which is not among the {len(names)} classes",
                hint=f"{guess}Add it to classes.",
            )
    return np.array([place[word] for word in words], dtype=np.int64), names
