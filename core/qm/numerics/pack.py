"""4-bit integers, two in a byte or eight in a word, the first in the lowest bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qm.types import Array


def pack_int4(q: Array) -> NDArray[np.uint8]:
    """Pack along the last axis, ``(..., n)`` to ``(..., ceil(n / 2))``; an odd end is filled up with zero.

    Source: ONNX IR specification, 4-bit integer types.

    Raises:
        ValueError: an integer fits neither int4 nor uint4.
    """
    low, high = int(q.min(initial=0)), int(q.max(initial=0))
    if low < -8 or high > (15 if low == 0 else 7):
        raise ValueError(f"integers from {low} to {high} do not fit 4 bits")
    nibbles = q.astype(np.uint8) & np.uint8(0x0F)
    if q.shape[-1] % 2:
        nibbles = np.concatenate([nibbles, np.zeros_like(nibbles[..., :1])], axis=-1)
    # Both at once: of a pair read as one number, the first is in the low byte, the second four bits above its place.
    pairs = np.ascontiguousarray(nibbles).view("<u2")
    packed: NDArray[np.uint8] = (pairs | (pairs >> np.uint16(4))).astype(np.uint8)
    return packed


def unpack_int4(packed: NDArray[np.uint8], length: int, *, signed: bool) -> Array:
    """Undo ``pack_int4``; ``length`` is that of the last axis before packing."""
    nibbles = np.stack([packed & 0x0F, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)[..., :length]
    if not signed:
        return nibbles
    # The shift up puts the sign bit where int8 has it; the shift down copies it into the upper half.
    return (nibbles << 4).view(np.int8) >> 4


def pack_words(q: Array, *, axis: int = -1) -> NDArray[np.int32]:
    """Unsigned 4-bit integers, eight in an int32 along ``axis``, whose length ``n`` becomes ``ceil(n / 8)``.

    Source: compressed-tensors, ``pack_to_int32``.
    """
    rows = np.moveaxis(q, axis, -1).astype(np.uint8)
    filled = np.concatenate([rows, np.zeros((*rows.shape[:-1], -rows.shape[-1] % 8), np.uint8)], axis=-1)
    words = pack_int4(filled).view("<i4").astype(np.int32)
    return np.ascontiguousarray(np.moveaxis(words, -1, axis))


def unpack_words(words: NDArray[np.int32], length: int, *, axis: int = -1) -> Array:
    """Undo ``pack_words``; ``length`` is that of the axis before packing."""
    lying = np.ascontiguousarray(np.moveaxis(words, axis, -1).astype("<i4"))
    return np.moveaxis(unpack_int4(lying.view(np.uint8), length, signed=False), -1, axis)
