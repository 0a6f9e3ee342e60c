"""Integer grids: which float a stored integer stands for, per tensor, channel or group."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qm.errors import UsageError
from qm.types import Array

Floats = NDArray[np.float32]

_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)


def limits(bits: int, *, signed: bool = True, narrow: bool = False) -> tuple[int, int]:
    """The smallest and largest integer; ``narrow`` leaves out the smallest, so that signed limits are symmetric.

    Raises:
        ValueError: ``bits`` is not within 2..16.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"a grid has 2 to 16 bits, not {bits}")
    low = -(1 << (bits - 1)) if signed else 0
    return low + narrow, low + (1 << bits) - 1


def storage(bits: int, *, signed: bool = True) -> np.dtype[np.integer]:
    """The smallest NumPy integer type that holds the grid; int4 takes a byte until it is packed."""
    return np.dtype(f"{'int' if signed else 'uint'}{8 if bits <= 8 else 16}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """The floats ``(q - zero_point) * scale``.

    ``scale`` and ``zero_point`` are 0-d for a tensor, 1-d along ``axis`` for channels, and for groups of ``group``
    values along ``axis`` as the tensor itself, with ``ceil(n / group)`` in place of ``n``: the shapes of ONNX.
    """

    scale: Floats
    zero_point: NDArray[np.int32] = field(default_factory=lambda: np.zeros((), np.int32))
    bits: int = 8
    signed: bool = True
    narrow: bool = False
    axis: int | None = None
    group: int = 0

    @cached_property
    def limits(self) -> tuple[int, int]:
        """The smallest and largest integer in use."""
        return limits(self.bits, signed=self.signed, narrow=self.narrow)

    @property
    def dtype(self) -> np.dtype[np.integer]:
        """How the integers are held in memory."""
        return storage(self.bits, signed=self.signed)

    def spread(self, values: Array, shape: tuple[int, ...]) -> Array:
        """Scales or zero points, in a form that broadcasts against a tensor of ``shape``."""
        if values.ndim == 0 or self.axis is None:
            return values
        if self.group:
            along = self.axis % len(shape)
            repeated: Array = np.repeat(values, self.group, axis=along)
            return repeated[(*(slice(None),) * along, slice(shape[along]))]
        return values.reshape([-1 if i == self.axis % len(shape) else 1 for i in range(len(shape))])


def extremes(x: Array, *, axis: int | None = None, group: int = 0) -> tuple[Array, Array]:
    """The smallest and largest value of each tensor, channel or group, zero always among them; shapes as in Grid."""
    if axis is None:
        return np.asarray(x.min(initial=0)), np.asarray(x.max(initial=0))
    if not group:
        others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
        return x.min(axis=others, initial=0), x.max(axis=others, initial=0)
    starts = np.arange(0, x.shape[axis], group)
    low, high = (f.reduceat(x, starts, axis=axis) for f in (np.minimum, np.maximum))
    return np.minimum(low, 0), np.maximum(high, 0)


def grid_for_range(
    low: ArrayLike,
    high: ArrayLike,
    *,
    bits: int = 8,
    symmetric: bool = False,
    signed: bool = False,
    narrow: bool = False,
    axis: int | None = None,
    group: int = 0,
) -> Grid:
    """The finest grid that covers ``low`` to ``high`` and holds zero exactly.

    A symmetric grid keeps its zero point at the middle integer, 0 or 128. A range of nothing but zero gets scale 1; a
    scale is never denormal, and never so large that a stored integer would stand for infinity.
    Source: Jacob et al., "Quantization and training of neural networks", 2018, section 2.1 and equation 13.

    Raises:
        UsageError: an end is NaN or infinite.
    """
    low, high = np.minimum(np.asarray(low, np.float64), 0), np.maximum(np.asarray(high, np.float64), 0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UsageError(
            f"a range from {low.min()} to {high.max()} cannot be quantized",
            hint="Look for NaN or infinity in the model's weights and in the calibration data.",
        )
    smallest, largest = limits(bits, signed=signed, narrow=narrow)
    if symmetric:
        middle = (smallest + largest + 1) // 2
        scale = _stored(np.maximum(-low, high) / (largest - middle))
        zero = np.full(scale.shape, middle, np.int32)
    else:
        scale = _stored((high - low) / (largest - smallest))
        zero = np.clip(np.rint(smallest - low / scale), smallest, largest).astype(np.int32)
    reach = np.maximum(zero - smallest, largest - zero)
    scale = np.minimum(scale, np.nextafter((_LARGEST / reach).astype(np.float32), np.float32(0)))
    return Grid(scale=scale, zero_point=zero, bits=bits, signed=signed, narrow=narrow, axis=axis, group=group)


def grid_for(
    x: Array,
    *,
    bits: int = 8,
    symmetric: bool = True,
    signed: bool = True,
    narrow: bool | None = None,
    axis: int | None = None,
    group: int = 0,
) -> Grid:
    """The finest grid that covers every value of ``x``; a symmetric one is narrow unless told otherwise."""
    low, high = extremes(x, axis=axis, group=group)
    use_narrow = symmetric if narrow is None else narrow
    return grid_for_range(
        low, high, bits=bits, symmetric=symmetric, signed=signed, narrow=use_narrow, axis=axis, group=group
    )


def quantize(x: Array, grid: Grid) -> Array:
    """The nearest integers of the grid, halves to even, in float32 arithmetic as QuantizeLinear does it.

    Source: ONNX operator specification, QuantizeLinear.

    Raises:
        UsageError: ``x`` holds NaN.
    """
    with np.errstate(over="ignore"):  # a value far outside the grid becomes infinite, and is clipped
        steps = np.asarray(np.asarray(x, np.float32) / grid.spread(grid.scale, x.shape))
    np.rint(steps, out=steps)
    if np.isnan(steps.max(initial=0)):
        raise UsageError("a tensor with NaN cannot be quantized", hint="Look for NaN in the model's weights.")
    if grid.zero_point.any():
        steps += grid.spread(grid.zero_point.astype(np.float32), x.shape)
    smallest, largest = grid.limits
    np.clip(steps, np.float32(smallest), np.float32(largest), out=steps)
    q: Array = steps.astype(grid.dtype)
    return q


def dequantize(q: Array, grid: Grid) -> Floats:
    """The floats that the integers stand for."""
    steps = q.astype(np.int32) - grid.spread(grid.zero_point, q.shape)
    floats: Floats = steps.astype(np.float32) * grid.spread(grid.scale, q.shape)
    return floats


def fake_quantize(x: Array, grid: Grid) -> Floats:
    """The nearest floats that the grid can hold."""
    return dequantize(quantize(x, grid), grid)


def _stored(step: NDArray[np.float64]) -> Floats:
    """Step sizes as they will be stored, in float32."""
    scale: Floats = np.where(step > 0, np.maximum(step, _SMALLEST), 1.0).astype(np.float32)
    return scale
