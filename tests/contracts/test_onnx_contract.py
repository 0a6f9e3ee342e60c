"""The ONNX plugin keeps the contracts."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest

from qm.testing import BenchmarkContract, ExporterContract, LoaderContract, PlannerContract, QuantizerContract

try:
    importlib.metadata.distribution("onnx")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("onnx is not installed", allow_module_level=True)

import onnx
from onnx import TensorProto, helper, numpy_helper

pytest_plugins = ["qm.testing"]


def make(path: Path) -> Path:
    """Write convolution, batch norm, ReLU, convolution, ReLU, MatMul, Add, ReLU, Gemm."""
    rng = np.random.default_rng(0)
    arrays = {
        "conv1.w": rng.normal(0, (2 / 36) ** 0.5, size=(16, 4, 3, 3)),
        "bn.scale": rng.uniform(0.5, 1.5, size=16),
        "bn.bias": rng.normal(0, 0.1, size=16),
        "bn.mean": rng.normal(0, 0.1, size=16),
        "bn.var": rng.uniform(0.5, 1.5, size=16),
        "conv2.w": rng.normal(0, (2 / 144) ** 0.5, size=(32, 16, 3, 3)),
        "conv2.b": rng.normal(0, 0.1, size=32),
        "matmul.w": rng.normal(0, (2 / 512) ** 0.5, size=(512, 128)),
        "matmul.b": rng.normal(0, 0.1, size=128),
        "gemm.w": rng.normal(0, (1 / 128) ** 0.5, size=(10, 128)),
        "gemm.b": rng.normal(0, 0.1, size=10),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv1.w"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["n1"], name="bn"),
        helper.make_node("Relu", ["n1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "conv2.w", "conv2.b"], ["c2"], name="conv2", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("Flatten", ["r2"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "matmul.w"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "matmul.b"], ["a"], name="add"),
        helper.make_node("Relu", ["a"], ["r3"], name="relu3"),
        helper.make_node("Gemm", ["r3", "gemm.w", "gemm.b"], ["y"], name="gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


class Small:
    def model(self, folder):
        return make(folder / "small.onnx")


class TestLoad(Small, LoaderContract):
    method = "onnx.load"
    names = ("conv1", "conv2", "matmul", "gemm")


class TestSave(Small, ExporterContract):
    method = "onnx.save"


class TestRun(Small, BenchmarkContract):
    method = "onnx.run"


class TestPtq(Small, QuantizerContract):
    method = "onnx.ptq"
    least_sqnr_db = 20.0


class TestDynamic(Small, QuantizerContract):
    method = "onnx.dynamic"
    least_sqnr_db = 20.0


class TestWeights(Small, QuantizerContract):
    method = "onnx.weights"
    # Four bits round to 15 steps: about 20 dB a layer, and two layers have them.
    least_sqnr_db = 15.0


class TestFp16(Small, QuantizerContract):
    method = "onnx.fp16"
    least_sqnr_db = 50.0


class TestProtectOnnx(Small, PlannerContract):
    """A planner of the toy's plugin, which knows no framework, plans for ONNX."""

    method = "toy.protect"
    quantizer = "onnx.dynamic"
