"""What the tests of every folder share."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qm.__main__ import main


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QM_BLOCK", "QM_TARGETS", "QM_WITH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real models and data sets; the test is skipped where there is none."""
    place = Path(os.environ.get("QM_DATA") or Path(__file__).parents[2] / "shared")
    if not (place / "data").is_dir():
        pytest.skip(f"no models and data sets: QM_DATA is not set and {place} is not there")
    return place


Publish = Callable[..., None]


@pytest.fixture
def publish(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publish]:
    """Install a distribution with a plugin of one module: ``publish("acme", code)``; it is gone after the test."""
    made: list[str] = []

    def install(name: str, code: str, *, distribution: str = "", version: str = "1.0", module: str = "") -> None:
        distribution = distribution or f"qm-{name}"
        module = module or f"plugin_{distribution.replace('-', '_')}"
        place = tmp_path_factory.mktemp("site")
        info = place / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[qm.v1]\n{name} = {module}\n")
        (place / f"{module}.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(str(place))
        made.append(module)

    yield install
    for module in made:
        sys.modules.pop(module, None)


@dataclass(frozen=True)
class Outcome:
    """What a command did; ``left`` are the files that are new."""

    code: int
    out: str
    err: str
    left: set[str]

    def check_refused(self, *words: str, code: int = 2) -> None:
        """It says what is wrong and what to do in place of it, and has written nothing."""
        assert self.code == code, self.err
        assert self.err.startswith("error: ")
        assert "hint: " in self.err
        assert "Traceback" not in self.err
        assert self.left == set()
        for word in words:
            assert word in self.err


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run a command in a folder of its own, as a user types it."""
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
