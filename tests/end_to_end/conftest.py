"""The command line, as a user types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qm_toy


@pytest.fixture
def cli(cli: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Run a command in a folder with a toy model and samples."""
    qm_toy.make(tmp_path / "net.toy")
    qm_toy.make_data(tmp_path / "data.npz", samples=40)
    return cli
