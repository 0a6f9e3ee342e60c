"""Half precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from qm.plugin import LoadJob, Notes, Plan, QuantizeJob
from qm.scheme import F16, FLOAT
from qm_onnx import graph
from qm_onnx.fp16 import quantize
from qm_onnx.load import load
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize

Array = NDArray[np.float32]
Build = Callable[..., ModelProto]


def job(model: OnnxModel, *, without: str = "") -> QuantizeJob:
    names = [layer.name for layer in model.layers() if layer.name != without]
    return QuantizeJob(model=model, plan=Plan(dict.fromkeys(names, F16)), notes=Notes())


def sqnr_db(reference: Array, other: Array) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - other).sum()))


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def casts(model: OnnxModel) -> int:
    return sum(node.op_type == "Cast" for node in graph.nodes(model.native.graph))


def test_every_layer_is_read_back_as_half_precision(model: OnnxModel) -> None:
    assert quantize(job(model)).schemes() == {layer.name: F16 for layer in model.layers()}


def test_the_answer_is_that_of_the_float_model_to_50_db(model: OnnxModel, sample: dict[str, Array]) -> None:
    assert sqnr_db(model.run(sample)["y"], quantize(job(model)).run(sample)["y"]) > 50


def test_inputs_and_outputs_stay_float32(model: OnnxModel) -> None:
    made = quantize(job(model))
    assert {spec.dtype for spec in (*made.inputs(), *made.outputs())} == {"float32"}


def test_a_layer_left_out_of_the_plan_stays_in_float(model: OnnxModel) -> None:
    made = quantize(job(model, without="depthwise")).schemes()
    assert [name for name, scheme in made.items() if scheme == FLOAT] == ["depthwise"]


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
    onnx.checker.check_model(quantize(job(model)).native, full_check=True)


def test_layers_one_after_another_are_cast_only_at_the_ends(model: OnnxModel) -> None:
    assert casts(quantize(job(model))) == 2


def test_no_float_weight_of_a_converted_layer_stays_in_the_file(model: OnnxModel) -> None:
    made = quantize(job(model))
    assert not [t.name for t in graph.tensors(made.native) if t.data_type == TensorProto.FLOAT and t.dims]


@pytest.mark.parametrize("value", [1e5, 1e-9])
def test_weights_out_of_range_stay_in_float_with_a_note(build: Build, value: float) -> None:
    w = np.full((6, 4), value, np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    model = OnnxModel(normalize(build([node], {"w": w}, inputs={"x": ["N", 6]}))[0])
    request = job(model)
    assert quantize(request).schemes() == {"m": FLOAT}
    assert request.notes == ["m: stays in float, since its weights lie outside the range of float16"]


def test_a_mask_of_infinity_after_a_layer_is_no_obstacle(build: Build) -> None:
    mask = np.array([0, -np.inf, 0, 0], np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="m"),
        helper.make_node("Add", ["m", "mask"], ["a"], name="add"),
        helper.make_node("Softmax", ["a"], ["y"], name="softmax"),
    ]
    model = OnnxModel(normalize(build(nodes, {"w": normal(6, 4), "mask": mask}, inputs={"x": ["N", 6]}))[0])
    batch = {"x": normal(3, 6, seed=1)}
    got = quantize(job(model)).run(batch)["y"]
    assert (got[:, 1] == 0).all()
    assert sqnr_db(model.run(batch)["y"], got) > 50


def test_a_sum_over_many_values_is_taken_in_float32(build: Build) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="m"),
        helper.make_node("ReduceSum", ["m"], ["y"], name="sum", keepdims=0),
    ]
    w = np.full((4, 1000), 100, np.float32)
    model = OnnxModel(normalize(build(nodes, {"w": w}, inputs={"x": ["N", 4]}))[0])
    batch = {"x": np.ones((2, 4), np.float32)}  # 800,000 in all, more than float16 holds.
    assert quantize(job(model)).run(batch)["y"] == model.run(batch)["y"] == 800_000


def test_an_embedding_takes_integer_ids(build: Build) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["g"], name="words"),
        helper.make_node("MatMul", ["g", "w"], ["y"], name="m"),
    ]
    proto = build(nodes, {"table": normal(20, 8), "w": normal(8, 4)})
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    model = OnnxModel(normalize(proto)[0])
    made = quantize(job(model))
    ids = {"x": np.array([[0, 19, 3, 3]], np.int64)}
    assert made.schemes() == {"words": F16, "m": F16}
    assert sqnr_db(model.run(ids)["y"], made.run(ids)["y"]) > 50


def test_layers_that_share_a_weight_store_it_once(build: Build) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="second"),
    ]
    model = OnnxModel(normalize(build(nodes, {"w": normal(16, 16)}, inputs={"x": ["N", 16]}))[0])
    assert sum(len(t.dims) == 2 for t in graph.tensors(quantize(job(model)).native)) == 1


def test_a_loop_sees_what_it_saw_before(build: Build) -> None:
    result = onnx.ValueInfoProto(name="after")
    state = onnx.ValueInfoProto(name="before")
    for value in (result, state):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    going = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["on"], name="on"),
            helper.make_node("MatMul", ["before", "w"], ["product"], name="inner"),
            helper.make_node("Add", ["product", "outside"], ["after"], name="add"),
        ],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), going, state],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), result],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["outside"], name="outer"),
        helper.make_node("Loop", ["times", "", "outside"], ["y"], name="loop", body=body),
    ]
    weights = {"v": normal(8, 8), "w": normal(8, 8, seed=1) / 4, "times": np.array(3, np.int64)}
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": [2, 8]}))[0])
    made = quantize(job(model))
    assert set(made.schemes().values()) == {F16} and len(made.schemes()) == 2
    batch = {"x": normal(2, 8, seed=2)}
    assert sqnr_db(model.run(batch)["y"], made.run(batch)["y"]) > 50


def test_silero_vad_keeps_its_answer_at_half_the_size(real_model: Callable[[str], Path]) -> None:
    model = load(LoadJob(path=real_model("silero_vad.onnx")))
    made = quantize(job(model))
    batch = {
        "input": normal(1, 576, seed=3) / 10,
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.array(16_000, np.int64),
    }
    assert sqnr_db(model.run(batch)["stateN"], made.run(batch)["stateN"]) > 40
    assert made.nbytes() < 0.6 * model.nbytes()
