"""Writing a flatbuffer so that it is small and lies well in memory.

The library's own writer stores a vector once more for each table that has it, and lays the data of buffers on any
multiple of 4 bytes where the TensorFlow Lite schema wants 16.
"""

from __future__ import annotations

from typing import Any

import flatbuffers

IDENTIFIER = b"TFL3"
ALIGNMENT = 16


def packed(model: Any) -> bytes:
    """The bytes of a file, the same for the same objects."""
    builder = Sharing(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


class Sharing(flatbuffers.Builder):  # type: ignore[misc]
    """A writer that stores vectors of the same numbers once; a vector of offsets is one of its kind."""

    head: int

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._there: dict[tuple[int, bytes], int] = {}
        self._start = -1
        self._alignment = 1
        self._width = 0

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
        self._start, self._width = self.Offset(), elemSize
        self._alignment = ALIGNMENT if elemSize == 1 else alignment
        return int(super().StartVector(elemSize, numElems, self._alignment))

    def PrependUOffsetTRelative(self, off: int) -> None:
        self._start = -1
        super().PrependUOffsetTRelative(off)

    def EndVector(self, numElems: int | None = None) -> int:
        nbytes = 4 + self._width * (self.vectorNumElems or 0)
        offset = int(super().EndVector())
        start, self._start = self._start, -1
        if start < 0:
            return offset
        key = self._alignment, bytes(self.Bytes[self.head : self.head + nbytes])
        if key in self._there:
            self.head = len(self.Bytes) - start
            return self._there[key]
        self._there[key] = offset
        return offset
