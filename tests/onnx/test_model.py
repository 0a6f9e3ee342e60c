from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from qm.plugin import Unsupported, UsageError
from qm_onnx.model import OnnxModel

Array = NDArray[np.float32]
Build = Callable[..., ModelProto]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_layers_are_the_operations_with_weights_in_execution_order(model: OnnxModel) -> None:
    assert [(layer.name, layer.kind) for layer in model.layers()] == [
        ("stem", "Conv"),
        ("depthwise", "Conv"),
        ("fc", "Gemm"),
        ("matmul", "MatMul"),
        ("lstm", "LSTM"),
    ]


def test_every_node_is_listed_and_the_layers_among_them_are_in_float(model: OnnxModel) -> None:
    listed = model.operators()
    assert [op.kind for op in listed] == [node.op_type for node in model.proto.graph.node]
    assert len({op.name for op in listed}) == len(listed)
    assert [op.layer for op in listed if op.layer] == [layer.name for layer in model.layers()]
    assert {op.integer for op in listed if op.layer} == {False}


def test_weights_are_counted_without_biases(model: OnnxModel) -> None:
    assert [layer.weights for layer in model.layers()] == [8 * 3 * 9, 8 * 9, 128 * 12, 12 * 5, 64 * 5 + 64 * 16]


def test_multiplications_are_counted_for_one_sample(model: OnnxModel) -> None:
    # Both convolutions yield 4 x 4 positions; the recurrence takes one step.
    assert [layer.macs for layer in model.layers()] == [216 * 16, 72 * 16, 1536, 60, 1344]


@pytest.mark.parametrize("batch", [1, 6, "N"])
def test_a_fixed_batch_size_does_not_change_the_multiplications(build: Build, batch: int | str) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"], name="matmul"),
    ]
    proto = build(nodes, {"w": normal(2, 3, 1, 1), "v": normal(2 * 4 * 4, 5)}, inputs={"x": [batch, 3, 4, 4]})
    proto.graph.output[0].type.tensor_type.shape.dim.add(**{"dim_value" if batch != "N" else "dim_param": batch})
    proto.graph.output[0].type.tensor_type.shape.dim.add(dim_value=5)
    assert [layer.macs for layer in OnnxModel(proto).layers()] == [6 * 16, 32 * 5]


def test_a_sequence_multiplies_once_a_step(build: Build) -> None:
    proto = build(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")], {"w": normal(4, 3)}, inputs={"x": ["N", 7, 4]}
    )
    assert OnnxModel(proto).layers()[0].macs == 7 * 12


def test_unknown_shapes_give_no_multiplications(build: Build) -> None:
    proto = build(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")], {"w": normal(4, 3)}, inputs={"x": ["N", "t", 4]}
    )
    assert OnnxModel(proto).layers()[0].macs == 0


def test_a_transposed_convolution_multiplies_at_each_input_position(build: Build) -> None:
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="up", strides=[2, 2])]
    layer = OnnxModel(build(nodes, {"w": normal(3, 2, 2, 2)}, inputs={"x": ["N", 3, 5, 5]})).layers()[0]
    assert (layer.kind, layer.weights, layer.macs) == ("ConvTranspose", 24, 24 * 25)


def test_an_embedding_is_a_layer_and_a_lookup_in_a_shape_is_not(build: Build) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "ids"], ["y"], name="embedding"),
        helper.make_node("Gather", ["sizes", "ids"], ["z"], name="size"),
    ]
    model = OnnxModel(build(nodes, {"table": normal(10, 8), "sizes": np.arange(5)}, outputs=["y"]))
    assert [(layer.name, layer.kind, layer.weights) for layer in model.layers()] == [("embedding", "Gather", 80)]


def test_weights_on_the_left_of_a_product_make_a_layer(build: Build) -> None:
    proto = build(
        [helper.make_node("MatMul", ["w", "x"], ["y"], name="left")], {"w": normal(3, 4)}, inputs={"x": [4, 2]}
    )
    assert [(layer.name, layer.weights, layer.macs) for layer in OnnxModel(proto).layers()] == [("left", 12, 24)]


def test_a_product_of_two_activations_is_no_layer(build: Build) -> None:
    assert OnnxModel(build([helper.make_node("MatMul", ["x", "x"], ["y"])], {})).layers() == ()


def test_layers_that_share_a_weight_are_tied_through_a_transpose(build: Build) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="there"),
        helper.make_node("Transpose", ["w"], ["t"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["m", "t"], ["n"], name="back"),
        helper.make_node("MatMul", ["n", "v"], ["y"], name="alone"),
    ]
    layers = OnnxModel(build(nodes, {"w": normal(4, 3), "v": normal(4, 4)})).layers()
    assert {layer.name: layer.tied for layer in layers} == {"there": "w", "back": "w", "alone": None}


def test_inputs_leave_out_weights_and_tell_open_lengths(build: Build) -> None:
    proto = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": normal(4, 3)})
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    assert [str(s) for s in OnnxModel(proto).inputs()] == ["x float32 [?, 4]"]


def test_the_size_is_what_a_file_takes(model: OnnxModel) -> None:
    assert model.nbytes() == len(model.native.SerializeToString())


