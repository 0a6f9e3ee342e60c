"""Static quantization by onnx.ptq."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

import qm.target
from qm.numerics import sqnr_db
from qm.plugin import (
    Array,
    Artifact,
    Batch,
    BenchmarkJob,
    LoadJob,
    Notes,
    Plan,
    QuantizeJob,
    Scheme,
    Unsupported,
    UsageError,
)
from qm.testing import Drawn
from qm_onnx.load import load
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize
from qm_onnx.option import PtqOptions
from qm_onnx.ptq import quantize
from qm_onnx.session import open_session

Build = Callable[..., ModelProto]
VNNI = qm.target.find("x86-vnni")
AVX2 = qm.target.find("x86-avx2")


def normal(*shape: int, seed: int = 0, scale: float = 0.3) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def node(kind: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"{output}_{kind.lower()}", **attributes)


def data_for(model: OnnxModel, count: int = 8, scale: float = 1.0) -> Drawn:
    shapes = {s.name: tuple(n or 1 for n in s.shape) for s in model.inputs()}
    return Drawn([{n: normal(*s, seed=50 + i, scale=scale) for n, s in shapes.items()} for i in range(count)])


def run(
    model: OnnxModel, schemes: dict[str, str] | str = "w8a8", *, data: Drawn | None = None, **options: object
) -> OnnxModel:
    """The model quantized, all layers to one scheme where ``schemes`` is a text."""
    plan = {f.name: schemes for f in model.layers() if f.kind != "LSTM"} if isinstance(schemes, str) else schemes
    job = QuantizeJob(
        model=model,
        plan=Plan({name: Scheme.parse(text) for name, text in plan.items()}),
        data=data or data_for(model),
        target=VNNI,
        options=PtqOptions.model_validate(options),
    )
    return quantize(job)


def kinds(model: OnnxModel) -> list[str]:
    return [n.op_type for n in model.native.graph.node]


def kernels(model: OnnxModel, tmp_path: Path) -> list[str]:
    """The operators that ONNX Runtime makes of the graph."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(model.native.SerializeToString(), settings, ["CPUExecutionProvider"])
    return [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]


def error_db(before: OnnxModel, after: OnnxModel, batches: Drawn) -> float:
    pairs = [(before.run(b), after.run(b)) for b in batches]
    both = [np.concatenate([r[i][k].ravel() for r in pairs for k in sorted(r[i])]) for i in (0, 1)]
    return sqnr_db(*both)


@pytest.fixture
def residual(build: Build) -> OnnxModel:
    """Convolutions with a residual sum, pooled, and a Gemm."""
    nodes = [
        node("Conv", "x w0 b0", "c0", pads=[1] * 4),
        node("Relu", "c0", "r0"),
        node("Conv", "r0 w1 b1", "c1", pads=[1] * 4),
        node("Add", "c1 r0", "a1"),
        node("Relu", "a1", "r1"),
        node("GlobalAveragePool", "r1", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w2 b2", "y"),
    ]
    weights = {"w0": normal(8, 3, 3, 3), "b0": normal(8), "w1": normal(8, 8, 3, 3), "b1": normal(8)}
    weights |= {"w2": normal(8, 10), "b2": normal(10)}
    return OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 3, 8, 8]}))[0])


@pytest.mark.parametrize("scheme", ["w8a8", "w8a8t", "w8a16", "w8a16t"])
def test_each_layer_comes_out_in_the_scheme_asked_for(residual: OnnxModel, scheme: str) -> None:
    assert {str(s) for s in run(residual, scheme).schemes().values()} == {scheme}


def test_names_of_layers_outlive_quantization(residual: OnnxModel) -> None:
    assert [layer.name for layer in run(residual).layers()] == [layer.name for layer in residual.layers()]


@pytest.mark.parametrize(("scheme", "least"), [("w8a8", 30), ("w8a8t", 25), ("w8a16", 35)])
def test_the_outputs_stay_close(residual: OnnxModel, scheme: str, least: float) -> None:
    assert error_db(residual, run(residual, scheme), data_for(residual)) > least


def test_an_empty_plan_changes_nothing(residual: OnnxModel) -> None:
    made = run(residual, {})
    assert made.native.SerializeToString() == residual.native.SerializeToString()


