"""NumPy's files. Headers are read first, so that what is wrong is said before anything is loaded."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

from qm.data.fit import refuse_alien, text
from qm.errors import UsageError
from qm.types import Array

_SMALL = 1 << 25
"""Files up to this size are loaded at once; larger ones are read sample by sample."""

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

_HINT = "Write it again with numpy.save or numpy.savez."


@dataclass(frozen=True)
class Header:
    """What an array is, known without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool = False
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.dtype.name} {text(self.shape)}"

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class ArrayFile:
    """An array on disk, of which only the asked part is read.

    A memory map would be simpler, but the pages it touches count as the process's memory for a whole pass.
    """

    path: Path
    header: Header

    @property
    def shape(self) -> tuple[int, ...]:
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.header.dtype

    def __getitem__(self, part: slice, /) -> Array:
        start, stop, _ = part.indices(self.shape[0])
        tail = self.shape[1:]
        size = prod(tail)
        count = max(0, stop - start)
        offset = self.header.offset + start * size * self.dtype.itemsize
        values = np.fromfile(self.path, dtype=self.dtype, count=count * size, offset=offset)
        if values.size < count * size:
            raise _broken(self.path, "ends before its last value")
        return values.reshape(count, *tail)


def read_npy(path: Path) -> Array | ArrayFile:
    """The array of a ``.npy`` file, read sample by sample where it is large.

    Raises:
        UsageError: the file is empty, truncated, not NumPy's, or holds objects.
    """
    with path.open("rb") as f:
        _refuse_empty(path)
        header = _header(f, path, f"{path.name!r}")
        refuse_alien(header.dtype, repr(path.name))
        if header.offset + header.nbytes > path.stat().st_size:
            raise _broken(path, f"is truncated: its header promises {header.nbytes:,} bytes of values")
        if header.nbytes > _SMALL and header.shape and not header.fortran:
            return ArrayFile(path, header)
        f.seek(0)
        try:
            if header.nbytes > _SMALL:
                mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
                return mapped
            return np.lib.format.read_array(f, allow_pickle=False)
        except ValueError as e:
            raise _broken(path, f"is damaged ({_clause(e)})") from e


def headers(path: Path) -> Mapping[str, Header]:
    """The arrays of an ``.npz`` file by name, unread.

    Raises:
        UsageError: the file is empty, truncated, or no archive of arrays.
    """
    _refuse_empty(path)
    try:
        with zipfile.ZipFile(path) as archive:
            found = {}
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name == info.filename:
                    continue
                with archive.open(info) as f:
                    found[name] = header = _header(f, path, f"array {name!r}")
                # A damaged header may promise more than there is memory for; objects have no size.
                if not header.dtype.hasobject and header.offset + header.nbytes > info.file_size:
                    raise _broken(path, f"is damaged: array {name!r} ends before its last value")
    except _DAMAGE as e:
        raise _broken(path, f"is no .npz archive, or is truncated ({_clause(e)})") from e
    if not found:
        raise UsageError(f"{str(path)!r} holds no arrays", hint="Write arrays into it with numpy.savez.")
    return found


def read_npz(path: Path, name: str) -> Array:
    """One array of an ``.npz`` file; the others are not read.

    Raises:
        UsageError: it is damaged, or holds objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(f"{name}.npy")
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except _DAMAGE as e:
        raise _broken(path, f"is damaged at array {name!r} ({_clause(e)})") from e


def _header(f: IO[bytes], path: Path, subject: str) -> Header:
    try:
        version = np.lib.format.read_magic(f)
        first = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(f)
    except (ValueError, TypeError, TokenError, SyntaxError, OverflowError, RecursionError, MemoryError) as e:
        raise _broken(path, f"is not NumPy's at {subject}, or is truncated ({_clause(e)})") from e
    return Header(tuple(shape), dtype, fortran, f.tell())


def _refuse_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise _broken(path, "is empty")


def _broken(path: Path, what: str) -> UsageError:
    return UsageError(f"data set {str(path)!r} {what}", hint=_HINT)


def _clause(e: Exception) -> str:
    lines = str(e).splitlines()
    return lines[0].strip().rstrip(".") if lines else type(e).__name__
