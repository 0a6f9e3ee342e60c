"""The command line, as a user types it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import qm_toy
from qm.__main__ import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str
    left: set[str]


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run a command in a folder with a toy model and samples; ``left`` is what is new there."""
    qm_toy.make(tmp_path / "net.toy")
    qm_toy.make_data(tmp_path / "data.npz", samples=40)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Outcome:
        before = set(tmp_path.rglob("*"))
        capsys.readouterr()
        try:
            code = main(list(words))
        except SystemExit as e:
            code = int(e.code or 0)
        out, err = capsys.readouterr()
        left = {str(p.relative_to(tmp_path)) for p in set(tmp_path.rglob("*")) - before}
        return Outcome(code, out, err, left)

    return run
