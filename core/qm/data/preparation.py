"""What a description does to the values of an input: type, layout, channel order, scale, mean and deviation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qm.data.image import Layout
from qm.errors import UsageError
from qm.types import Array

_CHANNEL_AXIS = {"NHWC": -1, "NCHW": -3}


@dataclass(frozen=True)
class Preparation:
    """``(value * scale - mean) / std``, after a change of type and of layout.

    ``layout`` is how the samples come, ``wanted`` how the model takes them; ``mean`` and ``std`` have one value, or one
    a channel in the order that the model takes.
    """

    dtype: str | None = None
    layout: Layout | None = None
    wanted: Layout | None = None
    swap: bool = False
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def is_arithmetic(self) -> bool:
        """Whether values change, so that integers become floats."""
        return (self.scale, self.mean, self.std) != (1.0, (0.0,), (1.0,))

    @property
    def notes(self) -> list[str]:
        """What is done, one line for each step."""
        lines = [f"converted to {self.dtype}"] if self.dtype else []
        if self.layout != self.wanted and self.layout and self.wanted:
            lines.append(f"transposed {self.layout} to {self.wanted}")
        if self.swap:
            lines.append("swapped RGB to BGR")
        if self.is_arithmetic:
            lines.append(f"computed (value * {self.scale:g} - {_text(self.mean)}) / {_text(self.std)}")
        return lines

    def __call__(self, sample: Array) -> Array:
        if self.dtype:
            sample = _converted(sample, np.dtype(self.dtype))
        if self.layout and self.wanted and self.layout != self.wanted:
            self._refuse_few_axes(sample)
            came, goes = _CHANNEL_AXIS[self.layout], _CHANNEL_AXIS[self.wanted]
            sample = np.moveaxis(sample, came, goes)
        if self.swap:
            self._refuse_channels(sample, 3, "channel_order")
            sample = np.flip(sample, self._axis)
        return self._scaled(sample) if self.is_arithmetic else sample

    @property
    def _axis(self) -> int:
        return _CHANNEL_AXIS[self.wanted or "NHWC"]

    def _scaled(self, sample: Array) -> Array:
        values: Array = sample.astype(np.float64 if sample.dtype == np.float64 else np.float32)
        scale = np.array(self.scale, dtype=values.dtype)
        prepared: Array = (values * scale - self._spread("mean", values)) / self._spread("std", values)
        return prepared

    def _spread(self, name: str, values: Array) -> Array:
        """The constant, in a shape that multiplies along the channels."""
        constant = np.array(getattr(self, name), dtype=values.dtype)
        if constant.size == 1:
            return constant
        self._refuse_channels(values, constant.size, name)
        return constant.reshape((-1,) + (1,) * (-1 - self._axis))

    def _refuse_few_axes(self, sample: Array) -> None:
        if sample.ndim < 3:
            raise UsageError(
                f"layout = {self.layout!r} needs samples of 3 axes, but they have shape {list(sample.shape[1:])}",
                hint="Remove layout.",
            )

    def _refuse_channels(self, sample: Array, count: int, name: str) -> None:
        found = sample.shape[self._axis] if sample.ndim >= -self._axis else 0
        if found != count:
            raise UsageError(
                f"{name} is for {count} channels, but the samples have {found}",
                hint=f"Correct {name}, or say the layout.",
            )


def _converted(sample: Array, dtype: np.dtype[np.generic]) -> Array:
    """The sample in another type: fractions are cut off, as was asked for by setting it, but nothing wraps around."""
    if dtype.kind in "iu" and sample.size:
        limits = np.iinfo(dtype.name)
        low, high = sample.min(), sample.max()
        if not (limits.min <= low and high <= limits.max):
            raise UsageError(
                f"dtype = {dtype.name!r} cannot hold the values {low:g}..{high:g} of the data",
                hint="Choose another dtype, or repair the values.",
            )
    return sample.astype(dtype)


def _text(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else "[" + ", ".join(f"{value:g}" for value in values) + "]"