def test_a_layer_left_out_of_the_plan_stays_in_float(residual: OnnxModel) -> None:
    made = run(residual, {"c1_conv": "w8a8"})
    assert {n: str(s) for n, s in made.schemes().items()} == {"c0_conv": "float", "c1_conv": "w8a8", "y_gemm": "float"}
    stored = {t.name: numpy_helper.to_array(t) for t in made.native.graph.initializer}
    np.testing.assert_array_equal(stored["w0"], normal(8, 3, 3, 3))


@pytest.mark.parametrize("order", ["w8a8 w8a16 float", "w8a16 w8a8 w8a16", "float w8a16t w8a8", "w8a8t w8a8 w8a16"])
def test_schemes_mix_in_one_plan(residual: OnnxModel, order: str) -> None:
    asked = dict(zip(("c0_conv", "c1_conv", "y_gemm"), order.split(), strict=True))
    made = run(residual, asked)
    assert {n: str(s) for n, s in made.schemes().items()} == asked
    assert error_db(residual, made, data_for(residual)) > 25


def test_a_tensor_with_readers_of_both_widths_has_a_pair_for_each(build: Build) -> None:
    nodes = [node("Conv", "x w0", "p"), node("Conv", "x w1", "q"), node("Add", "p q", "y")]
    weights = {"w0": normal(4, 3, 1, 1), "w1": normal(4, 3, 1, 1, seed=1)}
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 3, 8, 8]}))[0])
    made = run(model, {"p_conv": "w8a8", "q_conv": "w8a16"})
    assert {n: str(s) for n, s in made.schemes().items()} == {"p_conv": "w8a8", "q_conv": "w8a16"}
    assert "Identity" not in kinds(made)
    assert sum(n.op_type == "QuantizeLinear" and n.input[0] == "x" for n in made.native.graph.node) == 2


def test_sixteen_bit_activations_are_finer_than_eight(residual: OnnxModel) -> None:
    data = data_for(residual)
    assert error_db(residual, run(residual, "w8a16"), data) > error_db(residual, run(residual, "w8a8"), data)


def test_convolutions_and_the_sum_between_them_run_on_integer_kernels(build: Build, tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w0", "c0"),
        node("Relu", "c0", "r0"),
        node("Conv", "r0 w1", "c1", pads=[1] * 4),
        node("Add", "c1 r0", "a"),
        node("Conv", "a w2", "y"),
    ]
    weights = {"w0": normal(8, 3, 1, 1), "w1": normal(8, 8, 3, 3), "w2": normal(4, 8, 1, 1)}
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 3, 8, 8]}))[0])
    made = kernels(run(model), tmp_path)
    assert sorted(set(made) - {"Transpose"}) == ["DequantizeLinear", "QLinearAdd", "QLinearConv", "QuantizeLinear"]
    assert made.count("QuantizeLinear") == made.count("DequantizeLinear") == 1


@pytest.mark.parametrize("opset", [17, 18])
def test_a_mean_over_the_picture_runs_on_an_integer_kernel(build: Build, tmp_path: Path, opset: int) -> None:
    mean = node("ReduceMean", "c", "m", axes=[2, 3]) if opset < 18 else node("ReduceMean", "c axes", "m")
    nodes = [node("Conv", "x w", "c"), mean, node("Conv", "m v", "y")]
    weights = {"w": normal(8, 3, 1, 1), "v": normal(4, 8, 1, 1), "axes": np.array([-1, 2], np.int64)}
    weights = weights if opset >= 18 else {k: w for k, w in weights.items() if k != "axes"}
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 3, 8, 8]}, opset=opset))[0])
    made = run(model)
    assert "QLinearGlobalAveragePool" in kernels(made, tmp_path)
    assert error_db(model, made, data_for(model)) > 25


def test_a_sum_that_no_integer_kernel_reads_stays_in_float(build: Build) -> None:
    nodes = [node("Conv", "x w0", "c0"), node("Conv", "x w1", "c1"), node("Add", "c0 c1", "y")]
    weights = {"w0": normal(4, 3, 1, 1), "w1": normal(4, 3, 1, 1, seed=1)}
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 3, 8, 8]}))[0])
    assert kinds(run(model))[-1] == "Add"


