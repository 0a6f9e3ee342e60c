"""The PyTorch plugin's methods keep the contract, as AOTInductor's packages run them."""

import importlib.metadata

import pytest

from qm.testing import QuantizerContract

for needed in ("torch", "torchao"):
    try:
        importlib.metadata.distribution(needed)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)

pytest_plugins = ["qm.testing"]


class Wide(QuantizerContract):
    """Two layers whose weights are most of the file, whatever the compiled code takes."""

    def model(self, folder):
        import torch
        from torch import nn

        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(4, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16, 256))
        batch = {0: torch.export.Dim("batch")}
        program = torch.export.export(module.eval(), (torch.zeros(2, 4, 4, 4),), dynamic_shapes=(batch,))
        torch.export.save(program, folder / "wide.pt2")
        return folder / "wide.pt2"


class TestPtq(Wide):
    method = "torch.ptq"


class TestDynamic(Wide):
    method = "torch.dynamic"

    def model(self, folder):
        import torch
        from torch import nn

        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512))
        batch = {0: torch.export.Dim("batch")}
        program = torch.export.export(module.eval(), (torch.zeros(2, 64),), dynamic_shapes=(batch,))
        torch.export.save(program, folder / "dense.pt2")
        return folder / "dense.pt2"


class TestWeights(Wide):
    method = "torch.weights"


class TestQat(Wide):
    method = "torch.qat"
    options = {"epochs": 1}  # noqa: RUF012
