from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qm.plugin import LoadJob
from qm_onnx import graph
from qm_onnx.load import load, read
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import is_quantized, normalize, raise_opset

Build = Callable[..., ModelProto]
Feed = dict[str, NDArray[np.generic]]


def plain_run(proto: ModelProto, feed: Feed) -> list[NDArray[np.float32]]:
    """The outputs of the model as ONNX Runtime runs it without any optimization."""
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    outputs: list[NDArray[np.float32]] = ort.InferenceSession(proto.SerializeToString(), settings).run(None, feed)
    return outputs


def worst(before: ModelProto, after: ModelProto, feed: Feed) -> float:
    pairs = zip(plain_run(before, feed), plain_run(after, feed), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def kinds(proto: ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def batch_norm(build: Build) -> ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "gain", "bias", "mean", "variance"], ["y"], name="bn"),
    ]
    statistics = {n: np.abs(normal(6, seed=i)) + 0.5 for i, n in enumerate(("gain", "bias", "mean", "variance"))}
    return build(nodes, {"w": normal(6, 4, 1, 1), **statistics}, inputs={"x": [1, 4, 5, 5]})


def test_a_batch_norm_is_folded_into_its_convolution(build: Build) -> None:
    proto = batch_norm(build)
    done, _ = normalize(proto)
    assert kinds(done) == ["Conv"] and done.graph.node[0].name == "conv"
    # Folding reorders float32 sums of a handful of terms of size one.
    assert worst(proto, done, {"x": normal(1, 4, 5, 5)}) < 1e-5


def test_the_given_model_is_not_changed(build: Build) -> None:
    proto = batch_norm(build)
    before = proto.SerializeToString()
    normalize(proto)
    assert proto.SerializeToString() == before


def test_constants_are_folded_and_identities_dropped(build: Build) -> None:
    nodes = [
        helper.make_node("Add", ["a", "b"], ["w"], name="constant"),
        helper.make_node("Identity", ["x"], ["i"], name="identity"),
        helper.make_node("MatMul", ["i", "w"], ["y"], name="matmul"),
    ]
    done, _ = normalize(build(nodes, {"a": normal(4, 3), "b": normal(4, 3, seed=1)}))
    assert kinds(done) == ["MatMul"]
    assert np.array_equal(numpy_helper.to_array(done.graph.initializer[0]), normal(4, 3) + normal(4, 3, seed=1))


def test_a_constant_node_becomes_an_initializer(build: Build) -> None:
    value = numpy_helper.from_array(normal(4, 3))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=value),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul"),
    ]
    done, _ = normalize(build(nodes, {}))
    assert kinds(done) == ["MatMul"] and [t.name for t in done.graph.initializer] == ["w"]


def test_a_product_and_its_bias_stay_two_operations(build: Build) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"),
        helper.make_node("Add", ["m", "b"], ["y"], name="add"),
    ]
    done, _ = normalize(build(nodes, {"w": normal(4, 3), "b": normal(3)}))
    assert kinds(done) == ["MatMul", "Add"]


def test_nodes_without_a_name_get_one_by_kind_and_number(build: Build) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"], name="MatMul_0"),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    done, _ = normalize(build(nodes, {"w": normal(4, 3), "v": normal(3, 2)}))
    assert [n.name for n in done.graph.node] == ["MatMul_1", "MatMul_0", "MatMul_2"]


def test_a_name_used_twice_is_kept_by_the_first(build: Build) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="same"),
        helper.make_node("MatMul", ["m", "v"], ["y"], name="same"),
    ]
    done, _ = normalize(build(nodes, {"w": normal(4, 3), "v": normal(3, 2)}))
    assert [n.name for n in done.graph.node] == ["same", "same_0"]


def test_normalizing_twice_changes_nothing_more(build: Build) -> None:
    once, _ = normalize(batch_norm(build))
    twice, _ = normalize(once)
    assert once.SerializeToString(deterministic=True) == twice.SerializeToString(deterministic=True)