def test_a_product_leaves_its_kernel_in_float(residual: OnnxModel, tmp_path: Path) -> None:
    made = run(residual)
    assert made.native.graph.output[0].name == "y"
    assert [n.op_type for n in made.native.graph.node if "y" in n.output] == ["Gemm"]
    assert "QGemm" in kernels(made, tmp_path)


def test_what_stays_in_float_reads_the_float_tensor(build: Build) -> None:
    nodes = [node("Sigmoid", "x", "s"), node("MatMul", "s w", "m"), node("Mul", "m s", "y")]
    model = OnnxModel(normalize(build(nodes, {"w": normal(4, 4)}, inputs={"x": [2, 4]}))[0])
    made = run(model)
    assert next(n for n in made.native.graph.node if n.op_type == "Mul").input[1] == "s"


def test_a_relu_becomes_part_of_the_range_before_it(residual: OnnxModel) -> None:
    made = run(residual)
    assert "r0_relu" not in {n.name for n in made.native.graph.node}
    zero = next(t for t in made.native.graph.initializer if t.name == "r0_zero_point")
    assert numpy_helper.to_array(zero) == 0


def test_a_relu_that_shares_its_input_keeps_its_effect(build: Build) -> None:
    nodes = [node("Gemm", "x w", "g"), node("Relu", "g", "r"), node("Add", "g r", "y")]
    model = OnnxModel(normalize(build(nodes, {"w": normal(4, 6)}, inputs={"x": [1, 4]}))[0])
    assert error_db(model, run(model), data_for(model)) > 30


def test_hidden_layers_joined_by_relu_stay_right(build: Build) -> None:
    nodes = [node("Gemm", "x w", "g"), node("Relu", "g", "r"), node("Gemm", "r v", "h"), node("Sub", "h r", "y")]
    model = OnnxModel(normalize(build(nodes, {"w": normal(4, 6), "v": normal(6, 6)}, inputs={"x": [1, 4]}))[0])
    assert error_db(model, run(model), data_for(model)) > 30


@pytest.mark.parametrize(
    ("nodes", "weights", "shape"),
    [
        ([node("MatMul", "x w", "y")], {"w": normal(5, 7)}, [2, 3, 5]),
        ([node("MatMul", "w x", "y")], {"w": normal(7, 5)}, [5, 3]),
        ([node("MatMul", "x w", "y")], {"w": normal(5)}, [2, 5]),
        ([node("Gemm", "x w", "y", transB=1, alpha=0.5)], {"w": normal(7, 5)}, [2, 5]),
        ([node("Gemm", "x w b", "y", beta=0.5)], {"w": normal(5, 7), "b": normal(7)}, [2, 5]),
        ([node("Gemm", "x w b", "y", alpha=0.5, beta=2.0)], {"w": normal(5, 7), "b": normal(7)}, [2, 5]),
        ([node("Gemm", "x w", "y", transA=1)], {"w": normal(5, 7)}, [5, 2]),
        ([node("ConvTranspose", "x w b", "y", group=2)], {"w": normal(4, 3, 3, 3), "b": normal(6)}, [1, 4, 5, 5]),
        ([node("Conv", "x w", "y", group=2)], {"w": normal(6, 2, 3, 3)}, [1, 4, 5, 5]),
        ([node("Conv", "x w b", "y")], {"w": normal(6, 2, 3, 3, 3), "b": normal(6)}, [1, 2, 5, 5, 5]),
    ],
    ids=["matmul", "left", "vector", "gemm-t", "gemm-beta", "gemm-alpha", "gemm-ta", "transposed", "grouped", "3d"],
)
@pytest.mark.parametrize("scheme", ["w8a8", "w8a8t", "w8a16"])
def test_every_form_of_layer_stays_right(
    build: Build, nodes: list[NodeProto], weights: dict[str, Array], shape: list[int], scheme: str
) -> None:
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": shape}))[0])
    assert len(model.layers()) == 1
    assert error_db(model, run(model, scheme), data_for(model)) > 30


@pytest.mark.parametrize("scheme", ["w8a8t", "w8a16"])
def test_stacked_weights_stay_right(build: Build, scheme: str) -> None:
    nodes = [node("MatMul", "x w", "y")]
    model = OnnxModel(normalize(build(nodes, {"w": normal(3, 5, 7)}, inputs={"x": [3, 2, 5]}))[0])
    assert error_db(model, run(model, scheme), data_for(model)) > 30


