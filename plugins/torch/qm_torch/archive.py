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
            return [name.partition("/")[2] for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []


def is_program(path: Path) -> bool:
    """Whether the file is a program of torch.export and nothing compiled."""
    inside = names(path)
    return any(n.startswith(MODELS) for n in inside) and not is_package(path)


def is_package(path: Path) -> bool:
    """Whether the file is a package that AOTInductor compiled."""
    return any(n.startswith(AOTI) for n in names(path))
