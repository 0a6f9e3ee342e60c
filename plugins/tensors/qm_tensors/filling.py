"""A file whose tensors are filled in one after another; a run that was cut off goes on where it stopped."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qm.plugin import Journal, locked
from qm_tensors.header import Header

BLOCK = 1 << 20

Contents = Mapping[str, Callable[[], Iterable[Any]]]
"""What makes the bytes of each tensor of a step, part by part, in the order in which they are asked for."""


class Filling:
    """The file and the journal of the steps that are whole in it, both named after ``subject``.

    Without a folder the file is temporary, and gone with this object.

    Raises:
        UsageError: another run is writing to it.
    """

    def __init__(self, folder: Path | None, subject: str, head: bytes, header: Header) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="qm-tensors-") if folder is None else None
        place = Path(self._temporary.name) if self._temporary is not None else folder or Path()
        place.mkdir(exist_ok=True)
        self.path = place / f"{subject}.safetensors"
        self.path.touch()
        self._file = self.path.open("r+b")
        locked(self._file, self.path.parent)
        self._journal = Journal(self.path.with_suffix(".jsonl"), {"weights": subject})
        self._entries = header.entries
        self._file.write(head)
        self._file.truncate(len(head) + header.nbytes)

    def once(self, step: str, contents: Contents, told: Callable[[], dict[str, float]] = dict) -> dict[str, float]:
        """Fill in the tensors of a step, unless they are there; what is ``told`` of it is remembered."""
        known = self._journal.get(step)
        if known is not None and all(self._digest(name) == digest for name, digest in known["sha256"].items()):
            found: dict[str, float] = known["told"]
            return found
        digests = {name: self._fill(name, parts()) for name, parts in contents.items()}
        self._file.flush()
        self._journal.add(step, {"sha256": digests, "told": told()})
        return told()

    def close(self) -> None:
        """Nothing more is written; the file stays."""
        self._file.close()

    def _fill(self, name: str, parts: Iterable[Any]) -> str:
        entry, digest, length = self._entries[name], hashlib.sha256(), 0
        self._file.seek(entry.offset)
        for part in parts:
            length += self._file.write(part)
            digest.update(part)
        if length != entry.nbytes:
            raise ValueError(f"{name}: {length} bytes where {entry.nbytes} belong")
        return digest.hexdigest()

    def _digest(self, name: str) -> str:
        """Of what is in the file now: a machine that lost power may have kept the journal alone."""
        digest, entry = hashlib.sha256(), self._entries[name]
        for part in blocks(self._file, entry.offset, entry.nbytes):
            digest.update(part)
        return digest.hexdigest()


def blocks(file: Any, offset: int, length: int) -> Iterator[bytes]:
    """A part of a file, block by block."""
    file.seek(offset)
    while length and (part := file.read(min(length, BLOCK))):
        length -= len(part)
        yield part