def test_stacked_weights_are_refused_a_scale_per_channel(build: Build) -> None:
    nodes = [node("MatMul", "x w", "y")]
    model = OnnxModel(normalize(build(nodes, {"w": normal(3, 5, 7)}, inputs={"x": [3, 2, 5]}))[0])
    with pytest.raises(Unsupported, match=r"stacked weights.*\n.*w8a8t"):
        run(model)


def test_weights_on_the_left_of_a_gemm_are_refused(build: Build) -> None:
    model = OnnxModel(normalize(build([node("Gemm", "w x", "y")], {"w": normal(7, 5)}, inputs={"x": [5, 3]}))[0])
    with pytest.raises(Unsupported, match="weights on the left"):
        run(model)


def test_the_bias_of_a_channel_without_weights_survives(build: Build) -> None:
    w = normal(4, 3, 1, 1)
    w[2] = 0
    bias = np.array([0.1, 0.2, 0.00123, 0.4], np.float32)
    model = OnnxModel(
        normalize(build([node("Conv", "x w b", "y")], {"w": w, "b": bias}, inputs={"x": [1, 3, 4, 4]}))[0]
    )
    made = run(model)
    stored = {t.name: numpy_helper.to_array(t) for t in made.native.graph.initializer}
    bias_scale, bias_q = stored["b_quantized_scale"], stored["b_quantized"]
    assert bias_q[2] * bias_scale[2] == pytest.approx(0.00123, rel=0.02)


def test_all_zero_weights_give_the_bias(build: Build) -> None:
    weights = {"w": np.zeros((4, 3, 1, 1), np.float32), "b": np.ones(4, np.float32)}
    model = OnnxModel(normalize(build([node("Conv", "x w b", "y")], weights, inputs={"x": [1, 3, 4, 4]}))[0])
    np.testing.assert_allclose(run(model).run(data_for(model)[0])["y"], 1, atol=0.02)


def test_a_weight_that_a_float_operation_reads_too_stays_float_for_it(build: Build) -> None:
    nodes = [node("MatMul", "x w", "m"), node("Add", "m w", "y")]
    model = OnnxModel(normalize(build(nodes, {"w": normal(4, 4)}, inputs={"x": [4, 4]}))[0])
    made = run(model)
    stored = {t.name: t for t in made.native.graph.initializer}
    add = next(n for n in made.native.graph.node if n.op_type == "Add")
    assert stored[add.input[1]].data_type == TensorProto.FLOAT


def test_tied_layers_share_one_stored_weight(build: Build) -> None:
    nodes = [node("MatMul", "x w", "m"), node("Relu", "m", "r"), node("MatMul", "r w", "y")]
    model = OnnxModel(normalize(build(nodes, {"w": normal(4, 4)}, inputs={"x": [2, 4]}))[0])
    made = run(model)
    assert sum(t.data_type == TensorProto.INT8 and len(t.dims) == 2 for t in made.native.graph.initializer) == 1
    assert error_db(model, made, data_for(model)) > 30


def test_a_model_of_opset_11_is_quantized_per_channel(build: Build) -> None:
    proto = build([node("Conv", "x w", "y")], {"w": normal(4, 3, 3, 3)}, inputs={"x": [1, 3, 8, 8]}, opset=11)
    assert [str(s) for s in run(OnnxModel(normalize(proto)[0])).schemes().values()] == ["w8a8"]


def test_missing_shapes_do_no_harm(residual: OnnxModel) -> None:
    proto = ModelProto()
    proto.CopyFrom(residual.native)
    del proto.graph.value_info[:]
    assert {str(s) for s in run(OnnxModel(proto)).schemes().values()} == {"w8a8"}


