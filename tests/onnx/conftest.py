"""Models for the tests of qm_onnx: small ones made here, real ones where they are at hand."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from qm.plugin import LoadJob
from qm_onnx.load import load
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize

Array = NDArray[np.float32]
Build = Callable[..., ModelProto]
"""``build(nodes, {"w": array}, inputs={"x": shape}, outputs=["y"], opset=17)``."""

ROOT = Path(__file__).parents[2]
WHEELS = {"rapidocr-onnxruntime": "rapidocr_onnxruntime/models", "silero-vad": "silero_vad/data"}


@pytest.fixture
def build() -> Build:
    return build_model


def build_model(
    nodes: list[NodeProto],
    weights: dict[str, NDArray[np.generic]],
    *,
    inputs: dict[str, list[int | str]] | None = None,
    outputs: list[str] | None = None,
    opset: int = 17,
    ir_version: int = 8,
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (inputs or {"x": ["N", 4]}).items()],
        [onnx.ValueInfoProto(name=n) for n in outputs or ["y"]],
        [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()],
    )
    for value in graph.output:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def normal(*shape: int, seed: int = 0, scale: float = 0.3) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def network() -> ModelProto:
    """A convolution, a depthwise one, a Gemm, a MatMul and an LSTM, one after another."""
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], name="stem", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu0"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="depthwise", pads=[1] * 4, group=8),
        helper.make_node("Flatten", ["c1"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["g"], name="fc"),
        helper.make_node("Relu", ["g"], ["r2"], name="relu2"),
        helper.make_node("MatMul", ["r2", "w3"], ["m"], name="matmul"),
        helper.make_node("Unsqueeze", ["m", "axis"], ["u"], name="unsqueeze"),
        helper.make_node("LSTM", ["u", "W", "R"], ["y"], name="lstm", hidden_size=16),
    ]
    weights = {
        "w0": normal(8, 3, 3, 3, seed=1),
        "b0": normal(8, seed=2),
        "w1": normal(8, 1, 3, 3, seed=3),
        "w2": normal(128, 12, seed=4),
        "b2": normal(12, seed=5),
        "w3": normal(12, 5, seed=6),
        "axis": np.array([0], np.int64),
        "W": normal(1, 64, 5, seed=7),
        "R": normal(1, 64, 16, seed=8),
    }
    return build_model(nodes, weights, inputs={"x": ["N", 3, 8, 8]})


@pytest.fixture
def proto() -> ModelProto:
    """``network``, in order."""
    return normalize(network())[0]


@pytest.fixture
def model(proto: ModelProto) -> OnnxModel:
    return OnnxModel(proto)


@pytest.fixture
def sample() -> dict[str, Array]:
    return {"x": normal(1, 3, 8, 8, seed=9, scale=1)}


@pytest.fixture
def samples() -> list[dict[str, Array]]:
    return [{"x": normal(1, 3, 8, 8, seed=100 + i, scale=1)} for i in range(8)]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[ModelProto], Path]:
    """Write a model to a file of its own."""

    def save(proto: ModelProto, name: str = "model.onnx") -> Path:
        path = tmp_path / name
        onnx.save(proto, path)
        return path

    return save


def real(name: str) -> Path:
    """A published model: from the shared data, else from a wheel that is installed. The test is skipped without it."""
    shared = Path(os.environ.get("QM_DATA") or ROOT.parent / "shared") / "models" / name
    if shared.is_file():
        return shared
    for wheel, folder in WHEELS.items():
        try:
            path = Path(str(metadata.distribution(wheel).locate_file(f"{folder}/{name}")))
        except metadata.PackageNotFoundError:
            continue
        if path.is_file():
            return path
    pytest.skip(f"{name} is not here: set QM_DATA, or install the package that ships it")


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    return real


@pytest.fixture(scope="session")
def efficientnet_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0; a copy, since some stand damaged on disk."""
    copy = tmp_path_factory.mktemp("efficientnet") / "efficientnet_lite0.onnx"
    sound: Path = script("sound").sound_copy(real("efficientnet_lite0.onnx"), copy)
    return sound


@pytest.fixture
def benchmark() -> Callable[[str], ModuleType]:
    return script


def script(name: str) -> ModuleType:
    """A script of the benchmarks, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def efficientnet(efficientnet_path: Path) -> OnnxModel:
    return load(LoadJob(path=efficientnet_path))
