"""How the weights of a layer are stored: as floating-point values, or as packed integers with scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qm.plugin import FLOAT, Array, Granularity, Scheme

BITS = (1, 2, 4, 8)
"""The widths that fill a byte."""


@dataclass(frozen=True, kw_only=True)
class Float:
    """Weights ``(out, in)`` as they were trained."""

    array: Array

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs of the layer."""
        outputs, inputs = self.array.shape
        return outputs, inputs

    @property
    def nbytes(self) -> int:
        """Bytes stored."""
        return self.array.nbytes

    @property
    def scheme(self) -> Scheme:
        """The scheme that this storage amounts to, activations aside."""
        return Scheme.parse("f16") if self.array.dtype == np.float16 else FLOAT

    def values(self) -> Array:
        """The weights as float32."""
        return self.array.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Weights ``(out, in)`` as integers of ``bits`` bits, times a scale.

    ``codes`` holds ``integer + 2**(bits - 1)`` in rows, the first in the lowest bits of a byte. ``scale`` is ``(1, 1)``
    for one scale per tensor, ``(out, 1)`` per channel, ``(out, groups)`` per group of inputs. Any method whose result
    can be written in this form runs without another line of code.
    """

    codes: Array
    scale: Array
    bits: int
    shape: tuple[int, int]

    @classmethod
    def pack(cls, integers: Array, scale: Array, bits: int) -> Packed:
        """Pack ``integers`` ``(out, in)``, each in ``[-2**(bits - 1), 2**(bits - 1) - 1]``."""
        per_byte = 8 // bits
        codes = (integers.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8).ravel()
        padded = np.pad(codes, (0, -len(codes) % per_byte)).reshape(-1, per_byte)
        packed = np.bitwise_or.reduce(padded << np.arange(0, 8, bits, dtype=np.uint8), axis=1).astype(np.uint8)
        outputs, inputs = integers.shape
        return cls(codes=packed, scale=scale.astype(np.float32), bits=bits, shape=(outputs, inputs))

    @property
    def nbytes(self) -> int:
        """Bytes stored, scales included."""
        return self.codes.nbytes + self.scale.nbytes

    @property
    def scheme(self) -> Scheme:
        """The scheme that this storage amounts to, activations aside."""
        rows, groups = self.scale.shape
        if groups > 1:
            group = self.shape[1] // groups
            return Scheme(weight_bits=self.bits, granularity=Granularity.GROUP, group=group)
        one = rows == 1 and self.shape[0] > 1
        return Scheme(weight_bits=self.bits, granularity=Granularity.TENSOR if one else Granularity.CHANNEL)

    def integers(self) -> Array:
        """The integers, ``(out, in)``, as int32."""
        shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        codes = (self.codes[:, None] >> shifts) & (2**self.bits - 1)
        outputs, inputs = self.shape
        flat: Array = codes.ravel()[: outputs * inputs].astype(np.int32)
        integers: Array = flat.reshape(self.shape) - 2 ** (self.bits - 1)
        return integers

    def values(self) -> Array:
        """The weights as float32."""
        outputs, groups = self.shape[0], self.scale.shape[1]
        grouped = self.integers().reshape(outputs, groups, -1) * self.scale[:, :, None]
        return grouped.reshape(self.shape).astype(np.float32)


Weight = Float | Packed
