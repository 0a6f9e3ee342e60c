"""No pair of products saturates: a case for each kind of kernel, run by the kernels that can."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

import qm.target
from qm.numerics import SAFE_SUM, worst_pair_sum
from qm.plugin import Batch, Notes, Plan, QuantizeJob, Scheme
from qm_onnx.model import OnnxModel
from qm_onnx.ptq import quantize

Floats = NDArray[np.float32]
Outputs = dict[str, NDArray[np.float32]]
ROOT = Path(__file__).parents[2]

CASES: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, object]]] = {
    "conv, even channels": ("Conv", (1, 8, 7, 7), (24, 8, 3, 3), {"pads": [1] * 4}),
    "conv, odd channels": ("Conv", (1, 3, 7, 7), (16, 3, 3, 3), {}),
    "conv, one channel": ("Conv", (1, 1, 7, 7), (16, 1, 3, 3), {}),
    "conv, grouped": ("Conv", (1, 12, 7, 7), (8, 6, 3, 3), {"group": 2}),
    "conv, grouped, odd": ("Conv", (1, 15, 7, 7), (10, 3, 3, 3), {"group": 5}),
    "conv, pointwise": ("Conv", (1, 33, 5, 5), (16, 33, 1, 1), {}),
    "conv, one dimension": ("Conv", (1, 6, 20), (8, 6, 5), {}),
    "depthwise, multiplied": ("Conv", (1, 8, 7, 7), (16, 1, 3, 3), {"group": 8}),
    "matmul": ("MatMul", (3, 64), (64, 20), {}),
    "matmul, odd": ("MatMul", (3, 17), (17, 20), {}),
    "matmul, one row": ("MatMul", (1, 17), (17, 5), {}),
    "gemm": ("Gemm", (2, 33), (33, 12), {}),
    "gemm, transposed": ("Gemm", (2, 33), (12, 33), {"transB": 1}),
}
DEPTHWISE = {"depthwise": ("Conv", (1, 16, 9, 9), (16, 1, 3, 3), {"group": 16, "pads": [1] * 4})}

CHILD = """
import sys, numpy as np, onnxruntime as ort
from pathlib import Path
made = {}
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    x = np.load(path.with_suffix(".npy"))
    for exact in ("0", "1"):
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        settings.add_session_config_entry("session.x64quantprecision", exact)
        session = ort.InferenceSession(str(path), settings, ["CPUExecutionProvider"])
        made[path.stem + ("/exact" if exact == "1" else "/fast")] = session.run(None, {"x": x})[0]
np.savez(sys.argv[2], **made)
"""


class Positive:
    """Samples near the top of 0..1, where a pair of large weights is at its worst."""

    labels = None

    def __init__(self, shape: tuple[int, ...], count: int = 4) -> None:
        random = np.random.default_rng(0)
        self.batches: list[Batch] = [{"x": random.uniform(0.7, 1, shape).astype(np.float32)} for _ in range(count)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def one_layer(kind: str, shape: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, object]) -> ModelProto:
    random = np.random.default_rng(1)
    w = random.uniform(0.8, 1, weight).astype(np.float32)
    inputs = ["x", "w"] + (["b"] if kind == "Gemm" else [])
    b = random.normal(size=weight[0] if attributes.get("transB") else weight[-1]).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, ["y"], name="layer", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, "w"), *([numpy_helper.from_array(b, "b")] if kind == "Gemm" else [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantized(
    case: tuple[str, tuple[int, ...], tuple[int, ...], dict[str, object]], target: str, scheme: str
) -> OnnxModel:
    data, plan = Positive(case[1]), Plan({"layer": Scheme.parse(scheme)})
    job = QuantizeJob(model=OnnxModel(one_layer(*case)), plan=plan, data=data, target=qm.target.find(target))
    return quantize(job)


def integers(model: OnnxModel) -> NDArray[np.int8]:
    tensors = [t for t in model.native.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1]
    return numpy_helper.to_array(tensors[0])


@pytest.fixture(scope="session")
def avx2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a child process in which ONNX Runtime runs kernels that saturate."""
    if qm.target.host().pair_saturates:
        return dict(os.environ)
    runtime = _benchmark("avx2_runtime")
    target = tmp_path_factory.mktemp("avx2")
    try:
        runtime.cpu_flags()
        runtime.make(target)
    except runtime.CannotMake as e:
        pytest.skip(f"no AVX2 kernels to run: {e}")
    return dict(runtime.environment(target))


