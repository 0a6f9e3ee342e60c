"""Matrices that need not fit into memory, in integers piece by piece: the same ones as in one go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qm.numerics.affine import Grid, extremes, grid_for_range, quantize
from qm.numerics.group import group_grid
from qm.numerics.pack import pack_int4
from qm.numerics.piece import pieces

Array = NDArray[Any]

PIECE = 1 << 18
"""Values that are turned into integers at a time."""

Place = tuple[slice, ...]
Integers = Iterator[tuple[Place, Array]]


class Lying(Protocol):
    """Values of a ``shape`` that lie somewhere, and are read part by part as they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, place: Place) -> Array:
        """A part, in float32."""
        ...

    def release(self) -> None:
        """Give back the memory of what was read."""
        ...


def grouped(values: Lying, *, bits: int, group: int, axis: int) -> tuple[Grid, Integers]:
    """Integers in grids with zero points, one for each ``group`` of values along ``axis``, found by ``group_grid``.

    The grid is filled while the integers are gone through.
    """
    shape = list(values.shape)
    shape[axis] = -(-shape[axis] // group)
    grid = Grid(
        scale=np.zeros(shape, np.float32),
        zero_point=np.zeros(shape, np.int32),
        bits=bits,
        signed=False,
        axis=axis,
        group=group,
    )
    return grid, _searched(values, grid)


def _searched(values: Lying, grid: Grid) -> Integers:
    axis, group, shape = int(grid.axis or 0), grid.group, grid.scale.shape
    rest = shape[axis + 1 :]
    for start in pieces(shape[: axis + 1], PIECE // (group * int(np.prod(rest, dtype=np.int64)))):
        place = (*start, *(slice(n) for n in rest))
        within = slice(start[axis].start * group, min(start[axis].stop * group, values.shape[axis]))
        whole = (*start[:axis], within, *place[axis + 1 :])
        part = values.read(whole)
        best = group_grid(part, bits=grid.bits, group=group, axis=axis)
        grid.scale[place], grid.zero_point[place] = best.scale, best.zero_point
        yield whole, quantize(part, best)
        values.release()


def channelled(values: Lying, *, bits: int, axis: int) -> tuple[Grid, Integers]:
    """Integers in the finest symmetric grids that cover every index of ``axis``; the grid is there at once."""
    low, high = (np.zeros(values.shape[axis], np.float32) for _ in range(2))
    for place in pieces(values.shape, PIECE):
        smallest, largest = extremes(values.read(place), axis=axis)
        channels = place[axis]
        low[channels], high[channels] = np.minimum(low[channels], smallest), np.maximum(high[channels], largest)
        values.release()
    grid = grid_for_range(low, high, bits=bits, symmetric=True, signed=True, narrow=True, axis=axis)
    return grid, _rounded(values, grid)


def _rounded(values: Lying, grid: Grid) -> Integers:
    for place in pieces(values.shape, PIECE):
        channels = place[int(grid.axis or 0)]
        part = replace(grid, scale=grid.scale[channels], zero_point=grid.zero_point[channels])
        yield place, quantize(values.read(place), part)
        values.release()


def packed(parts: Iterable[Array]) -> Iterator[Array]:
    """Integers of 4 bits, two to a byte as ``pack_int4`` has them, where parts may end within a byte."""
    rest = np.empty(0, np.uint8)
    for part in parts:
        flat = part.reshape(-1)
        if rest.size:
            flat = np.concatenate([rest, flat])
        whole = flat.size // 2 * 2
        rest = flat[whole:].copy()
        yield pack_int4(flat[:whole])
    if rest.size:
        yield pack_int4(rest)
