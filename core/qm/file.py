"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from qm.errors import UsageError


def refuse_overwrite(path: Path, *, force: bool) -> None:
    """Raise UsageError where ``path`` cannot be written: it is there already, or its folder is not or forbids it."""
    if path.is_dir() and not force:
        raise UsageError(f"{str(path)!r} is a folder", hint="Name a file with --to.")
    if path.exists() and not force:
        raise UsageError(f"{str(path)!r} exists", hint="Name another file with --to, or add --force to replace it.")
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"the folder {str(folder)!r} does not exist", hint=f"Make it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {str(folder)!r} cannot be written", hint="Name another file with --to.")


def contents(path: Path, kind: str, *, most: int | None = None) -> bytes:
    """The bytes of a model's file, the first ``most`` where that is told; ``kind`` is what it should be: an ONNX file.

    Raises:
        UsageError: it is not there, is a folder, is empty, or cannot be read.
    """
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder, not {kind}", hint="Name the file in it.")
    try:
        with path.open("rb") as f:
            read = f.read() if most is None else f.read(most)
    except FileNotFoundError:
        raise UsageError(f"model {str(path)!r} does not exist", hint="Check the path.") from None
    except OSError as e:
        reason = (e.strerror or str(e)).lower()
        raise UsageError(f"model {str(path)!r} cannot be read: {reason}", hint="Check its permissions.") from e
    if not read:
        raise UsageError(f"model {str(path)!r} is empty", hint="Download it, or write it again.")
    return read


@contextmanager
def written(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to, renamed to ``path`` at the end, removed on any error.

    The temporary path lies in a folder of its own, so that files an exporter puts beside its output (external data,
    named after it) move along.

    Raises:
        UsageError: ``path`` is there already without ``force``, or the disk is full.
    """
    refuse_overwrite(path, force=force)
    with disk_errors(path):
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with disk_errors(path):
            yield folder / path.name
            # External data first: the file that refers to it must never be there alone.
            for made in sorted(folder.iterdir(), key=lambda p: p.name == path.name):
                _replace(made, path.parent / made.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(made: Path, place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    if made.is_file():
        with made.open("rb+") as f:
            os.fsync(f.fileno())
    made.replace(place)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a quota or a refused write into a UsageError that names ``path``."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UsageError(
                f"no space left to write {str(path)!r}", hint="Free some space, or write to another disk with --to."
            ) from e
        if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG):
            reason = os.strerror(e.errno).lower()
            raise UsageError(f"{str(path)!r} cannot be written: {reason}", hint="Name another file with --to.") from e
        raise


def locked(file: IO[Any], place: Path) -> None:
    """Lock an open file for as long as it is open; the system lets go of it however the process ends.

    Raises:
        UsageError: another run has locked it; the sentence names ``place``.
    """
    try:
        import fcntl
    except ImportError:  # Not on Windows, where two runs to one place are not kept apart.
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UsageError(
            f"another run is at work in {str(place)!r}", hint="Wait for it, or name another place with --to."
        ) from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of all files of a folder, as hexadecimal digits."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            if path.is_dir():
                digest.update(str(file.relative_to(path)).encode() + b"\0")
            with file.open("rb") as f:
                while block := f.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
