"""Scales of few-bit groups by least squared error, which a search finds and the plain range does not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qm.numerics.affine import Grid, limits
from qm.numerics.piece import pieces
from qm.types import Array

Floats = NDArray[np.float32]

SHARES = (1.0, 0.92, 0.84, 0.76)
"""Shares of a group's range that are tried. More of them, or lower ones, gain 0.01 dB."""

TILE = 1 << 18
"""Values that are searched at a time: with as many integers they stay near the processor."""

_TINY = np.finfo(np.float32).tiny


def group_grid(w: Array, *, bits: int, group: int, axis: int) -> Grid:
    """The unsigned grid of each group of ``group`` values along ``axis`` with the least squared error.

    Some shares of the group's range are tried, then the neighbours of the zero point with the best share, then the best
    scale once more. Each time the scale is replaced by the one that is best for the integers it gave. A group's grid
    follows from its own values, so that a tensor can be searched in pieces of whole groups; only sums over a single
    column may round otherwise than those over many.
    Source: least squares of ``w - s (q - z)`` over s at fixed q and z: ``s = sum(w (q - z)) / sum((q - z)**2)``, which
    takes ``s sum(w (q - z))`` off the squared error.
    """
    axis %= w.ndim
    length, top = w.shape[axis], limits(bits, signed=False)[1]
    count = -(-length // group)
    before, after = w.shape[:axis], w.shape[axis + 1 :]
    lead, trail = int(np.prod(before)), int(np.prod(after))
    values = np.asarray(w, np.float32).reshape(lead, length, trail)
    if short := count * group - length:
        # Zeros cost nothing: every grid holds zero exactly.
        values = np.concatenate([values, np.zeros((lead, short, trail), np.float32)], axis=1)
    groups = values.reshape(lead, count, group, trail).transpose(2, 0, 1, 3)
    scale, zero = np.empty((lead, count, trail), np.float32), np.empty((lead, count, trail), np.int32)
    for place in pieces(scale.shape, TILE // group):
        tile = np.ascontiguousarray(groups[(slice(None), *place)])
        found_scale, found_zero = _best(tile.reshape(group, -1), top)
        scale[place], zero[place] = found_scale.reshape(tile.shape[1:]), found_zero.reshape(tile.shape[1:])
    shape = (*before, count, *after)
    return Grid(
        scale=scale.reshape(shape), zero_point=zero.reshape(shape), bits=bits, signed=False, axis=axis, group=group
    )


def _best(x: Floats, top: int) -> tuple[Floats, Floats]:
    """Scale and zero point of each column of ``x`` ``(group, columns)``."""
    low, high = x.min(axis=0, initial=0), x.max(axis=0, initial=0)
    width = (high - low) / np.float32(top)
    width[width < _TINY * top] = 1
    middle = np.clip(np.rint(-low / width), 0, top)
    scale, zero, start = width.copy(), middle.copy(), width.copy()
    gain = np.zeros_like(width)
    steps, product, square, tried = np.empty_like(x), *(np.empty_like(width) for _ in range(3))

    def attempt(from_scale: Floats, z: Floats) -> None:
        _round(x, from_scale, -z, top - z, out=steps)
        np.einsum("ij,ij->j", x, steps, out=product)
        np.einsum("ij,ij->j", steps, steps, out=square)
        np.maximum(square, 1, out=square)  # All integers are zero where the sum is, and so is the product.
        s = product / square
        with np.errstate(over="ignore"):  # Squares that are too large for float32 win nothing.
            np.multiply(product, s, out=tried)
        better = (tried > gain) & (s > 0) & (tried < np.inf)
        for kept, new in ((gain, tried), (scale, s), (zero, z), (start, from_scale)):
            np.copyto(kept, new, where=better)

    for share in SHARES:
        attempt(width * np.float32(share), middle)
    for shift in (-1, 1):
        attempt(start.copy(), np.clip(middle + shift, 0, top))
    attempt(scale.copy(), zero.copy())
    return scale, zero


def _round(x: Floats, scale: Floats, low: Floats, high: Floats, *, out: Floats) -> None:
    """The nearest whole number of steps, from ``low`` to ``high``."""
    np.multiply(x, 1 / scale, out=out)
    np.rint(out, out=out)
    np.maximum(out, low, out=out)
    np.minimum(out, high, out=out)