def test_weights_in_a_file_of_their_own_are_found(residual: OnnxModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    proto = ModelProto()
    proto.CopyFrom(residual.native)
    onnx.save(proto, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    model = OnnxModel(onnx.load(path, load_external_data=False), source=path)
    assert run(model).native.SerializeToString() == run(residual).native.SerializeToString()


def test_the_given_model_is_left_unchanged(residual: OnnxModel) -> None:
    before = residual.native.SerializeToString(deterministic=True)
    run(residual, {"c0_conv": "w8a16", "c1_conv": "w8a8"})
    assert residual.native.SerializeToString(deterministic=True) == before


def test_the_same_request_gives_the_same_bytes(residual: OnnxModel, tmp_path: Path) -> None:
    onnx.save(residual.native, tmp_path / "model.onnx")
    code = (
        "import sys, hashlib, numpy as np, onnx, qm.target\n"
        "from qm.plugin import *\nfrom qm_onnx.model import OnnxModel\nfrom qm_onnx.ptq import quantize\n"
        "m = OnnxModel(onnx.load(sys.argv[1]))\n"
        "data = [{'x': np.random.default_rng(i).standard_normal((1, 3, 8, 8)).astype(np.float32)} for i in range(4)]\n"
        "plan = Plan({l.name: Scheme.parse('w8a8') for l in m.layers()})\n"
        "q = quantize(QuantizeJob(model=m, plan=plan, data=data, target=qm.target.find('x86-avx2')))\n"
        "print(hashlib.sha256(q.native.SerializeToString()).hexdigest())\n"
    )
    seen = set()
    for seed in ("1", "2"):
        child = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "model.onnx"],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        )
        assert child.returncode == 0, child.stderr
        assert child.stderr == ""
        seen.add(child.stdout)
    assert len(seen) == 1


def test_nothing_is_left_in_the_current_folder(
    residual: OnnxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    run(residual)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_an_interrupt_leaves_nothing_behind(
    residual: OnnxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Drawn):
        def __iter__(self) -> Iterator[Batch]:
            yield self[0]
            raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = residual.native.SerializeToString()
    with pytest.raises(KeyboardInterrupt):
        run(residual, data=Interrupted(data_for(residual)))
    assert list(tmp_path.rglob("*")) == []
    assert residual.native.SerializeToString() == before


def test_data_is_needed(residual: OnnxModel) -> None:
    plan = Plan({"c0_conv": Scheme.parse("w8a8")})
    with pytest.raises(UsageError, match="needs samples"):
        quantize(QuantizeJob(model=residual, plan=plan, target=VNNI))


@pytest.mark.parametrize("scheme", ["w4g32", "w8d8", "f16", "w8"])
def test_other_schemes_are_refused(residual: OnnxModel, scheme: str) -> None:
    with pytest.raises(Unsupported, match=f"no scheme '{scheme}'"):
        run(residual, scheme)


def test_another_kind_of_layer_is_refused(model: OnnxModel) -> None:
    with pytest.raises(Unsupported, match="does not quantize LSTM layers such as 'lstm'"):
        run(model, {"lstm": "w8a8"})


def test_a_layer_inside_control_flow_is_refused_with_a_way_out(build: Build) -> None:
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["b"], name="product")],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("ReduceMax", "x", "m", keepdims=0),
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch),
    ]
    model = OnnxModel(normalize(build(nodes, {"w": normal(4, 4)}, inputs={"x": [2, 4]}))[0])
    with pytest.raises(Unsupported, match=r"inside control flow.*\n.*onnx\.dynamic"):
        run(model)


def test_operators_can_be_none(residual: OnnxModel, tmp_path: Path) -> None:
    assert "QLinearAdd" not in kernels(run(residual, operators="none"), tmp_path)


def test_operators_can_be_named(residual: OnnxModel, tmp_path: Path) -> None:
    made = kernels(run(residual, operators="Add,GlobalAveragePool"), tmp_path)
    assert {"QLinearAdd", "QLinearGlobalAveragePool"} <= set(made)


def test_an_activation_of_several_operations_can_be_named(build: Build, tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "c"),
        node("Add", "c three", "a"),
        node("Clip", "a zero six", "k"),
        node("Mul", "c k", "m"),
        node("Conv", "m v", "y"),
    ]
    numbers = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}
    weights = {"w": normal(8, 4, 1, 1), "v": normal(4, 8, 1, 1), **numbers}
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 4, 8, 8]}))[0])
    made = run(model, operators="Add,Mul,Clip")
    assert {"QLinearAdd", "QLinearMul"} <= set(kernels(made, tmp_path))
    assert error_db(model, made, data_for(model)) > 25


def test_an_operator_that_is_not_quantized_is_refused(residual: OnnxModel) -> None:
    with pytest.raises(UsageError, match="Did you mean 'MaxPool'"):
        run(residual, operators="MaxPol")


