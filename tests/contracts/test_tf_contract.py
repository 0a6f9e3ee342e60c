"""The TensorFlow and LiteRT plugin keeps the contracts."""

import importlib.metadata
import shutil
from pathlib import Path

import pytest

from qm.testing import BenchmarkContract, ExporterContract, LoaderContract, PlannerContract, QuantizerContract

for needed in ("ai-edge-litert", "ai-edge-quantizer"):
    try:
        importlib.metadata.distribution(needed)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)

pytest_plugins = ["qm.testing"]

HAS_TENSORFLOW = "tensorflow" in importlib.metadata.packages_distributions()
MODEL = Path(__file__).parents[1] / "tf" / "models" / "small.tflite"


class Small:
    def model(self, folder):
        return Path(shutil.copy(MODEL, folder / "small.tflite"))


class TestLoad(Small, LoaderContract):
    method = "tf.load"
    names = ("stem_1", "depthwise_1", "pointwise_1", "down_1", "hidden_1", "logits_1")


class TestSave(Small, ExporterContract):
    method = "tf.save"


class TestRun(Small, BenchmarkContract):
    method = "tf.run"


class TestPtq(Small, QuantizerContract):
    method = "tf.ptq"
    # Four bits round to 15 steps: about 20 dB a layer, and five layers have them.
    least_sqnr_db = 12.0


@pytest.mark.skipif(not HAS_TENSORFLOW, reason="TensorFlow is not installed")
class TestQat(Small, QuantizerContract):
    method = "tf.qat"
    options = {"epochs": "1"}  # noqa: RUF012  As the kit's own subjects have it.
    least_sqnr_db = 12.0


class TestProtectTf(Small, PlannerContract):
    """A planner of the toy's plugin, which knows no framework, plans for LiteRT."""

    method = "toy.protect"
    quantizer = "tf.ptq"
