"""Where a model comes from: a file, a folder, or a function that makes it."""

from __future__ import annotations

import re
from pathlib import Path

from qm.errors import UsageError

FOLDER = "/"
FUNCTION = ":"
"""What stands for folders and functions among the suffixes of a loader."""

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_function(source: Path) -> bool:
    """Whether the source is of the form ``package.module:function``, and no file has that name."""
    return _NAME.fullmatch(str(source)) is not None and not source.exists()


def check_there(source: Path) -> None:
    """Raise UsageError where the source is neither on disk nor the name of a function."""
    if not source.exists() and not is_function(source):
        raise UsageError(f"model {str(source)!r} does not exist", hint="Check the path.")


def suffix(source: Path) -> str:
    """The suffix by which loaders know the source."""
    if source.is_dir():
        return FOLDER
    return FUNCTION if is_function(source) else source.suffix.lower()


def stem(source: Path) -> str:
    """What files that are made of the source are called, without a suffix."""
    if is_function(source):
        return str(source).rpartition(":")[2].rpartition(".")[2]
    return source.name if source.is_dir() else source.stem
