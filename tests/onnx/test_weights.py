"""Integer weights, float activations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from qm import target
from qm.plugin import LoadJob, Notes, Plan, QuantizeJob, Scheme, Unsupported
from qm_onnx import graph, runtime
from qm_onnx.load import load
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize
from qm_onnx.weights import quantize

Array = NDArray[np.float32]
Build = Callable[..., ModelProto]
SCHEMES = ["w8", "w4g32", "w4g128"]
KINDS = {"Gather", "Gemm", "MatMul"}


def job(model: OnnxModel, scheme: str, *, without: str = "") -> QuantizeJob:
    names = [layer.name for layer in model.layers() if layer.kind in KINDS and layer.name != without]
    plan = Plan({name: Scheme.parse(scheme) for name in names})
    return QuantizeJob(model=model, plan=plan, target=target.find("host"), notes=Notes())


def sqnr_db(reference: Array, other: Array) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - other).sum()))


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def least_db(scheme: str) -> float:
    """Below this the weights are wrong, not only coarse: normal weights give 41, 22 and 20 dB."""
    return {"w8": 35, "w4g32": 17, "w4g128": 15}[scheme]


def matmul(build: Build, w: Array, shape: list[int | str]) -> OnnxModel:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    return OnnxModel(normalize(build([node], {"w": w}, inputs={"x": shape}))[0])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_matmul_and_gemm_is_read_back_in_the_scheme_it_was_asked_for(model: OnnxModel, scheme: str) -> None:
    made = quantize(job(model, scheme)).schemes()
    assert {name: str(s) for name, s in made.items() if not s.is_float} == {"fc": scheme, "matmul": scheme}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_layers_keep_their_names_and_kinds(model: OnnxModel, scheme: str) -> None:
    made = quantize(job(model, scheme))
    assert [(a.name, a.kind) for a in made.layers()] == [(a.name, a.kind) for a in model.layers()]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_result_passes_the_checker(model: OnnxModel, scheme: str) -> None:
    onnx.checker.check_model(quantize(job(model, scheme)).native)


def test_only_standard_operators_are_used_for_matmul_and_gemm(model: OnnxModel) -> None:
    made = quantize(job(model, "w4g32"))
    assert {o.domain for o in made.native.opset_import} == {""}


def test_a_layer_left_out_of_the_plan_keeps_its_float_weights(model: OnnxModel) -> None:
    made = quantize(job(model, "w8", without="fc")).schemes()
    assert str(made["fc"]) == "float" and str(made["matmul"]) == "w8"


def test_layers_may_have_different_schemes(model: OnnxModel) -> None:
    plan = Plan({"fc": Scheme.parse("w4g32"), "matmul": Scheme.parse("w8")})
    made = quantize(QuantizeJob(model=model, plan=plan)).schemes()
    assert (str(made["fc"]), str(made["matmul"])) == ("w4g32", "w8")


def test_an_empty_plan_changes_nothing(model: OnnxModel, sample: dict[str, Array]) -> None:
    made = quantize(QuantizeJob(model=model, plan=Plan()))
    assert np.array_equal(made.run(sample)["y"], model.run(sample)["y"])


def test_the_given_model_is_not_changed(model: OnnxModel) -> None:
    before = model.native.SerializeToString(deterministic=True)
    quantize(job(model, "w4g32"))
    assert model.native.SerializeToString(deterministic=True) == before


def test_the_same_job_makes_the_same_bytes(model: OnnxModel) -> None:
    first, second = (quantize(job(model, "w4g32")).native.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("k", [1, 5, 31, 33, 96, 130])
def test_an_inner_length_that_the_group_does_not_divide_is_right(build: Build, scheme: str, k: int) -> None:
    model = matmul(build, normal(k, 7), ["N", k])
    batch = {"x": normal(64, k, seed=1)}
    assert sqnr_db(model.run(batch)["y"], quantize(job(model, scheme)).run(batch)["y"]) > least_db(scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [[2, 3, 64], [2, 2, 3, 64], [64]])
def test_matmul_takes_activations_of_any_rank(build: Build, scheme: str, shape: list[int | str]) -> None:
    model = matmul(build, normal(64, 32), shape)
    batch = {"x": normal(*map(int, shape), seed=1)}
    reference, got = model.run(batch)["y"], quantize(job(model, scheme)).run(batch)["y"]
    assert got.shape == reference.shape
    assert sqnr_db(reference, got) > least_db(scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_weight_on_the_left_of_a_product_is_quantized_too(build: Build, scheme: str) -> None:
    node = helper.make_node("MatMul", ["w", "x"], ["y"], name="m")
    model = OnnxModel(normalize(build([node], {"w": normal(12, 64)}, inputs={"x": [64, 5]}))[0])
    made = quantize(job(model, scheme))
    batch = {"x": normal(64, 5, seed=1)}
    assert {str(s) for s in made.schemes().values()} == {scheme}
    assert sqnr_db(model.run(batch)["y"], made.run(batch)["y"]) > least_db(scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_keeps_its_meaning_with_transposes_and_factors(
    build: Build, scheme: str, trans_a: int, trans_b: int
) -> None:
    node = helper.make_node(
        "Gemm", ["x", "b", "c"], ["y"], name="g", transA=trans_a, transB=trans_b, alpha=0.5, beta=3.0
    )
    weights = {"b": normal(48, 64).T if trans_b else normal(48, 64), "c": normal(64, seed=1)}
    shape = [48, 16] if trans_a else [16, 48]
    model = OnnxModel(normalize(build([node], weights, inputs={"x": shape}))[0])
    batch = {"x": normal(*shape, seed=2)}
    assert sqnr_db(model.run(batch)["y"], quantize(job(model, scheme)).run(batch)["y"]) > least_db(scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
def test_onnx_runtime_never_makes_float_weights_of_a_layer(
    build: Build, tmp_path: Path, scheme: str, kind: str
) -> None:
    attributes = {"transB": 1} if kind == "Gemm" else {}
    node = helper.make_node(kind, ["x", "w"], ["y"], name="m", **attributes)
    model = OnnxModel(normalize(build([node], {"w": normal(64, 64)}, inputs={"x": ["N", 64]}))[0])
    settings = runtime.options()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    runtime.open_proto(quantize(job(model, scheme)).native, name="m", settings=settings)
    kinds = [node.op_type for node in onnx.load(settings.optimized_model_filepath).graph.node]
    assert "DequantizeLinear" not in kinds and "MatMulNBits" in kinds


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_runtime_computes_the_same(build: Build, scheme: str) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    proto = build([node], {"w": normal(64, 16)}, inputs={"x": [3, 64]}, opset=21, ir_version=10)
    made = quantize(job(OnnxModel(proto), scheme))
    batch = {"x": normal(3, 64, seed=1)}
    (reference,) = ReferenceEvaluator(made.native).run(None, batch)  # type: ignore[no-untyped-call]
    assert sqnr_db(np.asarray(reference), made.run(batch)["y"]) > 35


@pytest.mark.parametrize("scheme", SCHEMES)
def test_layers_that_share_a_weight_store_it_once_and_run(build: Build, scheme: str) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="second"),
    ]
    model = OnnxModel(normalize(build(nodes, {"w": normal(64, 64)}, inputs={"x": ["N", 64]}))[0])
    made = quantize(job(model, scheme))
    floats = {TensorProto.FLOAT, TensorProto.INT64}
    assert sum(t.data_type not in floats and list(t.dims) == [64, 64] for t in graph.tensors(made.native)) == 1
    batch = {"x": normal(4, 64, seed=1)}
    assert sqnr_db(model.run(batch)["y"], made.run(batch)["y"]) > least_db(scheme) - 4  # Two layers, twice the noise.


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_embedding_is_gathered_as_integers(build: Build, scheme: str) -> None:
    table = normal(50, 128)
    proto = build([helper.make_node("Gather", ["table", "x"], ["y"], name="words")], {"table": table})
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    model = OnnxModel(normalize(proto)[0])
    made = quantize(job(model, scheme))
    assert {name: str(s) for name, s in made.schemes().items()} == {"words": scheme}
    ids = {"x": np.array([[0, 49, 7, 7]], np.int64)}
    assert made.run(ids)["y"].shape == (1, 4, 128)
    assert sqnr_db(model.run(ids)["y"], made.run(ids)["y"]) > least_db(scheme)


def inside_a_branch(build: Build) -> OnnxModel:
    made, same = (onnx.ValueInfoProto(name=n) for n in ("made", "same"))
    for value in (made, same):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    inner = [helper.make_node("MatMul", ["x", "w"], ["made"], name="m")]
    choice = helper.make_node(
        "If",
        ["more"],
        ["y"],
        name="choice",
        then_branch=helper.make_graph(inner, "then", [], [made]),
        else_branch=helper.make_graph([helper.make_node("Identity", ["x"], ["same"])], "else", [], [same]),
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["more"]),
        choice,
    ]
    weights = {"zero": np.float32(0), "w": normal(64, 64)}  # The weight lies outside the branch that uses it.
    return OnnxModel(normalize(build(nodes, weights, inputs={"x": [2, 64]}, opset=21, ir_version=10))[0])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_layer_inside_a_branch_is_quantized_where_it_is(build: Build, scheme: str) -> None:
    model = inside_a_branch(build)
    made = quantize(job(model, scheme))
    assert [str(s) for s in made.schemes().values()] == [scheme]
    x = np.abs(normal(2, 64, seed=1))
    assert sqnr_db(model.run({"x": x})["y"], made.run({"x": x})["y"]) > least_db(scheme)
    assert np.array_equal(made.run({"x": -x})["y"], -x)


def test_the_opset_is_raised_only_where_groups_need_it(model: OnnxModel) -> None:
    assert graph.opset(quantize(job(model, "w8")).native) == 17
    assert graph.opset(quantize(job(model, "w4g32")).native) == 21


def test_a_model_that_cannot_be_raised_is_refused_with_the_reason(build: Build) -> None:
    model = inside_a_branch(build)
    old = ModelProto.FromString(model.native.SerializeToString())
    graph.set_opset(old, 17)
    # Its axes moved from an attribute to an input in opset 18, and converters do not look into branches.
    next(n for n in graph.nodes(old.graph) if n.op_type == "Identity").op_type = "ReduceMean"
    with pytest.raises(Unsupported, match="cannot be brought to opset 21"):
        quantize(job(OnnxModel(old), "w4g32"))


def test_weights_that_lie_beside_the_model_are_read_from_there(build: Build, tmp_path: Path) -> None:
    inline = matmul(build, normal(64, 64), ["N", 64])
    path = tmp_path / "model.onnx"
    proto = ModelProto.FromString(inline.native.SerializeToString())
    onnx.save(proto, path, save_as_external_data=True, location="model.data", size_threshold=0)
    beside = OnnxModel(onnx.load(path, load_external_data=False), source=path)
    batch = {"x": normal(4, 64, seed=1)}
    assert np.array_equal(quantize(job(beside, "w8")).run(batch)["y"], quantize(job(inline, "w8")).run(batch)["y"])


def test_the_weights_are_stored_two_to_a_byte(build: Build) -> None:
    made = quantize(job(matmul(build, normal(64, 64), ["N", 64]), "w4g32"))
    packed = next(t for t in graph.tensors(made.native) if t.data_type == TensorProto.UINT4 and t.dims == [64, 64])
    assert len(packed.raw_data) == 64 * 64 // 2
    assert numpy_helper.to_array(packed).max() == 15


def test_the_ocr_recogniser_keeps_its_answers_in_8_bits(real_model: Callable[[str], Path]) -> None:
    model = load(LoadJob(path=real_model("ch_PP-OCRv4_rec_infer.onnx")))
    made = quantize(job(model, "w8"))
    batch = {"x": np.clip(normal(1, 3, 48, 320), -1, 1)}
    reference, got = (m.run(batch)[m.outputs()[0].name] for m in (model, made))
    assert (reference.argmax(axis=-1) == got.argmax(axis=-1)).mean() > 0.95
    assert made.nbytes() < 0.75 * model.nbytes()
