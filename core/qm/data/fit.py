"""Brings samples to the shape and dtype that a model wants, or says why that cannot be done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np

from qm.errors import Unsupported, UsageError
from qm.types import Array, TensorSpec

Shape = tuple[int, ...]
Wanted = tuple[int | None, ...]

ALIEN = {
    "O": "Python objects",
    "U": "strings",
    "S": "byte strings",
    "c": "complex numbers",
    "M": "dates",
    "m": "time differences",
    "V": "records",
}


def text(shape: Sequence[int | None]) -> str:
    """The shape as the user reads it: ``[?, 3, 224, 224]``."""
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"


def matches(shape: Shape, wanted: Wanted) -> bool:
    """Whether a tensor of the shape goes where ``wanted`` is expected, any length being good for None."""
    return len(shape) == len(wanted) and all(w is None or w == n for n, w in zip(shape, wanted, strict=True))


def refuse_alien(dtype: np.dtype[np.generic], subject: str) -> None:
    """Raise UsageError where the dtype is none of numbers and booleans."""
    if dtype.kind not in "biuf":
        raise UsageError(
            f"{subject} holds {ALIEN.get(dtype.kind, 'no numbers')} (dtype {dtype.name!r}), not numbers",
            hint="Save it as an array of integers or floats; object arrays and pickles are never loaded.",
        )


class Fit:
    """Makes a sample ready to feed: each input in the model's shape with a batch of 1, and in the model's dtype.

    ``notes`` says what had to be done.
    """

    def __init__(self, inputs: Sequence[TensorSpec]) -> None:
        if not inputs:
            raise UsageError("the model has no inputs, so no data can be fed to it", hint="Leave the data out.")
        self.inputs = tuple(inputs)
        self.notes: list[str] = []
        self._dtypes = {spec.name: _dtype(spec) for spec in inputs}
        self._shapes: dict[tuple[str, Shape], Shape] = {}

    def __call__(
        self, row: Mapping[str, Array], index: int, subjects: Mapping[str, str], *, batched: bool
    ) -> dict[str, Array]:
        """The sample number ``index``, whose arrays an error calls by ``subjects``.

        ``batched`` says that the arrays surely have a batch axis, as the rows of a larger array do.

        Raises:
            UsageError: a wrong shape or dtype, a value that the dtype cannot hold, NaN or infinity.
            Unsupported: the model takes a fixed batch of more than one.
        """
        return {
            spec.name: self._one(spec, row[spec.name], index, subjects[spec.name], batched=batched)
            for spec in self.inputs
        }

    def _one(self, spec: TensorSpec, row: Array, index: int, subject: str, *, batched: bool) -> Array:
        refuse_alien(row.dtype, subject)
        key = (spec.name, row.shape)
        if key not in self._shapes:
            self._shapes[key] = self._shape(spec, row.shape, index, subject, batched=batched)
        fitted = _cast(row, self._dtypes[spec.name], spec, index, subject).reshape(self._shapes[key])
        if row.dtype != fitted.dtype:
            self._say(spec, f"cast {row.dtype.name} to {fitted.dtype.name}")
        refuse_infinite(fitted, subject, index, source=row)
        return fitted

    def _shape(self, spec: TensorSpec, shape: Shape, index: int, subject: str, *, batched: bool) -> Shape:
        for candidate, note in _candidates(shape, spec.shape):
            if _feeds(candidate, spec.shape):
                if note:
                    self._say(spec, note)
                return candidate
        if spec.shape and spec.shape[0] not in (None, 1):
            refuse_fixed_batch(spec, shape)
        has_batch_axis = batched or (len(shape) == len(spec.shape) and shape[:1] == (1,))
        came = shape[1:] if has_batch_axis else shape
        raise UsageError(
            f"input {spec.name!r} expects {spec.dtype} {text(spec.shape)}, but {subject} has samples of shape "
            f"{text(came)} (sample {index})",
            hint=_guess(came, spec.shape),
        )

    def _say(self, spec: TensorSpec, note: str) -> None:
        line = note if len(self.inputs) == 1 else f"input {spec.name!r}: {note}"
        if line not in self.notes:
            self.notes.append(line)


def _dtype(spec: TensorSpec) -> np.dtype[np.generic]:
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biuf":
        raise Unsupported(
            f"input {spec.name!r} is of type {spec.dtype!r}, which cannot be fed from a data set",
            hint="Export the model with a numeric input.",
        )
    return dtype


def _feeds(shape: Shape, wanted: Wanted) -> bool:
    free_batch = bool(wanted) and wanted[0] is None
    return matches(shape, (1, *wanted[1:]) if free_batch else wanted)


def _candidates(shape: Shape, wanted: Wanted) -> Iterator[tuple[Shape, str]]:
    """Shapes that hold the same values in the same order, the likeliest first, each with what was done."""
    yield shape, ""
    if shape[:1] == (1,):
        yield shape[1:], ""
    for axis in {len(wanted) - 1, 1}:
        if len(wanted) > 1 and wanted[axis] == 1:
            if shape[:1] == (1,):
                yield (*shape[:axis], 1, *shape[axis:]), "added the channel axis"
            batched = (1, *shape)
            yield (*batched[:axis], 1, *batched[axis:]), "added the batch axis and the channel axis"
    yield (1, *shape), "added the batch axis"
    if len(wanted) == 2 and len(shape) > 1 and prod(shape) == wanted[1]:
        yield (1, prod(shape)), f"flattened {text(shape[1:] if shape[0] == 1 else shape)} to {text([prod(shape)])}"


def refuse_fixed_batch(spec: TensorSpec, shape: Shape) -> None:
    """Raise Unsupported where only the model's fixed batch of more than one keeps the samples from fitting."""
    free = (None, *spec.shape[1:])
    if any(_feeds(candidate, free) for candidate, _ in _candidates(shape, free)):
        raise Unsupported(
            f"input {spec.name!r} takes a fixed batch of {spec.shape[0]}, {text(spec.shape)}",
            hint="Export the model with a batch of 1 or of any length.",
        )


