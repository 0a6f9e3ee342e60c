"""Converted models kept from one run to the next, by the hash of what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qm.plugin import UsageError, cache, written

LARGEST = 2_000_000_000
"""Bytes that the cache may take; the models used longest ago go first."""

SUFFIX = ".converted"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A converted model, and what was said on the way."""

    content: bytes
    notes: tuple[str, ...] = ()


def folder() -> Path:
    """Where the models are kept."""
    return cache.folder("tf")


def get(name: str) -> Entry | None:
    """The entry of that name; None where there is none, or a damaged one."""
    path = _path(name)
    try:
        head, _, content = path.read_bytes().partition(b"\n")
        told = json.loads(head)
        if told["sha256"] != hashlib.sha256(content).hexdigest():
            return None
        notes = tuple(str(note) for note in told["notes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with suppress(OSError):
        os.utime(path)
    return Entry(content=content, notes=notes)


def put(name: str, entry: Entry, *, largest: int = LARGEST) -> None:
    """Keep an entry; a cache that cannot be written is none."""
    head = json.dumps({"sha256": hashlib.sha256(entry.content).hexdigest(), "notes": entry.notes})
    with suppress(OSError, UsageError):
        folder().mkdir(parents=True, exist_ok=True)
        with written(_path(name), force=True) as path:
            path.write_bytes(head.encode() + b"\n" + entry.content)
        _prune(largest)


def _path(name: str) -> Path:
    return folder() / f"{name}{SUFFIX}"


def _prune(largest: int) -> None:
    """Remove what was used longest ago, the newest entry never."""
    files = sorted(folder().glob(f"*{SUFFIX}"), key=lambda f: f.stat().st_mtime_ns, reverse=True)
    total = 0
    for number, file in enumerate(files):
        total += file.stat().st_size
        if number and total > largest:
            file.unlink(missing_ok=True)
