"""Files made into bytes, for machines that share no disk, and back."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from qm.source import is_function
from qm.tuning.job import Subject

_ARCHIVE = re.compile(r"(?P<path>.+\.npz)(?P<names>:[^/\\]*)?", re.IGNORECASE)
CARRIED = (".npz", ".npy")
"""Data in one file. A .toml, which names others, and a function must be there where the trials run."""


def packed(paths: Iterable[Path]) -> bytes:
    """Files and folders as one archive, each by its own name."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for path in paths:
            archive.add(path, arcname=path.name)
    return made.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Put the files of an archive into the folder."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r") as archive:
        archive.extractall(folder, filter="data")


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A subject with the files of its model and its data; ``file`` is the one that holds the data."""

    subject: Subject
    file: Path | None
    model: bytes | None
    data: bytes | None

    @classmethod
    def of(cls, subject: Subject) -> Parcel:
        """Pack a subject."""
        model, file = subject.model, _file_of(subject.data)
        beside = model.parent.glob(model.name + ".data")
        return cls(
            subject=subject,
            file=file,
            model=None if is_function(model) else packed([model, *beside]),
            data=None if file is None else packed([file]),
        )

    def opened(self, folder: Path) -> Subject:
        """The subject, with its files in the folder."""
        subject = self.subject
        for name, content in (("model", self.model), ("data", self.data)):
            if content is not None:
                (folder / name).mkdir()
                unpack(content, folder / name)
        if self.model is not None:
            subject = replace(subject, model=folder / "model" / subject.model.name)
        if self.file is not None:
            names = str(subject.data)[len(str(self.file)) :]
            subject = replace(subject, data=f"{folder / 'data' / self.file.name}{names}")
        return subject


def _file_of(data: object) -> Path | None:
    """The file or folder that holds the data, None where it cannot be carried, or is no file."""
    if not isinstance(data, str | Path):
        return None
    found = _ARCHIVE.fullmatch(str(data))
    path = Path(found["path"]) if found else Path(data)
    return path if path.is_dir() or (path.is_file() and path.suffix.lower() in CARRIED) else None
