"""Saturation and spoiled layers explained on ONNX Runtime's real kernels."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

import qm
import qm.target
from qm.diagnosis import Explanation, Question, explain
from qm.numerics import SAFE_SUM
from qm.plugin import LoadJob
from qm_onnx.load import load

ROOT = Path(__file__).parents[2]
CHANNELS = 8


def network(*, bias: float = 0.0) -> ModelProto:
    """Three convolutions and a Gemm; with ``bias`` in the weights, products add up."""
    random = np.random.default_rng(0)

    def weight(*shape: int) -> NDArray[np.float32]:
        return random.normal(bias, 0.2, shape).astype(np.float32)

    weights = {
        "w1": weight(CHANNELS, 3, 3, 3),
        "b1": weight(CHANNELS),
        "w2": weight(CHANNELS, CHANNELS, 3, 3),
        "w3": weight(CHANNELS, CHANNELS, 3, 3),
        "w4": weight(CHANNELS, 10),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="one", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="r1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="two", pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"], name="r2"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], name="three", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c3"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w4"], ["y"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def spoiled() -> ModelProto:
    """The network with one weight a channel of ``head`` so large that the others round away, on a small input."""
    proto = network()
    stored = {t.name: t for t in proto.graph.initializer}
    small, wild = (numpy_helper.to_array(stored[name]).copy() for name in ("w3", "w4"))
    small[0], wild[0] = small[0] * 1e-5, 300.0
    for name, value in (("w3", small), ("w4", wild)):
        stored[name].CopyFrom(numpy_helper.from_array(value, name))
    return proto


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.random.default_rng(1).uniform(0, 1, (40, 3, 8, 8)).astype(np.float32))
    return path


def written(proto: ModelProto, folder: Path) -> Path:
    path = folder / "float.onnx"
    onnx.save(proto, path)
    return path


def made(model: Path, samples: Path, target: str) -> Path:
    artifact = model.with_name("int8.onnx")
    qm.quantize(model, ["onnx.ptq"], data=samples, samples=20, target=target, to=artifact, force=True)
    return artifact


def test_a_spoiled_layer_is_named_first_and_alone(samples: Path, tmp_path: Path) -> None:
    model = written(spoiled(), tmp_path)
    artifact = made(model, samples, "x86-avx2")
    found = explain(Question(artifact=artifact, baseline=model, data=str(samples), times=False))
    assert found.causes[0].layers == ("head",)
    assert found.exclusion is not None
    assert (found.exclusion.layers, found.exclusion.minimal) == (("head",), True)


def test_remedies_are_those_that_the_method_offers(samples: Path, tmp_path: Path) -> None:
    model = written(network(), tmp_path)
    artifact = made(model, samples, "x86-avx2")
    found = explain(Question(artifact=artifact, baseline=model, data=str(samples), times=False, goal_db=1.0))
    tried = {(r.name, r.what) for r in found.remedies}
    assert ("option", "ranges=percentile") in tried
    assert ("activations", "more bits for activations (w8a16)") in tried


def test_full_range_weights_are_a_hazard_and_pair_safe_ones_are_none(samples: Path, tmp_path: Path) -> None:
    model = written(network(bias=0.5), tmp_path)
    full = load(LoadJob(path=made(model, samples, "x86-vnni"))).hazards()
    assert [hazard.layer for hazard in full] == ["one", "two", "three", "head"]
    assert all(f"above {SAFE_SUM}" in hazard.seen for hazard in full)
    assert load(LoadJob(path=made(model, samples, "x86-avx2"))).hazards() == ()


def test_the_pair_bound_is_found_in_every_form_of_integer_layer(build) -> None:
    wide = np.full((4, 6), 100, np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="quantize"),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"], name="product_quant"),
        helper.make_node("Cast", ["i"], ["y"], name="cast", to=TensorProto.FLOAT),
    ]
    (hazard,) = load_proto(build(nodes, {"w": wide})).hazards()
    assert (hazard.layer, hazard.seen) == ("product", "a pair of weights sums to 200, above 128")


def load_proto(proto: ModelProto):
    from qm_onnx.model import OnnxModel

    return OnnxModel(proto)


def test_exact_kernels_watch_layers_too(samples: Path, tmp_path: Path) -> None:
    model = load(LoadJob(path=made(written(network(), tmp_path), samples, "x86-avx2")))
    batch = {"x": np.load(samples)["x"][:1]}
    real, exact = model.run(batch, ["two"]), model.run_exact(batch, ["two"])
    assert exact.keys() == {"y", "two"}
    np.testing.assert_allclose(exact["two"], real["two"], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(qm.target.host().pair_saturates is not False, reason="the kernels of this CPU saturate")
def test_where_kernels_do_not_saturate_the_risk_elsewhere_is_noted(samples: Path, tmp_path: Path) -> None:
    model = written(network(bias=0.5), tmp_path)
    artifact = made(model, samples, "x86-vnni")
    found = explain(Question(artifact=artifact, baseline=model, data=str(samples), times=False, tries=False))
    assert found.saturation is None
    assert any(note.startswith("weights of 4 layers can saturate on CPUs") for note in found.notes)


@pytest.fixture(scope="session")
def avx2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a child process in which ONNX Runtime runs kernels that saturate."""
    if qm.target.host().pair_saturates:
        return dict(os.environ)
    spec = importlib.util.spec_from_file_location("avx2_runtime", ROOT / "benchmarks" / "avx2_runtime.py")
    if spec is None or spec.loader is None or not Path(spec.origin or "").is_file():
        pytest.skip("no AVX2 kernels to run: the benchmarks are not here")
    runtime = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runtime)
    target = tmp_path_factory.mktemp("avx2")
    try:
        runtime.cpu_flags()
        runtime.make(target)
    except runtime.CannotMake as e:
        pytest.skip(f"no AVX2 kernels to run: {e}")
    return dict(runtime.environment(target))


def test_saturation_is_named_first_where_kernels_saturate(avx2: dict[str, str], samples: Path, tmp_path: Path) -> None:
    model = written(network(bias=0.5), tmp_path)
    artifact = made(model, samples, "x86-vnni")
    words = [sys.executable, "-m", "qm", "explain", str(artifact), "--baseline", str(model), "--data", str(samples)]
    done = subprocess.run([*words, "--json", "--no-time"], env=avx2, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = Explanation.model_validate(json.loads(done.stdout))
    assert found.causes[0].name == "saturation"
    assert set(found.causes[0].layers) <= {"one", "two", "three", "head"}
    assert found.saturation is not None and found.saturation.lost_db > 5
    assert "--target" in found.causes[0].next
    safe = next(r for r in found.remedies if r.name == "safe")
    assert safe.gain_db is not None and safe.gain_db > 20
