"""A report as a page to look at: one HTML file with everything in it, which opens from disk and fetches nothing."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from qm.errors import NotReady
from qm.file import written
from qm.report import Report

HOW = "pip install 'quantized-model[report]'"
REQUIRES = "matplotlib"


def available() -> bool:
    """Whether the library that draws is installed."""
    try:
        importlib.metadata.version(REQUIRES)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def write(reports: Sequence[Report], place: Path, *, force: bool = False) -> None:
    """Write the page of one report, or of several side by side, whole or not at all.

    Raises:
        NotReady: the library that draws is not installed.
        UsageError: ``place`` is there already without ``force``.
    """
    if not available():
        raise NotReady(f"a page needs {REQUIRES}, which is not installed", hint=HOW)
    from qm.page.document import document

    text = document(reports)
    with written(place, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")
