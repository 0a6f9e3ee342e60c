"""A float weight where it lies: in the model, or in a file beside it that need not fit into memory."""

from __future__ import annotations

import mmap
from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import TensorProto, external_data_helper

from qm.plugin import Array, UsageError
from qm_onnx.graph import Scope
from qm_onnx.rewrite import behind

_DONT_NEED = getattr(mmap, "MADV_DONTNEED", None)  # Not on every system: there the pages go when the map does.


@dataclass(frozen=True, eq=False)
class Weight:
    """``value`` is a view of the memory or of the file's ``pages``; weights of one ``key`` are one weight."""

    name: str
    value: Array
    key: Hashable
    pages: mmap.mmap | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.value.shape

    @property
    def transposed(self) -> Weight:
        """The matrix the other way round, nothing moved."""
        return replace(self, value=self.value.T, key=(self.key, "transposed"))

    def read(self, place: tuple[slice, ...]) -> Array:
        """A part of it.

        Raises:
            UsageError: it holds NaN or infinity.
        """
        part: Array = self.value[place]
        if not np.isfinite(part).all():
            raise UsageError(
                f"the weight {self.name!r} holds NaN or infinity",
                hint="Leave its layer in float with a rule, or repair the model.",
            )
        return part

    def release(self) -> None:
        """Give back the memory of what was read from the file; it can be read again."""
        if self.pages is not None and _DONT_NEED is not None:
            self.pages.madvise(_DONT_NEED)


def find_weight(scope: Scope, name: str, folder: Path | None) -> Weight | None:
    """The constant float32 tensor behind an operand; None where it is computed, cast, or quantized already.

    ``folder`` is where external data lies.
    """
    held: list[mmap.mmap] = []

    def mapped(tensor: TensorProto) -> Array:
        pages, value = _mapped(tensor, folder or Path())
        held.append(pages)
        return value

    found = behind(scope, name, external=mapped)
    if found is None:
        return None
    constant, value = found
    key = (id(constant.tensor), *map(id, constant.via))
    return Weight(name, value, key, held[0] if held else None)


def _mapped(tensor: TensorProto, folder: Path) -> tuple[mmap.mmap, Array]:
    """The map of an external tensor's part of its file, and the floats in it.

    Raises:
        UsageError: the file is gone or has become shorter, or the tensor's length is not that of its shape.
    """
    info = external_data_helper.ExternalDataInfo(tensor)
    offset, count = info.offset or 0, int(np.prod(tensor.dims, dtype=np.int64))
    if info.length not in (None, 4 * count):
        raise UsageError(
            f"the weight {tensor.name!r} has {info.length:,} bytes in {info.location!r}, and "
            f"{4 * count:,} by its shape",
            hint="Export the model again.",
        )
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    try:
        with (folder / info.location).open("rb") as f:
            pages = mmap.mmap(f.fileno(), offset - start + 4 * count, offset=start, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as e:
        raise UsageError(
            f"the weight {tensor.name!r} cannot be read from {str(folder / info.location)!r}: {e}",
            hint="Leave the model's files alone while it is quantized, and start again.",
        ) from e
    return pages, np.frombuffer(pages, "<f4", count, offset - start).reshape(tensor.dims)
