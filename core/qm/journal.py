"""A file that remembers what is done: one JSON object a line, on the disk before the next begins.

A line cut short by a crash is dropped when the journal is read again, and nothing else is lost.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qm.errors import UsageError

FORMAT = 1
"""The format of the file."""


class Journal:
    """Entries by key. ``subject`` says of what; a journal of another subject is refused, not mixed.

    Raises:
        UsageError: the file belongs to another subject, is of another format, damaged or no journal.
    """

    def __init__(self, path: Path | None, subject: dict[str, Any]) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        if path.exists() and path.stat().st_size:
            self._read(path, subject)
        else:
            self._append({"journal": FORMAT, "subject": subject})

    def _read(self, path: Path, subject: dict[str, Any]) -> None:
        data = path.read_bytes()
        whole, _, torn = data.rpartition(b"\n")
        lines = [_line(path, number, text) for number, text in enumerate(whole.splitlines(), start=1)]
        _check_subject(path, lines[0] if lines else None, subject)
        if torn:
            os.truncate(path, len(whole) + (1 if whole else 0))
        if not lines:
            self._append({"journal": FORMAT, "subject": subject})
        self.entries = {line["key"]: line["value"] for line in lines[1:]}

    def get(self, key: str) -> dict[str, Any] | None:
        """What is known under the key."""
        return self.entries.get(key)

    def add(self, key: str, value: dict[str, Any]) -> None:
        """Remember a value; it is on the disk when this returns."""
        self.entries[key] = value
        if self.path is not None:
            self._append({"key": key, "value": value})

    def _append(self, line: dict[str, Any]) -> None:
        assert self.path is not None
        with self.path.open("ab") as f:
            f.write(json.dumps(line).encode() + b"\n")
            f.flush()
            os.fsync(f.fileno())


def _line(path: Path, number: int, text: bytes) -> dict[str, Any]:
    """One line of the file: the head, or an entry."""
    name, kind, body = ("journal", int, "subject") if number == 1 else ("key", str, "value")
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    if isinstance(line, dict) and isinstance(line.get(name), kind) and isinstance(line.get(body), dict):
        return line
    if number == 1:
        raise UsageError(
            f"{str(path)!r} is not a journal of trials", hint="Name another, or delete it to start afresh."
        )
    raise UsageError(
        f"line {number} of the journal {str(path)!r} is damaged",
        hint="Delete that line: what it held is done again, and the rest is kept.",
    )


def _check_subject(path: Path, head: dict[str, Any] | None, subject: dict[str, Any]) -> None:
    """Raise UsageError where the file is of another subject, or of another format."""
    if head is None:
        return
    theirs = head["subject"]
    if head["journal"] != FORMAT:
        raise UsageError(
            f"the journal {str(path)!r} has format {head['journal']}, and this version of qm knows {FORMAT}",
            hint="Go on with the version that began it, or delete it to start afresh.",
        )
    if theirs != subject:
        odd = sorted(k for k in {*theirs, *subject} if theirs.get(k) != subject.get(k))
        raise UsageError(
            f"the journal {str(path)!r} belongs to another {' and '.join(odd)}",
            hint="Delete it to start afresh, or run with what it was made for.",
        )