def test_a_run_gives_the_outputs_by_name(model: OnnxModel, sample: dict[str, Array]) -> None:
    assert {name: value.shape for name, value in model.run(sample).items()} == {"y": (1, 1, 1, 16)}


def test_watching_adds_activations_and_keeps_the_outputs(model: OnnxModel, sample: dict[str, Array]) -> None:
    seen = model.run(sample, watch=["matmul", "stem"])
    assert {name: value.shape for name, value in seen.items()} == {
        "y": (1, 1, 1, 16),
        "stem": (1, 8, 4, 4),
        "matmul": (1, 5),
    }


def test_an_activation_is_taken_past_the_relu_that_is_fused_with_its_layer(
    model: OnnxModel, sample: dict[str, Array]
) -> None:
    assert model.run(sample, watch=["stem"])["stem"].min() == 0


def test_an_activation_is_what_the_layer_computes(build: Build) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"),
        helper.make_node("Sigmoid", ["m"], ["y"], name="sigmoid"),
    ]
    x, w = normal(2, 4), normal(4, 3, seed=1)
    seen = OnnxModel(build(nodes, {"w": w})).run({"x": x}, watch=["matmul"])
    np.testing.assert_allclose(seen["matmul"], x @ w, rtol=1e-5)


def test_a_layer_that_is_the_output_can_be_watched(build: Build) -> None:
    model = OnnxModel(build([helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")], {"w": normal(4, 3)}))
    seen = model.run({"x": normal(2, 4)}, watch=["matmul"])
    assert np.array_equal(seen["y"], seen["matmul"])


def test_watching_a_layer_that_is_not_there_names_the_nearest(model: OnnxModel, sample: dict[str, Array]) -> None:
    with pytest.raises(UsageError) as caught:
        model.run(sample, watch=["matmull"])
    assert str(caught.value) == "the model has no layer 'matmull'\nDid you mean 'matmul'?"


def test_watching_inside_control_flow_is_not_offered(build: Build) -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["t"], name="product")],
        "body",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    nodes = [helper.make_node("If", ["yes"], ["y"], name="if", then_branch=body, else_branch=body)]
    model = OnnxModel(build(nodes, {"w": normal(4, 3), "yes": np.ones((), np.bool_)}))
    assert model.layers()[0].name == "if/product"
    with pytest.raises(Unsupported, match="'if/product' is inside control flow"):
        model.run({"x": normal(2, 4)}, watch=["if/product"])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, "the batch lacks the input 'x'; it has nothing"),
        ({"z": normal(1, 4)}, "the batch lacks the input 'x'; it has 'z'"),
        ({"x": normal(1, 4), "z": normal(1)}, "the model has no input 'z'"),
        ({"x": normal(1, 4).astype(np.float64)}, "the input 'x' must be float32, not float64"),
        ({"x": normal(1, 5)}, "the input 'x' must have the shape [?, 4], not [1, 5]"),
        ({"x": normal(4)}, "the input 'x' must have the shape [?, 4], not [4]"),
    ],
)
def test_a_batch_that_does_not_fit_is_told_by_name(build: Build, batch: dict[str, Array], message: str) -> None:
    model = OnnxModel(build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": normal(4, 3)}))
    with pytest.raises(UsageError) as caught:
        model.run(batch)
    assert caught.value.message == message
    assert caught.value.hint == "The model takes x float32 [?, 4]."


def test_a_shape_that_only_the_run_finds_wrong_is_one_sentence(build: Build) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], name="reshape")]
    model = OnnxModel(build(nodes, {"shape": np.array([2, 4])}))
    with pytest.raises(UsageError, match=r"ONNX Runtime stopped on the input x float32 \[3, 4\]: .*reshape") as caught:
        model.run({"x": normal(3, 4)})
    assert "\n" not in caught.value.message


def test_a_session_can_have_more_outputs(model: OnnxModel) -> None:
    session = model.session(extra_outputs=["c1", "g", "y"])
    assert [o.name for o in session.get_outputs()] == ["y", "c1", "g"]
    assert [o.name for o in model.native.graph.output] == ["y"]


def test_with_proto_keeps_the_source_and_the_notes(model: OnnxModel, build: Build) -> None:
    proto = build([helper.make_node("Relu", ["x"], ["y"])], {})
    noted = OnnxModel(model.native, notes=["converted"]).with_proto(proto)
    assert noted.native is proto and noted.notes == ("converted",)


def test_the_representation_is_one_line(model: OnnxModel) -> None:
    assert repr(model) == f"<OnnxModel onnx, {model.nbytes():,} bytes>"


def test_efficientnet_has_fifty_layers(efficientnet: OnnxModel) -> None:
    layers = efficientnet.layers()
    assert len(layers) == 50 and layers[-1].kind == "Gemm" and all(layer.macs for layer in layers)


def test_efficientnet_multiplies_as_often_as_published(efficientnet: OnnxModel) -> None:
    # EfficientNet-Lite0 is published with 407 million multiply-adds, its element-wise operations included.
    assert 380e6 < sum(layer.macs for layer in efficientnet.layers()) < 407e6