@pytest.mark.parametrize("ranges", ["minmax", "percentile", "mse", "entropy"])
def test_every_range_method_gives_a_model_that_stays_close(residual: OnnxModel, ranges: str) -> None:
    assert error_db(residual, run(residual, ranges=ranges), data_for(residual)) > 15


def test_notes_name_the_target(residual: OnnxModel) -> None:
    notes = Notes()
    plan = Plan({"c1_conv": Scheme.parse("w8a8")})
    quantize(QuantizeJob(model=residual, plan=plan, data=data_for(residual), target=AVX2, notes=notes))
    assert notes == ["pair-safe weights in 1 layer: kernels of x86-avx2 add pairs of products in 16 bits"]


def test_a_convolution_of_three_channels_gets_a_fourth_of_zeros(build: Build) -> None:
    weights = {"w": normal(8, 3, 3, 3), "b": normal(8)}
    model = OnnxModel(normalize(build([node("Conv", "x w b", "y")], weights, inputs={"x": ["N", 3, 8, 8]}))[0])
    made = run(model)
    stored = next(t for t in made.native.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 4)
    assert list(stored.dims) == [8, 4, 3, 3]
    assert not numpy_helper.to_array(stored)[:, 3].any()
    assert error_db(model, made, data_for(model)) > 30
    assert made.run({"x": normal(5, 3, 8, 8)})["y"].shape == (5, 8, 6, 6)


@pytest.mark.parametrize(("shape", "group"), [((8, 3, 7, 7), 1), ((8, 4, 3, 3), 1), ((9, 1, 3, 3), 3)])
def test_other_convolutions_keep_their_channels(build: Build, shape: tuple[int, ...], group: int) -> None:
    nodes, weights = [node("Conv", "x w", "y", group=group)], {"w": normal(*shape)}
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, shape[1] * group, 8, 8]}))[0])
    assert "Pad" not in kinds(run(model))


def test_a_real_network_keeps_its_answers(real_model: Callable[[str], Path], tmp_path: Path) -> None:
    source = real_model("efficientnet_lite0.onnx")
    files = sorted((source.parents[1] / "data" / "imagenet224").glob("*.jpg"))[::12]
    sound = _benchmark("sound").sound_copy(source, tmp_path / "model.onnx")
    model = load(LoadJob(path=sound))
    batches = [{"image": _pixels(f)} for f in files]
    job = QuantizeJob(
        model=model,
        plan=Plan({layer.name: Scheme.parse("w8a8") for layer in model.layers()}),
        data=Drawn(batches[:16]),
        target=AVX2,
    )
    made = quantize(job)
    # Over 436 images it is 19.1 dB; over 26 it moves by a decibel or so.
    assert error_db(model, made, Drawn(batches[16:])) > 17
    assert made.nbytes() < 0.28 * model.nbytes()


def _pixels(file: Path) -> NDArray[np.float32]:
    rgb = np.asarray(Image.open(file).convert("RGB"), np.float32)
    return ((rgb - 127) / 128).transpose(2, 0, 1)[None].copy()


def _benchmark(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        pytest.skip("the benchmarks are not here")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("activation", ["", "Relu"])
def test_the_runtime_leaves_a_float_layer_between_integer_ones_in_float(
    build: Build, tmp_path: Path, activation: str
) -> None:
    first = node("Conv", "x v", "a", pads=[1] * 4)
    between = [node("Relu", "a", "b"), node("Conv", "b w", "c", pads=[1] * 4), node("Relu", "c", "d")]
    plain = [node("Conv", "a w", "d", pads=[1] * 4)]
    last = node("Conv", "d u", "y", pads=[1] * 4)
    nodes = [first, *(between if activation else plain), last]
    weights = {name: normal(8, 8, 3, 3, seed=i) for i, name in enumerate("vwu")}
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 8, 12, 12]}))[0])
    middle = model.layers()[1].name
    made = run(model, {layer.name: "w8a8" for layer in model.layers() if layer.name != middle})
    path = tmp_path / "made.onnx"
    onnx.save(made.native, path)
    session = open_session(BenchmarkJob(artifact=Artifact(path=path, format="onnx")))
    operations = session.profile({"x": normal(1, 8, 12, 12)})
    ran = {op.layer: op.integer for op in operations if op.layer and op.integer is not None}
    assert ran == {layer.name: layer.name != middle for layer in model.layers()}
