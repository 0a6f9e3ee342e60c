"""Files of weights keep the contracts, as far as they concern what does not run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qm.testing import ExporterContract, LoaderContract, QuantizerContract

pytest_plugins = ["qm.testing"]
save_file = pytest.importorskip("safetensors.numpy").save_file


class Weights:
    def model(self, folder: Path) -> Path:
        rng = np.random.default_rng(0)
        names = {"a.10.weight": (24, 64), "a.2.weight": (17, 160), "b.weight": (8, 40)}
        tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in names.items()}
        save_file({**tensors, "a.2.bias": np.zeros(17, np.float32)}, folder / "w.safetensors")
        return folder / "w.safetensors"


class TestLoad(Weights, LoaderContract):
    method = "tensors.load"
    names = ("a.2.weight", "a.10.weight", "b.weight")


class TestSave(Weights, ExporterContract):
    method = "tensors.save"


class TestWeights(Weights, QuantizerContract):
    method = "tensors.weights"