def test_an_old_opset_is_converted(build: Build) -> None:
    nodes = [  # Squeeze and Unsqueeze had their axes as attributes, BatchNormalization and Clip other forms.
        helper.make_node("Unsqueeze", ["x"], ["u"], name="unsqueeze", axes=[2]),
        helper.make_node("Clip", ["u", "low"], ["c"], name="clip"),
        helper.make_node("Squeeze", ["c"], ["s"], name="squeeze", axes=[2]),
        helper.make_node("MatMul", ["s", "w"], ["m"], name="matmul"),
        helper.make_node("Softmax", ["m"], ["y"], name="softmax"),
    ]
    proto = build(nodes, {"w": normal(4, 3), "low": np.float32(0)}, opset=11, ir_version=6)
    done, notes = normalize(proto)
    assert graph.opset(done) == 17 and notes == ["converted from opset 11 to 17"]
    assert worst(proto, done, {"x": normal(2, 4)}) == 0


def test_initializers_listed_as_inputs_are_folded_all_the_same(build: Build) -> None:
    proto = batch_norm(build)
    proto.ir_version = 3
    for t in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
    done, _ = normalize(proto)
    assert kinds(done) == ["Conv"] and [i.name for i in done.graph.input] == ["x"]


def test_only_used_operator_sets_are_named(build: Build) -> None:
    proto = batch_norm(build)
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    assert [(o.domain, o.version) for o in normalize(proto)[0].opset_import] == [("", 17)]


def test_nodes_out_of_order_are_sorted(build: Build) -> None:
    nodes = [
        helper.make_node("MatMul", ["r", "v"], ["y"], name="last"),
        helper.make_node("Relu", ["m"], ["r"], name="middle"),
        helper.make_node("MatMul", ["x", "w"], ["m"], name="first"),
    ]
    proto = build(nodes, {"w": normal(4, 3), "v": normal(3, 2)})
    graph.sort(proto.graph)
    assert [n.name for n in proto.graph.node] == ["first", "middle", "last"]


def test_shapes_are_inferred(build: Build) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"),
        helper.make_node("Relu", ["m"], ["y"], name="relu"),
    ]
    done, _ = normalize(build(nodes, {"w": normal(4, 3)}, inputs={"x": [2, 4]}))
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in done.graph.value_info}
    assert shapes == {"m": [2, 3]}


def test_a_model_in_half_precision_keeps_its_types(build: Build) -> None:
    proto = build(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")], {"w": normal(4, 3).astype(np.float16)}
    )
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    assert kinds(normalize(proto)[0]) == ["MatMul"]


def test_a_quantized_model_keeps_its_operators_and_opset(build: Build) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["wf"], name="dq"),
        helper.make_node("Identity", ["x"], ["i"], name="identity"),
        helper.make_node("MatMul", ["i", "wf"], ["y"], name="matmul"),
    ]
    proto = build(nodes, {"w": np.ones((4, 3), np.int8), "s": np.float32(0.5)}, opset=13)
    done, notes = normalize(proto)
    assert is_quantized(done) and kinds(done) == kinds(proto) and graph.opset(done) == 13
    assert notes == ["the model is quantized already; its operators are left as they are"]


def branching(build: Build, *, opset: int, inner: str = "MatMul") -> ModelProto:
    """An If whose branches multiply by weights, which they share, folded from a sum."""

    def branch(name: str) -> onnx.GraphProto:
        nodes = [helper.make_node("Add", ["a", "a"], [f"{name}w"], name=f"{name}_add")]
        if inner == "MatMul":
            nodes.append(helper.make_node("MatMul", ["x", f"{name}w"], [name], name="product"))
        else:
            nodes.append(helper.make_node("MatMul", ["x", f"{name}w"], [f"{name}m"], name="product"))
            nodes.append(helper.make_node(inner, [f"{name}m"], [name], name=f"{name}_{inner}", axes=[0]))
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], name="top", keepdims=0),
        helper.make_node("Greater", ["top", "zero"], ["condition"], name="greater"),
        helper.make_node("If", ["condition"], ["y"], name="if", then_branch=branch("t"), else_branch=branch("e")),
    ]
    return build(nodes, {"a": normal(16, 32), "zero": np.float32(0)}, inputs={"x": ["N", 16]}, opset=opset)


def test_control_flow_comes_through_a_conversion(build: Build) -> None:
    proto = branching(build, opset=15)
    done, notes = normalize(proto)
    assert notes == ["converted from opset 15 to 17"]
    for sign in (1, -1):
        assert worst(proto, done, {"x": sign * np.abs(normal(3, 16))}) == 0


