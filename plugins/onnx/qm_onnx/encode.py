"""Float weights to stored integers, scales and zero points, a piece at a time: the same ones wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from onnx import TensorProto

from qm.numerics import Grid, extremes, grid_for_range, group_grid, pack_int4, pieces, quantize
from qm.plugin import Array, Scheme
from qm_onnx.weight import Weight

PIECE = 1 << 18
"""Values that are turned into integers at a time."""

_KINDS = {
    (4, False): TensorProto.UINT4,
    (4, True): TensorProto.INT4,
    (8, False): TensorProto.UINT8,
    (8, True): TensorProto.INT8,
}

Place = tuple[slice, ...]
Integers = Iterator[tuple[Place, Array]]


class Store(Protocol):
    """Where what is made of a weight is put."""

    def put(self, kind: int, dims: Sequence[int], parts: Iterable[Array]) -> TensorProto:
        """A tensor of that ONNX type, whose bytes are those of the parts."""
        ...

    def once(self, layer: str, make: Callable[[], list[TensorProto]]) -> list[TensorProto]:
        """The tensors of a layer, made unless they are there already."""
        ...


class Held:
    """A store in memory."""

    def put(self, kind: int, dims: Sequence[int], parts: Iterable[Array]) -> TensorProto:
        """A tensor that holds its bytes itself."""
        return TensorProto(data_type=kind, dims=dims, raw_data=b"".join(part.tobytes() for part in parts))

    def once(self, layer: str, make: Callable[[], list[TensorProto]]) -> list[TensorProto]:
        """The tensors, made now."""
        return make()


@dataclass(frozen=True)
class Encoded:
    """A weight as stored: integers, scales and, where the grid is not symmetric, zero points.

    Scales lie along ``axis``, one for each ``group`` of values, or for each index where that is 0.
    """

    tensors: tuple[TensorProto, ...]
    axis: int
    group: int


def encode(weight: Weight, scheme: Scheme, store: Store, *, layer: str, reduced: int) -> Encoded:
    """The weight in ``scheme``; ``reduced`` is the axis that the layer sums over, one of the last two."""
    last = weight.value.ndim - 1
    axis = reduced if scheme.group else 2 * last - 1 - reduced
    tensors = store.once(layer, lambda: _made(weight, scheme, store, axis))
    return Encoded(tuple(tensors), axis, scheme.group)


def _made(weight: Weight, scheme: Scheme, store: Store, axis: int) -> list[TensorProto]:
    # A matrix that lies transposed in its file is gone through as it lies, and its integers are turned round.
    turned = weight.value.ndim == 2 and not weight.value.flags.c_contiguous and weight.value.T.flags.c_contiguous
    lying, along = (weight.transposed, 1 - axis) if turned else (weight, axis)
    grid = _groups(lying, scheme, along) if scheme.group else _channels(lying, scheme, along)
    found = _searched(lying, grid) if scheme.group else _rounded(lying, grid)
    parts = _turned(weight.value.shape, grid, found) if turned else (q for _, q in found)
    tensors = [_put(store, grid, weight.value.shape, parts)]
    scale, zero = (values.T if turned and scheme.group else values for values in (grid.scale, grid.zero_point))
    tensors.append(store.put(TensorProto.FLOAT, scale.shape, [scale.astype("<f4")]))
    if not grid.signed:
        tensors.append(_put(store, grid, zero.shape, [zero.astype(grid.dtype)]))
    return tensors


def _put(store: Store, grid: Grid, dims: Sequence[int], parts: Iterable[Array]) -> TensorProto:
    return store.put(_KINDS[grid.bits, grid.signed], dims, _packed(parts) if grid.bits == 4 else parts)


def _groups(weight: Weight, scheme: Scheme, axis: int) -> Grid:
    """Room for the grids of all groups, which are found piece by piece."""
    shape = list(weight.value.shape)
    shape[axis] = -(-shape[axis] // scheme.group)
    return Grid(
        scale=np.zeros(shape, np.float32),
        zero_point=np.zeros(shape, np.int32),
        bits=scheme.weight_bits,
        signed=False,
        axis=axis,
        group=scheme.group,
    )


def _searched(weight: Weight, grid: Grid) -> Integers:
    """The integers, piece by piece, in grids that are found on the way."""
    axis, group, shape = int(grid.axis or 0), grid.group, grid.scale.shape
    rest = shape[axis + 1 :]
    for start in pieces(shape[: axis + 1], PIECE // (group * int(np.prod(rest, dtype=np.int64)))):
        place = (*start, *(slice(n) for n in rest))
        values = slice(start[axis].start * group, min(start[axis].stop * group, weight.value.shape[axis]))
        whole = (*start[:axis], values, *place[axis + 1 :])
        part = weight.read(whole)
        best = group_grid(part, bits=grid.bits, group=group, axis=axis)
        grid.scale[place], grid.zero_point[place] = best.scale, best.zero_point
        yield whole, quantize(part, best)
        weight.release()


def _channels(weight: Weight, scheme: Scheme, axis: int) -> Grid:
    """The finest symmetric grids that cover every channel."""
    low, high = (np.zeros(weight.value.shape[axis], np.float32) for _ in range(2))
    for place in pieces(weight.value.shape, PIECE):
        smallest, largest = extremes(weight.read(place), axis=axis)
        channels = place[axis]
        low[channels], high[channels] = np.minimum(low[channels], smallest), np.maximum(high[channels], largest)
        weight.release()
    return grid_for_range(low, high, bits=scheme.weight_bits, symmetric=True, signed=True, narrow=True, axis=axis)


def _rounded(weight: Weight, grid: Grid) -> Integers:
    """The integers, piece by piece."""
    for place in pieces(weight.value.shape, PIECE):
        channels = place[int(grid.axis or 0)]
        part = replace(grid, scale=grid.scale[channels], zero_point=grid.zero_point[channels])
        yield place, quantize(weight.read(place), part)
        weight.release()


def _turned(shape: tuple[int, ...], grid: Grid, found: Integers) -> Iterator[Array]:
    """The integers of a transposed matrix, in its own order."""
    integers = np.empty(shape, grid.dtype)
    for place, q in found:
        integers.T[place] = q
    flat = integers.reshape(-1)
    for i in range(0, flat.size, PIECE):
        yield flat[i : i + PIECE]


def _packed(parts: Iterable[Array]) -> Iterator[Array]:
    """Integers of 4 bits, two to a byte, where parts may end within a byte."""
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
