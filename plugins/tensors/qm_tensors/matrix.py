"""A tensor where it lies in its file."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from qm.plugin import Array, UsageError
from qm_tensors.header import Entry

_DONT_NEED = getattr(mmap, "MADV_DONTNEED", None)  # Not on every system: there the pages go when the map does.

FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Types whose tensors can be quantized, and how NumPy reads them."""

_STORED = FLOATS | {"F64": "<f8", "I8": "i1", "U8": "u1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}


class Matrix:
    """A tensor in a file, mapped.

    Raises:
        UsageError: the file is gone or has become shorter.
    """

    def __init__(self, path: Path, name: str, entry: Entry) -> None:
        self.name, self.shape, self._dtype = name, entry.shape, entry.dtype
        start = entry.offset - entry.offset % mmap.ALLOCATIONGRANULARITY
        try:
            with path.open("rb") as f:
                self._pages = mmap.mmap(
                    f.fileno(), entry.offset - start + entry.nbytes, offset=start, access=mmap.ACCESS_READ
                )
        except (OSError, ValueError) as e:
            raise UsageError(
                f"the tensor {name!r} cannot be read from {str(path)!r}: {e}",
                hint="Leave the file alone while it is worked on, and start again.",
            ) from e
        flat = np.frombuffer(self._pages, _STORED[entry.dtype], int(np.prod(entry.shape)), entry.offset - start)
        self.stored: Array = flat.reshape(entry.shape)

    def read(self, place: tuple[slice, ...]) -> Array:
        """A part, as float32.

        Raises:
            UsageError: it holds NaN or infinity.
        """
        part = self.stored[place]
        # A bfloat16 is the upper half of a float32.
        floats = (part.astype(np.uint32) << 16).view(np.float32) if self._dtype == "BF16" else part.astype(np.float32)
        if not np.isfinite(floats).all():
            raise UsageError(
                f"the tensor {self.name!r} holds NaN or infinity",
                hint="Leave it in float with a rule, or repair the weights.",
            )
        return floats

    def release(self) -> None:
        """Give back the memory of what was read; it can be read again."""
        if _DONT_NEED is not None:
            self._pages.madvise(_DONT_NEED)