def test_an_opset_stays_where_the_inside_of_control_flow_cannot_be_converted(build: Build) -> None:
    proto = branching(build, opset=12, inner="Unsqueeze")
    done, notes = normalize(proto)
    assert graph.opset(done) == 12
    assert notes == [
        "the model stays at opset 12, since it cannot be converted to 17: Unsqueeze inside control flow changed between"
        " opset 12 and 17"
    ]
    assert worst(proto, done, {"x": normal(3, 16)}) == 0


def test_equal_weights_folded_in_both_branches_are_stored_once(build: Build) -> None:
    done, _ = normalize(branching(build, opset=17))
    assert [t.dims for t in graph.tensors(done) if len(t.dims) == 2] == [[16, 32]]
    layers = OnnxModel(done).layers()
    assert {layer.name for layer in layers} == {"if/product", "if/product_0"}
    assert len({layer.tied for layer in layers}) == 1 and layers[0].tied


def test_a_loop_comes_through(build: Build) -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["s", "w"], ["s2"]), helper.make_node("Identity", ["c"], ["c2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s2", TensorProto.FLOAT, None),
        ],
    )
    nodes = [helper.make_node("Loop", ["times", "", "x"], ["y"], name="loop", body=body)]
    proto = build(nodes, {"w": normal(4, 4), "times": np.int64(3)}, opset=13)
    done, _ = normalize(proto)
    assert [layer.name for layer in OnnxModel(done).layers()] == ["loop/MatMul_0"]
    assert worst(proto, done, {"x": normal(2, 4)}) == 0


def test_local_functions_are_written_out() -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "local": 1]>
        model (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = local.f(x, w) }
        <domain: "local", opset_import: ["": 17]> f (a, b) => (c) { d = MatMul(a, b)  c = Relu(d) }
    """)
    done, _ = normalize(proto)
    assert kinds(done) == ["MatMul", "Relu"]
    assert worst(proto, done, {"x": normal(3, 2)}) == 0


def test_raising_the_opset_leaves_the_given_model(build: Build) -> None:
    proto, _ = normalize(batch_norm(build))
    raised = raise_opset(proto, 21)
    assert (graph.opset(proto), graph.opset(raised)) == (17, 21)
    assert worst(proto, raised, {"x": normal(1, 4, 5, 5)}) == 0


def test_raising_to_a_lower_opset_does_nothing(build: Build) -> None:
    proto = batch_norm(build)
    assert raise_opset(proto, 13) is proto


REAL = {
    "efficientnet_lite0.onnx": {},
    "ch_PP-OCRv4_rec_infer.onnx": {"x": (1, 3, 48, 160)},
    "ch_PP-OCRv4_det_infer.onnx": {"x": (1, 3, 64, 96)},
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": {"x": (2, 3, 48, 192)},
    "silero_vad.onnx": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_16k_op15.onnx": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_op18_ifless.onnx": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_half.onnx": {"input": (1, 576), "state": (2, 1, 128)},
}


@pytest.mark.parametrize("name", REAL)
def test_a_published_model_computes_what_it_did(
    name: str, real_model: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    path = real_model(name)
    if name.startswith("efficientnet"):
        path = request.getfixturevalue("efficientnet_path")
    model = load(LoadJob(path=path))
    feed: Feed = {
        s.name: np.array(16000) if s.name == "sr" else 0.5 * normal(*REAL[name].get(s.name, s.shape))
        for s in model.inputs()
    }
    for before, after in zip(plain_run(read(path), feed), model.run(feed).values(), strict=True):
        # Fused kernels sum in another order: float32 rounding through tens of layers, relative to the largest output.
        assert np.abs(before - after).max() <= 1e-5 * max(1.0, float(np.abs(before).max()))


@pytest.mark.parametrize("name", REAL)
def test_a_published_model_has_the_same_names_at_each_load(
    name: str, real_model: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue("efficientnet_path") if name.startswith("eff") else real_model(name)
    first, second = (load(LoadJob(path=path)).native.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_an_ir_version_beyond_what_the_operators_need_is_lowered():
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=14)
    fresh, notes = normalize(proto)
    assert fresh.ir_version == 10
    assert any("IR version lowered from 14 to 10" in note for note in notes)