def _guess(shape: Shape, wanted: Wanted) -> str:
    """The likely cause of a mismatch and its remedy; ``shape`` is that of a sample without a batch axis."""
    tail = wanted[1:]
    if len(shape) == len(wanted) and shape[0] != 1 and matches(shape[1:], tail):
        return f"Give one sample at a time: {shape[0]} come together here."
    if len(shape) == 3 and matches((shape[2], *shape[:2]), tail):
        return 'The samples look like NHWC where the model wants NCHW. Describe them in a .toml with layout = "NHWC".'
    if len(shape) == 3 and matches((*shape[1:], shape[0]), tail):
        return 'The samples look like NCHW where the model wants NHWC. Describe them in a .toml with layout = "NCHW".'
    fixed = [n for n in tail if n is not None]
    if len(fixed) == len(tail) and prod(fixed) == prod(shape):
        return f"The number of values is right. Reshape the samples to {text(fixed)} and save them again."
    if len(shape) == len(tail):
        sizes = enumerate(zip(shape, tail, strict=True), 1)
        wrong = [f"axis {axis}: {n} where {w} is expected" for axis, (n, w) in sizes if w is not None and n != w]
        return f"Resize the samples, or take other ones ({'; '.join(wrong)})."
    return f"Give samples of {len(tail)} axes, {text(tail)}; these have {len(shape)}."


def _cast(row: Array, dtype: np.dtype[np.generic], spec: TensorSpec, index: int, subject: str) -> Array:
    if dtype.kind == "f" or row.dtype.kind == "b":
        with np.errstate(over="ignore"):
            return row.astype(dtype, order="C")
    if row.dtype.kind == "f":
        raise UsageError(
            f"input {spec.name!r} expects {dtype.name}, but {subject} is {row.dtype.name}",
            hint=f'Save it as {dtype.name}, or describe it in a .toml with dtype = "{dtype.name}".',
        )
    low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype.name).min), int(np.iinfo(dtype.name).max))
    if row.size and not np.can_cast(row.dtype, dtype) and (row.min() < low or row.max() > high):
        value = row.min() if row.min() < low else row.max()
        raise UsageError(
            f"input {spec.name!r} expects {dtype.name}, but {subject} holds {value} in sample {index}",
            hint=f"Give values in {low}..{high}.",
        )
    return row.astype(dtype, order="C")


def refuse_infinite(values: Array, subject: str, index: int, *, source: Array | None = None) -> None:
    """Raise UsageError where the sample holds NaN or infinity; ``source`` is what it was before a cast."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    if source is not None and np.isfinite(source).all():
        raise UsageError(
            f"{subject} holds {np.abs(source).max():g} in sample {index}, too large for {values.dtype.name}",
            hint="Scale the values down.",
        )
    kind = "NaN" if np.isnan(values).any() else "infinity"
    raise UsageError(f"{subject} holds {kind} in sample {index}", hint="Remove such samples or repair the values.")
