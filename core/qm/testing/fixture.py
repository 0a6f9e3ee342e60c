"""Fixtures of the conformance kit."""

from __future__ import annotations

import os
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qm.testing.lab import Lab

LOCAL = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(scope="class")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The card, the model and the samples of one contract."""
    subject = request.cls
    return Lab(subject(), tmp_path_factory.mktemp(subject.__name__))


@dataclass
class Isolation:
    """An empty current folder, an empty folder for temporary files, and the network connections that were tried."""

    folder: Path
    temporary: Path
    connections: list[str] = field(default_factory=list)

    def litter(self) -> list[str]:
        """Files left in the current folder or among the temporary ones."""
        return sorted(str(p) for folder in (self.folder, self.temporary) for p in folder.rglob("*"))


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Isolation:
    """Keep a test to itself: no network, no ``QM_*`` variables, a current folder and temporary files of its own.

    ``QM_DATA``, where tests find their data, stays.
    """
    isolation = Isolation(tmp_path / "current", tmp_path / "temporary")
    isolation.folder.mkdir()
    isolation.temporary.mkdir()
    monkeypatch.chdir(isolation.folder)
    monkeypatch.setattr(tempfile, "tempdir", str(isolation.temporary))
    for name in list(os.environ):
        if name.startswith("QM_") and name != "QM_DATA":
            monkeypatch.delenv(name)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name), isolation))
    return isolation


def _guarded(connect: Any, isolation: Isolation) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        # Processes of one machine may talk to each other.
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            isolation.connections.append(str(address))
            raise ConnectionRefusedError(f"the conformance kit allows no connection to {address}")
        return connect(self, address)

    return guarded
