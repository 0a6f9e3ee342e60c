"""What is made of weights, on its way to a file that grows tensor by tensor; a run that was cut off goes on from it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from onnx import TensorProto, external_data_helper

from qm.plugin import Array, Journal, locked

ALIGNED = 4096
"""Offsets in a data file are multiples of a page, so that it can be mapped."""

_PIECE = 1 << 20


class Spill:
    """A data file in ``folder`` and the journal of the layers that are whole in it, both named after ``subject``.

    Equal tensors are stored once. Without a folder the file is temporary, and gone with this object.

    Raises:
        UsageError: another run is writing to it.
    """

    def __init__(self, folder: Path | None, subject: str) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="qm-weights-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary is not None else folder or Path()
        self.folder.mkdir(exist_ok=True)
        self.path = self.folder / f"{subject}.data"
        self.path.touch()
        self._file: BinaryIO = self.path.open("r+b")
        locked(self._file, self.path.parent)
        self._journal = Journal(self.path.with_suffix(".jsonl"), {"weights": subject})
        entries = [e for layer in self._journal.entries.values() for e in layer["tensors"]]
        self._end = max((e["offset"] + e["length"] for e in entries), default=0)
        self._file.truncate(self._end)  # What came after was cut off in the middle.
        self._places: dict[str, tuple[int, int]] = {}
        self._digests: dict[tuple[int, int], str] = {}

    def put(self, kind: int, dims: Sequence[int], parts: Iterable[Array]) -> TensorProto:
        """A tensor of that ONNX type whose bytes are in the file."""
        return self._tensor(kind, dims, self._append(np.ascontiguousarray(p).data for p in parts if p.size))

    def copy(self, tensor: TensorProto, folder: Path) -> TensorProto:
        """A tensor whose bytes lie in another file in ``folder``, in this one."""
        info = external_data_helper.ExternalDataInfo(tensor)
        with (folder / info.location).open("rb") as f:
            made = self._tensor(tensor.data_type, tensor.dims, self._append(_read(f, info.offset or 0, info.length)))
        made.name = tensor.name
        return made

    def once(self, layer: str, make: Callable[[], list[TensorProto]]) -> list[TensorProto]:
        """The tensors of a layer: those that an earlier run left whole, or made now."""
        entry = self._journal.get(layer)
        if entry is not None and all(map(self._is_whole, entry["tensors"])):
            return [self._tensor(e["kind"], e["dims"], (e["offset"], e["length"])) for e in entry["tensors"]]
        made = make()
        self._file.flush()
        self._journal.add(layer, {"tensors": [self._entry(t) for t in made]})
        return made

    def holds(self, tensor: TensorProto) -> bool:
        """Whether the tensor's bytes are in this file."""
        return any(e.key == "location" and e.value == self.path.name for e in tensor.external_data)

    def close(self) -> None:
        """Nothing more is written; the file stays."""
        self._file.close()

    def _append(self, parts: Iterable[Any]) -> tuple[int, int]:
        """Where the parts are in the file: at its end, unless they were in it before."""
        start = -(-self._end // ALIGNED) * ALIGNED
        self._file.seek(start)
        digest, length = hashlib.sha256(), 0
        for part in parts:
            length += self._file.write(part)
            digest.update(part)
        place = self._places.setdefault(digest.hexdigest(), (start, length))
        if place[0] == start:
            self._end = start + length
            self._digests[place] = digest.hexdigest()
        else:
            self._file.truncate(self._end)
        return place

    def _tensor(self, kind: int, dims: Iterable[int], place: tuple[int, int]) -> TensorProto:
        made = TensorProto(data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", self.path.name), ("offset", place[0]), ("length", place[1])):
            made.external_data.add(key=key, value=str(value))
        return made

    def _entry(self, tensor: TensorProto) -> dict[str, Any]:
        info = external_data_helper.ExternalDataInfo(tensor)
        return {
            "kind": tensor.data_type,
            "dims": list(tensor.dims),
            "offset": info.offset,
            "length": info.length,
            "sha256": self._digests[info.offset, info.length],
        }

    def _is_whole(self, entry: dict[str, Any]) -> bool:
        """Whether the bytes are what they were: a machine that lost power may have kept the journal alone."""
        place, digest = (entry["offset"], entry["length"]), hashlib.sha256()
        for part in _read(self._file, *place):
            digest.update(part)
        whole: bool = digest.hexdigest() == entry["sha256"]
        if whole:
            self._places[entry["sha256"]] = place
            self._digests[place] = entry["sha256"]
        return whole


def _read(f: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    f.seek(offset)
    while length and (part := f.read(min(length, _PIECE))):
        length -= len(part)
        yield part
