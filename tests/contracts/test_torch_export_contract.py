"""What PyTorch programs are written as keeps the contracts: packages, .pte files, float ONNX files."""

import importlib.metadata
import shutil
from pathlib import Path

import pytest

from qm.plugin import Artifact, ExportJob
from qm.testing import BenchmarkContract, ExporterContract, LoaderContract

for needed in ("torch", "torchao"):
    try:
        importlib.metadata.distribution(needed)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)

pytest_plugins = ["qm.testing"]


def needs(*distributions):
    """A mark that skips where one of the distributions is not installed."""
    installed = {d.metadata["Name"].lower() for d in importlib.metadata.distributions() if d.metadata["Name"]}
    lacking = [name for name in distributions if name not in installed]
    return pytest.mark.skipif(bool(lacking), reason=f"{', '.join(lacking)} is not installed")


class Small:
    """A convolution and a linear layer."""

    def program(self, folder):
        import torch
        from torch import nn

        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 4))
        batch = {0: torch.export.Dim("batch", max=16)}
        program = torch.export.export(module.eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=(batch,))
        torch.export.save(program, folder / "small.pt2")
        return folder / "small.pt2"

    def model(self, folder):
        return self.program(folder)


class Once:
    """Compiling takes long: what was compiled from the same model before is copied, but where a second time matters."""

    def export(self, lab, folder, model=None):
        if model is not None or folder.name == "two":
            return super().export(lab, folder, model)
        if not hasattr(lab, "first"):
            (lab.folder / "first").mkdir()
            lab.first = super().export(lab, lab.folder / "first")
        place = Path(shutil.copy(lab.first.path, folder / lab.first.path.name))
        return Artifact(path=place, format=lab.first.format)


class Compiled(Small):
    """The same, written by an exporter."""

    suffix = ""

    def model(self, folder):
        from qm.catalog import Catalog
        from qm.plugin import LoadJob

        catalog = Catalog()
        source = self.program(folder)
        loader = catalog.loader(source).card
        model = loader.implementation()(LoadJob(path=source))
        place = folder / f"compiled{self.suffix}"
        catalog.exporter("torch", self.suffix).card.implementation()(ExportJob(model=model, path=place))
        return place


class TestPackage(Once, Small, ExporterContract):
    method = "torch.package"


class TestLoadPackage(Compiled, LoaderContract):
    method = "torch.load-package"
    suffix = ".pt2"
    names = ("0", "3")


class TestRunPackage(Compiled, BenchmarkContract):
    method = "torch.run-package"
    suffix = ".pt2"


@needs("executorch")
class TestPte(Once, Small, ExporterContract):
    method = "torch.pte"


@needs("executorch")
class TestLoadPte(Compiled, LoaderContract):
    method = "torch.load-pte"
    suffix = ".pte"
    names = ("0", "3")


@needs("executorch")
class TestRunPte(Compiled, BenchmarkContract):
    method = "torch.run-pte"
    suffix = ".pte"


@needs("onnx", "onnxscript", "onnxruntime")
class TestOnnx(Small, ExporterContract):
    method = "torch.onnx"
