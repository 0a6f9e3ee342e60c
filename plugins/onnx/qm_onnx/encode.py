"""Float weights to stored integers, scales and zero points, a piece at a time: the same ones wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from onnx import TensorProto

from qm.numerics import PIECE, Grid, channelled, grouped, packed
from qm.plugin import Array, Scheme
from qm_onnx.weight import Weight

_KINDS = {
    (4, False): TensorProto.UINT4,
    (4, True): TensorProto.INT4,
    (8, False): TensorProto.UINT8,
    (8, True): TensorProto.INT8,
}


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
    bits, group = scheme.weight_bits, scheme.group
    grid, found = (
        grouped(lying, bits=bits, group=group, axis=along) if group else channelled(lying, bits=bits, axis=along)
    )
    parts = _turned(weight.value.shape, grid, found) if turned else (q for _, q in found)
    tensors = [_put(store, grid, weight.value.shape, parts)]
    scale, zero = (values.T if turned and scheme.group else values for values in (grid.scale, grid.zero_point))
    tensors.append(store.put(TensorProto.FLOAT, scale.shape, [scale.astype("<f4")]))
    if not grid.signed:
        tensors.append(_put(store, grid, zero.shape, [zero.astype(grid.dtype)]))
    return tensors


def _put(store: Store, grid: Grid, dims: Sequence[int], parts: Iterable[Array]) -> TensorProto:
    return store.put(_KINDS[grid.bits, grid.signed], dims, packed(parts) if grid.bits == 4 else parts)


def _turned(shape: tuple[int, ...], grid: Grid, found: Iterable[tuple[tuple[slice, ...], Array]]) -> Iterator[Array]:
    """The integers of a transposed matrix, in its own order."""
    integers = np.empty(shape, grid.dtype)
    for place, q in found:
        integers.T[place] = q
    flat = integers.reshape(-1)
    for i in range(0, flat.size, PIECE):
        yield flat[i : i + PIECE]
