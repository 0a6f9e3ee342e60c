"""Scales of few-bit groups by least squared error, which a search finds and the plain range does not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qm.numerics.affine import Grid, limits
from qm.types import Array

Floats = NDArray[np.float32]

SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of a group's range that are tried. More of them, or lower ones, gain less than 0.1 dB."""

_BLOCK = 1 << 21


def group_grid(w: Array, *, bits: int, group: int, axis: int) -> Grid:
    """The unsigned grid of each group of ``group`` values along ``axis`` with the least squared error.

    Some shares of the group's range are tried, then the neighbours of the zero point with the best share. Each time the
    scale is replaced by the one that is best for the integers it gave.
    Source: least squares of ``w - s (q - z)`` over s at fixed q and z: ``s = sum(w (q - z)) / sum((q - z)**2)``.
    """
    moved = np.moveaxis(np.asarray(w, np.float32), axis, -1)
    count = -(-moved.shape[-1] // group)
    padded = np.zeros((*moved.shape[:-1], count * group), np.float32)
    padded[..., : moved.shape[-1]] = moved  # Zeros cost nothing: every grid holds zero exactly.
    rows = padded.reshape(-1, group)
    scale, zero = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    step = max(1, _BLOCK // group)
    for i in range(0, len(rows), step):
        scale[i : i + step], zero[i : i + step] = _best(rows[i : i + step], limits(bits, signed=False)[1])
    shape = (*moved.shape[:-1], count)
    return Grid(
        scale=np.ascontiguousarray(np.moveaxis(scale.reshape(shape), -1, axis)),
        zero_point=np.ascontiguousarray(np.moveaxis(zero.reshape(shape), -1, axis).astype(np.int32)),
        bits=bits,
        signed=False,
        axis=axis,
        group=group,
    )


def _best(rows: Floats, top: int) -> tuple[Floats, Floats]:
    """Scale and zero point of each row."""
    low, high = rows.min(axis=1, initial=0), rows.max(axis=1, initial=0)
    width = (high - low) / np.float32(top)
    width[width < np.finfo(np.float32).tiny * top] = 1
    middle = np.rint(-low / width)
    scale, zero, start = width.copy(), np.clip(middle, 0, top), width.copy()
    least = np.full(len(rows), np.inf, np.float32)

    def attempt(from_scale: Floats, shift: int) -> None:
        z = np.clip(middle + shift, 0, top)
        s, error = _refined(rows, from_scale, z, top)
        better = error < least
        for kept, new in ((least, error), (scale, s), (zero, z), (start, from_scale)):
            kept[better] = new[better]

    for share in SHARES:
        attempt(width * np.float32(share), 0)
    for shift in (-1, 1):
        attempt(start.copy(), shift)
    return scale, zero


def _refined(rows: Floats, scale: Floats, zero: Floats, top: int) -> tuple[Floats, Floats]:
    """The best scale for the integers that ``scale`` and ``zero`` give, and its squared error with new integers."""
    steps = np.clip(np.rint(rows / scale[:, None]), -zero[:, None], top - zero[:, None])
    square = np.einsum("ij,ij->i", steps, steps)
    best = np.divide(np.einsum("ij,ij->i", rows, steps), square, out=scale.copy(), where=square > 0)
    best = np.where(best > 0, best, scale).astype(np.float32)
    steps = np.clip(np.rint(rows / best[:, None]), -zero[:, None], top - zero[:, None])
    off = rows - steps * best[:, None]
    return best, np.einsum("ij,ij->i", off, off)
