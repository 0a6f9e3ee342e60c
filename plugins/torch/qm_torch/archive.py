"""What a .pt2 file holds, by the names in its zip directory. No framework is imported here."""

from __future__ import annotations

import zipfile
from pathlib import Path

AOTI = "data/aotinductor/"
MODELS = "models/"


def names(path: Path) -> list[str]:
    """The names of what is in the archive, without its top folder; none where it is no sound zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = archive.infolist()
    except (OSError, zipfile.BadZipFile):
        return []
    # Of a file cut short, zipfile may find the directory of an archive inside it, which begins further on.
    if min((info.header_offset for info in inside), default=0) > 0:
        return []
    return [info.filename.partition("/")[2] for info in inside]


def is_program(path: Path) -> bool:
    """Whether the file is a program of torch.export and nothing compiled."""
    inside = names(path)
    return any(n.startswith(MODELS) for n in inside) and not is_package(path)


def is_package(path: Path) -> bool:
    """Whether the file is a package that AOTInductor compiled."""
    return any(n.startswith(AOTI) for n in names(path))
