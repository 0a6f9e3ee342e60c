"""Integer weights, activations quantized at run time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from qm import target
from qm.numerics.saturation import SAFE_SUM, worst_pair_sum
from qm.plugin import LoadJob, Notes, Plan, QuantizeJob, Scheme, Target
from qm_onnx import graph
from qm_onnx.dynamic import quantize
from qm_onnx.load import load
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize

Array = NDArray[np.float32]
Build = Callable[..., ModelProto]


def job(model: OnnxModel, *, scheme: str = "w8d8", on: str = "x86-avx2", without: str = "") -> QuantizeJob:
    layers = {layer.name: Scheme.parse(scheme) for layer in model.layers() if layer.name != without}
    return QuantizeJob(model=model, plan=Plan(layers), target=target.find(on), notes=Notes())


def kinds(model: OnnxModel) -> set[str]:
    return {node.op_type for node in graph.nodes(model.native.graph)}


def sqnr_db(reference: Array, other: Array) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - other).sum()))


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stored(model: OnnxModel, name: str) -> Array:
    tensor = next(t for t in graph.tensors(model.native) if t.name == name)
    return np.asarray(numpy_helper.to_array(tensor))


@pytest.mark.parametrize("scheme", ["w8d8", "w8d8t"])
@pytest.mark.parametrize("on", ["x86-vnni", "x86-avx2", "arm-neon"])
def test_every_layer_is_read_back_in_the_scheme_it_was_asked_for(model: OnnxModel, scheme: str, on: str) -> None:
    made = quantize(job(model, scheme=scheme, on=on))
    assert made.schemes() == {layer.name: Scheme.parse(scheme) for layer in model.layers()}


@pytest.mark.parametrize("on", ["host", "x86-avx2", "arm-neon"])
def test_the_answer_stays_near_that_of_the_float_model(model: OnnxModel, sample: dict[str, Array], on: str) -> None:
    made = quantize(job(model, on=on))
    assert sqnr_db(model.run(sample)["y"], made.run(sample)["y"]) > 25


def test_a_layer_left_out_of_the_plan_keeps_its_float_weights(model: OnnxModel) -> None:
    made = quantize(job(model, without="fc"))
    assert [name for name, scheme in made.schemes().items() if scheme.is_float] == ["fc"]


def test_an_empty_plan_changes_nothing(model: OnnxModel, sample: dict[str, Array]) -> None:
    made = quantize(QuantizeJob(model=model, plan=Plan()))
    assert np.array_equal(made.run(sample)["y"], model.run(sample)["y"])


def test_the_given_model_is_not_changed(model: OnnxModel) -> None:
    before = model.native.SerializeToString(deterministic=True)
    quantize(job(model))
    assert model.native.SerializeToString(deterministic=True) == before


def test_the_same_job_makes_the_same_bytes(model: OnnxModel) -> None:
    first, second = (quantize(job(model)).native.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_the_result_passes_the_checker(model: OnnxModel) -> None:
    onnx.checker.check_model(quantize(job(model)).native)


def test_no_float_weight_of_a_quantized_layer_stays_in_the_file(model: OnnxModel) -> None:
    made = quantize(job(model))
    large = [t.name for t in graph.tensors(made.native) if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1]
    assert all("weight" not in name and name not in {"w0", "w1", "w2", "w3", "W", "R"} for name in large)


def test_the_layers_keep_their_names_and_their_order(model: OnnxModel) -> None:
    assert [layer.name for layer in quantize(job(model)).layers()] == [layer.name for layer in model.layers()]


def test_int8_weights_use_the_full_range_where_nothing_saturates(model: OnnxModel) -> None:
    made = quantize(job(model, on="x86-vnni"))
    assert (np.abs(stored(made, "matmul/weight").astype(int)).max(axis=0) == 127).all()


def test_no_pair_of_weights_can_saturate_where_the_kernel_adds_pairs_in_16_bits(build: Build) -> None:
    b = np.abs(normal(9, 4))  # All of one sign: at full range, adjacent weights add up to far more than 128.
    node = helper.make_node("MatMul", ["x", "b"], ["y"], name="m")
    model = OnnxModel(normalize(build([node], {"b": b}, inputs={"x": ["N", 9]}))[0])
    safe, full = (quantize(job(model, on=on)) for on in ("x86-avx2", "x86-vnni"))
    assert worst_pair_sum(stored(full, "m/weight").T) > SAFE_SUM
    assert worst_pair_sum(stored(safe, "m/weight").T) <= SAFE_SUM


def test_weights_are_uint8_where_it_is_not_known_whether_int8_ones_saturate(model: OnnxModel) -> None:
    request = job(model, on="arm-neon")
    assert stored(quantize(request), "matmul/weight").dtype == np.uint8
    assert any("uint8" in note and "arm-neon" in note for note in request.notes)


@pytest.mark.parametrize("on", ["x86-vnni", "x86-avx2"])
def test_convolutions_have_uint8_weights_everywhere(model: OnnxModel, on: str) -> None:
    assert stored(quantize(job(model, on=on)), "stem/weight").dtype == np.uint8


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm_keeps_its_meaning_with_transposes_and_factors(build: Build, trans_a: int, trans_b: int) -> None:
    node = helper.make_node(
        "Gemm", ["x", "b", "c"], ["y"], name="g", transA=trans_a, transB=trans_b, alpha=0.5, beta=3.0
    )
    weights = {"b": normal(7, 5).T if trans_b else normal(7, 5), "c": normal(5, seed=1)}
    shape = [7, 3] if trans_a else [3, 7]
    model = OnnxModel(normalize(build([node], weights, inputs={"x": shape}))[0])
    made = quantize(job(model))
    assert made.schemes() == {"g": Scheme.parse("w8d8")}
    batch = {"x": normal(*shape, seed=2)}
    assert sqnr_db(model.run(batch)["y"], made.run(batch)["y"]) > 35


@pytest.mark.parametrize("shape", [[2, 3, 6], [6], [1, 6]])
def test_matmul_takes_activations_of_any_rank(build: Build, shape: list[int]) -> None:
    node = helper.make_node("MatMul", ["x", "b"], ["y"], name="m")
    model = OnnxModel(normalize(build([node], {"b": normal(6, 4)}, inputs={"x": shape}))[0])
    batch = {"x": normal(*shape, seed=1)}
    reference, got = model.run(batch)["y"], quantize(job(model)).run(batch)["y"]
    assert got.shape == reference.shape
    assert sqnr_db(reference, got) > 25


def test_a_stack_of_weight_matrices_is_quantized_per_column(build: Build) -> None:
    node = helper.make_node("MatMul", ["x", "b"], ["y"], name="m")
    model = OnnxModel(normalize(build([node], {"b": normal(3, 6, 4)}, inputs={"x": [3, 2, 6]}))[0])
    batch = {"x": normal(3, 2, 6, seed=1)}
    for on in ("host", "x86-avx2"):
        made = quantize(job(model, on=on))
        assert sqnr_db(model.run(batch)["y"], made.run(batch)["y"]) > 30


def test_layers_that_read_the_same_tensor_quantize_it_once(build: Build) -> None:
    nodes = [helper.make_node("MatMul", ["x", w], [f"y{w}"], name=w) for w in ("q", "k", "v")]
    weights = {w: normal(6, 4, seed=i) for i, w in enumerate("qkv")}
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": ["N", 6]}, outputs=["yq", "yk", "yv"]))[0])
    made = quantize(job(model))
    assert [n.op_type for n in graph.nodes(made.native.graph)].count("DynamicQuantizeLinear") == 1


def test_layers_that_share_a_weight_store_it_once(build: Build) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="second"),
    ]
    model = OnnxModel(normalize(build(nodes, {"w": normal(16, 16)}, inputs={"x": ["N", 16]}))[0])
    made = quantize(job(model))
    assert sum(t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2 for t in graph.tensors(made.native)) == 1


def test_a_convolution_keeps_its_padding_strides_groups_and_bias(build: Build) -> None:
    node = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], name="c", pads=[2, 0, 1, 1], strides=[2, 1], dilations=[1, 2], group=2
    )
    weights = {"w": normal(6, 2, 3, 3), "b": normal(6, seed=1)}
    model = OnnxModel(normalize(build([node], weights, inputs={"x": [1, 4, 9, 9]}))[0])
    batch = {"x": normal(1, 4, 9, 9, seed=2) + 1}
    assert sqnr_db(model.run(batch)["y"], quantize(job(model)).run(batch)["y"]) > 35


def branches(build: Build, inner: list[onnx.NodeProto], weights: dict[str, Array]) -> OnnxModel:
    """``y`` is what ``inner`` makes of ``x`` where x sums to more than zero, else x itself."""
    result = [onnx.ValueInfoProto(name="made")]
    result[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    tensors = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    other = onnx.ValueInfoProto(name="same")
    other.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    node = helper.make_node(
        "If",
        ["more"],
        ["y"],
        name="choice",
        then_branch=helper.make_graph(inner, "then", [], result, tensors),
        else_branch=helper.make_graph([helper.make_node("Identity", ["x"], ["same"])], "else", [], [other]),
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["more"]),
        node,
    ]
    return OnnxModel(normalize(build(nodes, {"zero": np.float32(0)}, inputs={"x": [2, 8]}))[0])


@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
def test_a_layer_inside_a_branch_is_quantized_where_it_is(build: Build, kind: str) -> None:
    model = branches(build, [helper.make_node(kind, ["x", "w"], ["made"], name="m")], {"w": normal(8, 8)})
    made = quantize(job(model))
    assert [str(s) for s in made.schemes().values()] == ["w8d8"]
    x = np.abs(normal(2, 8, seed=1))
    assert sqnr_db(model.run({"x": x})["y"], made.run({"x": x})["y"]) > 30
    assert np.array_equal(made.run({"x": -x})["y"], -x)


def test_a_weight_with_infinity_is_named(build: Build) -> None:
    w = normal(6, 4)
    w[0, 0] = np.inf
    proto = build([helper.make_node("MatMul", ["x", "w"], ["y"], name="m")], {"w": w}, inputs={"x": ["N", 6]})
    with pytest.raises(Exception, match="the weight 'w' holds NaN or infinity"):
        quantize(job(OnnxModel(proto)))


def test_an_lstm_in_a_layout_without_an_integer_kernel_stays_in_float_with_a_note(build: Build) -> None:
    node = helper.make_node("LSTM", ["x", "W", "R"], ["y"], name="l", hidden_size=4, layout=1)
    proto = build([node], {"W": normal(1, 16, 6), "R": normal(1, 16, 4)}, inputs={"x": [2, 3, 6]})
    request = job(OnnxModel(proto))
    assert [str(s) for s in quantize(request).schemes().values()] == ["float"]
    assert any(note.startswith("l: stays in float") for note in request.notes)


@pytest.mark.parametrize("on", ["host", "x86-avx2"])
def test_silero_vad_stays_above_25_db_over_a_run_with_its_state(
    real_model: Callable[[str], Path], benchmark: Callable[[str], ModuleType], on: str
) -> None:
    model = load(LoadJob(path=real_model("silero_vad.onnx")))
    made = quantize(job(model, on=on))
    silero = benchmark("silero")
    sound = silero.speech()
    reference, got = silero.probabilities(model.run, sound), silero.probabilities(made.run, sound)
    assert 0.2 < (reference > 0.5).mean() < 0.95
    assert sqnr_db(reference, got) > 25
    assert made.nbytes() < 0.35 * model.nbytes()


def test_a_target_is_asked_only_where_a_matrix_is_multiplied(build: Build) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="c")
    model = OnnxModel(normalize(build([node], {"w": normal(4, 3, 3, 3)}, inputs={"x": [1, 3, 8, 8]}))[0])
    request = QuantizeJob(model=model, plan=Plan({"c": Scheme.parse("w8d8")}), target=Target(name="unknown"))
    quantize(request)
    assert request.notes == []