def _benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    if spec is None or spec.loader is None or not Path(spec.origin or "").is_file():
        pytest.skip("the benchmarks are not here")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def ran(avx2: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """What each case gives on kernels that saturate, as they are and with full precision forced."""
    folder = tmp_path_factory.mktemp("cases")
    for name, case in {**CASES, **DEPTHWISE}.items():
        for target in ("x86-avx2", "x86-vnni"):
            for scheme in ("w8a8", "w8a8t"):
                path = folder / f"{name} {target} {scheme}.onnx"
                onnx.save(quantized(case, target, scheme).native, path)
                np.save(path.with_suffix(".npy"), next(iter(Positive(case[1])))["x"])
    results = folder / "results.npz"
    done = subprocess.run([sys.executable, "-c", CHILD, folder, results], env=avx2, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(results) as loaded:
        return dict(loaded)


schemes = pytest.mark.parametrize("scheme", ["w8a8", "w8a8t"])
cases = pytest.mark.parametrize("name", CASES)


@cases
@schemes
def test_weights_for_avx2_are_exact_on_kernels_that_saturate(ran: Outputs, name: str, scheme: str) -> None:
    np.testing.assert_array_equal(ran[f"{name} x86-avx2 {scheme}/fast"], ran[f"{name} x86-avx2 {scheme}/exact"])


@cases
@schemes
def test_full_range_weights_saturate_there(ran: Outputs, name: str, scheme: str) -> None:
    fast, exact = ran[f"{name} x86-vnni {scheme}/fast"], ran[f"{name} x86-vnni {scheme}/exact"]
    assert np.abs(fast - exact).max() > 0.1 * np.abs(exact).max()


@schemes
def test_a_depthwise_convolution_at_full_range_is_exact_there(ran: Outputs, scheme: str) -> None:
    np.testing.assert_array_equal(ran[f"depthwise x86-avx2 {scheme}/fast"], ran[f"depthwise x86-avx2 {scheme}/exact"])


@pytest.mark.skipif(qm.target.host().pair_saturates is not False, reason="the kernels of this CPU saturate")
@cases
def test_weights_for_avx2_give_the_same_on_kernels_that_do_not_saturate(ran: Outputs, name: str) -> None:
    case = CASES[name]
    here = quantized(case, "x86-avx2", "w8a8").run(next(iter(Positive(case[1]))))["y"]
    np.testing.assert_allclose(here, ran[f"{name} x86-avx2 w8a8/fast"], rtol=1e-6)


def test_depthwise_weights_use_the_full_range_for_avx2() -> None:
    assert np.abs(integers(quantized(DEPTHWISE["depthwise"], "x86-avx2", "w8a8"))).max() == 127


@cases
def test_weights_for_vnni_use_the_full_range(name: str) -> None:
    assert np.abs(integers(quantized(CASES[name], "x86-vnni", "w8a8"))).max() == 127


def test_weights_for_a_target_of_which_nothing_is_known_are_pair_safe() -> None:
    notes = Notes()
    case = CASES["matmul"]
    job = QuantizeJob(
        model=OnnxModel(one_layer(*case)),
        plan=Plan({"layer": Scheme.parse("w8a8")}),
        data=Positive(case[1]),
        target=qm.target.find("arm-neon"),
        notes=notes,
    )
    assert worst_pair_sum(integers(quantize(job)).T) <= SAFE_SUM
    assert "is not known" in notes[0]


def test_the_notes_say_which_layers_are_pair_safe_and_why() -> None:
    notes = Notes()
    case = CASES["matmul"]
    data, plan = Positive(case[1]), Plan({"layer": Scheme.parse("w8a8")})
    target = qm.target.find("x86-avx2")
    quantize(QuantizeJob(model=OnnxModel(one_layer(*case)), plan=plan, data=data, target=target, notes=notes))
    assert list(notes) == ["pair-safe weights in 1 layer: kernels of x86-avx2 add pairs of products in 16 bits"]
