"""Small models for the tests of qm_torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["TORCHAO_FORCE_SKIP_LOADING_SO_FILES"] = "1"
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.export import Dim, ExportedProgram  # noqa: E402

from qm_torch.model import TorchModel  # noqa: E402


class Small(nn.Module):
    """Convolutions with normalization and bounds, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Conv2d(8, 16, 3, stride=2)
        self.bound = nn.ReLU6()
        self.head = nn.Linear(16, 4)

    def forward(self, image: Any) -> Any:
        return self.head(self.bound(self.body(self.stem(image))).mean((2, 3)))


class Words(nn.Module):
    """A table of words, tied to the layer that gives their logits, with two named outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 12)
        self.dense = nn.Linear(12, 12)
        self.out = nn.Linear(12, 50, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids: Any) -> Any:
        hidden = self.dense(self.table(ids)).relu()
        return {"logits": self.out(hidden), "hidden": hidden}


def program(module: nn.Module, *inputs: Any, free: bool = True, strict: bool = False) -> ExportedProgram:
    """The module exported, for batches of any length where ``free``."""
    shapes = tuple({0: Dim("batch")} for _ in inputs) if free else None
    with torch.no_grad():
        return torch.export.export(module.eval(), inputs, dynamic_shapes=shapes, strict=strict)


def _small() -> ExportedProgram:
    torch.manual_seed(0)
    module = Small()
    module.stem[1].running_mean.normal_()
    module.stem[1].running_var.uniform_(0.5, 2.0)
    return program(module, torch.zeros(2, 3, 8, 8))


@pytest.fixture
def small() -> TorchModel:
    """``Small`` on images of 8 by 8, with statistics that normalization has to use."""
    return TorchModel(_small(), name="small")


@pytest.fixture
def words() -> TorchModel:
    """``Words`` on sentences of 5 words."""
    torch.manual_seed(0)
    return TorchModel(program(Words(), torch.zeros(2, 5, dtype=torch.int64)), name="words")


@pytest.fixture(scope="session")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small`` in a file that nobody may change."""
    path = tmp_path_factory.mktemp("program") / "small.pt2"
    torch.export.save(_small(), path)
    return path


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    """``small`` in a file."""
    return Path(shutil.copy(saved_once, tmp_path / "small.pt2"))


Write = Callable[[str], None]


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """``nets(code)`` writes the module ``nets.py`` into the current folder."""
    import sys
    import textwrap

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # What Python leaves in the folder is not ours.

    def write(code: str) -> None:
        body = "import torch\nfrom torch import nn\n\n" + textwrap.dedent(code)
        (tmp_path / "nets.py").write_text(body, encoding="utf-8")

    return write
