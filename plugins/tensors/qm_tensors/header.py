"""The head of a ``.safetensors`` file: which tensors it holds, and where.

Source: the safetensors format (huggingface/safetensors, README): eight bytes that give the length of a JSON object in
little-endian order, the object, and the tensors' bytes without holes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qm.plugin import UsageError, contents

LARGEST = 100_000_000
"""Bytes of a head, as the reference implementation allows."""

METADATA = "__metadata__"

NBYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
"""Bytes of one element, by the format's own names of types."""

_HINT = "Download it, or save it again with safetensors."


@dataclass(frozen=True)
class Entry:
    """A tensor: its type as the format calls it, its shape, and where its bytes lie in the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return NBYTES[self.dtype] * math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The tensors by name, as they lie in the file, and what else is told of them."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(e.nbytes for e in self.entries.values())


class _Broken(Exception):
    """What is wrong, as a clause."""


def read(path: Path) -> Header:
    """The head of a file.

    Raises:
        UsageError: it is not there, or no whole safetensors file.
    """
    first = contents(path, "a .safetensors file", most=8)
    try:
        if len(first) < 8:
            raise _Broken("it is too short")
        (length,) = struct.unpack("<Q", first)
        whole = path.stat().st_size
        if not 2 <= length <= min(LARGEST, whole - 8):
            raise _Broken("its head does not fit in it")
        with path.open("rb") as f:
            f.seek(8)
            head = f.read(length)
        return _parsed(head, start=8 + length, end=whole)
    except _Broken as e:
        raise UsageError(f"{str(path)!r} is no whole .safetensors file: {e}", hint=_HINT) from e


def _parsed(head: bytes, *, start: int, end: int) -> Header:
    try:
        told = json.loads(head)
    except ValueError:
        raise _Broken("its head is not JSON") from None
    if not isinstance(told, dict):
        raise _Broken("its head is not a JSON object")
    metadata = told.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _Broken("its metadata are not texts by name")
    found = sorted(((name, _entry(name, e, start)) for name, e in told.items()), key=lambda item: item[1].offset)
    place = start
    for name, entry in found:
        if entry.offset != place:
            raise _Broken(f"the tensor {name!r} does not begin where the one before ends")
        place += entry.nbytes
    if place != end:
        raise _Broken(f"it has {end:,} bytes, and its tensors end at {place:,}")
    return Header(dict(found), metadata)


def _entry(name: str, told: Any, start: int) -> Entry:
    try:
        dtype, shape, (first, last) = told["dtype"], told["shape"], told["data_offsets"]
        if not all(type(n) is int and n >= 0 for n in (*shape, first, last)):
            raise _Broken(f"the tensor {name!r} has a shape or a place that is no number")
    except (KeyError, TypeError, ValueError):
        raise _Broken(f"the tensor {name!r} is not described") from None
    if dtype not in NBYTES:
        raise _Broken(f"the tensor {name!r} is of an unknown type, {dtype!r}")
    made = Entry(dtype, tuple(shape), start + first)
    if last - first != made.nbytes:
        raise _Broken(f"the tensor {name!r} has {last - first:,} bytes, and {made.nbytes:,} by its shape")
    return made


def laid_out(tensors: Sequence[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]) -> tuple[bytes, Header]:
    """The head of a new file, as bytes, for tensors given by name, type and shape, which lie in that order.

    The tensors begin at a multiple of eight bytes.
    """
    told: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    place = 0
    for name, dtype, shape in tensors:
        length = NBYTES[dtype] * math.prod(shape)
        told[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + length]}
        place += length
    text = json.dumps(told, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    entries = {
        name: Entry(t["dtype"], tuple(t["shape"]), start + t["data_offsets"][0])
        for name, t in told.items()
        if name != METADATA
    }
    return struct.pack("<Q", len(text)) + text, Header(entries, dict(metadata))
