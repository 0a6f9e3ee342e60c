"""The PyTorch plugin keeps the contracts."""

import importlib.metadata
import sys
import textwrap
from pathlib import Path

import pytest

from qm.testing import LoaderContract

for needed in ("torch", "torchao"):
    try:
        importlib.metadata.distribution(needed)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)

pytest_plugins = ["qm.testing"]


class Small:
    def model(self, folder):
        import torch
        from torch import nn

        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 4)
        )
        batch = {0: torch.export.Dim("batch")}
        program = torch.export.export(module.eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=(batch,))
        torch.export.save(program, folder / "small.pt2")
        return folder / "small.pt2"


class TestLoad(Small, LoaderContract):
    method = "torch.load"
    names = ("0", "4")


class TestFactory(LoaderContract):
    method = "torch.factory"
    names = ("0", "4")

    def model(self, folder):
        code = """
            import torch
            from torch import nn

            def make():
                torch.manual_seed(0)
                layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)
                return nn.Sequential(*layers), torch.zeros(2, 3, 8, 8)
        """
        (folder / "contract_nets.py").write_text(textwrap.dedent(code), encoding="utf-8")
        sys.path.append(str(folder))
        return Path("contract_nets:make")
