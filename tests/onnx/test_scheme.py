from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16

from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize

Array = NDArray[np.float32]
Build = Callable[..., ModelProto]
NAMES = ["stem", "depthwise", "fc", "matmul", "lstm"]


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: list[dict[str, Array]]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._samples, None)


@pytest.fixture
def static(proto: ModelProto, tmp_path: Path, samples: list[dict[str, Array]]) -> Callable[..., OnnxModel]:
    """The network quantized by ONNX Runtime's own static tool."""

    def quantize(**options: Any) -> OnnxModel:
        before, after = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
        onnx.save(proto, before)
        quantize_static(before, after, Reader(samples), weight_type=QuantType.QInt8, **options)
        return OnnxModel(normalize(onnx.load(after))[0])

    return quantize


@pytest.fixture
def dynamic(proto: ModelProto, tmp_path: Path) -> Callable[..., OnnxModel]:
    """The network quantized by ONNX Runtime's own dynamic tool."""

    def quantize(**options: Any) -> OnnxModel:
        before, after = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
        onnx.save(proto, before)
        quantize_dynamic(before, after, **options)
        return OnnxModel(normalize(onnx.load(after))[0])

    return quantize


def texts(model: OnnxModel) -> dict[str, str]:
    return {name: str(scheme) for name, scheme in model.schemes().items()}


def sqnr_db(reference: Array, value: Array) -> float:
    return float(10 * np.log10(np.sum(reference**2) / np.sum((reference - value) ** 2)))


def test_a_float_model_is_float(model: OnnxModel) -> None:
    assert texts(model) == dict.fromkeys(NAMES, "float")


@pytest.mark.parametrize("fmt", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("expected", ["w8a8", "w8a8t"])
def test_static_quantization_is_read_back(static: Callable[..., OnnxModel], fmt: QuantFormat, expected: str) -> None:
    model = static(quant_format=fmt, activation_type=QuantType.QUInt8, per_channel=expected == "w8a8")
    assert texts(model) == dict.fromkeys(NAMES[:4], expected) | {"lstm": "float"}


def test_sixteen_bit_activations_are_read_back(static: Callable[..., OnnxModel]) -> None:
    model = static(activation_type=QuantType.QInt16, per_channel=True)
    assert texts(model) == dict.fromkeys(NAMES[:4], "w8a16") | {"lstm": "float"}


def test_layers_left_out_are_float(static: Callable[..., OnnxModel]) -> None:
    model = static(activation_type=QuantType.QUInt8, per_channel=True, nodes_to_exclude=["stem", "matmul"])
    assert {n for n, s in texts(model).items() if s == "float"} == {"stem", "matmul", "lstm"}


@pytest.mark.parametrize("weights", [QuantType.QUInt8, QuantType.QInt8])
def test_dynamic_quantization_is_read_back(dynamic: Callable[..., OnnxModel], weights: QuantType) -> None:
    # ConvInteger takes one scale for all channels whatever is asked.
    assert texts(dynamic(per_channel=True, weight_type=weights)) == {
        "stem": "w8d8t",
        "depthwise": "w8d8t",
        "fc": "w8d8",
        "matmul": "w8d8",
        "lstm": "w8d8",
    }


def test_dynamic_quantization_per_tensor_is_read_back(dynamic: Callable[..., OnnxModel]) -> None:
    assert texts(dynamic(per_channel=False)) == dict.fromkeys(NAMES, "w8d8t")


def test_half_precision_is_read_back(proto: ModelProto) -> None:
    half = convert_float_to_float16(ModelProto.FromString(proto.SerializeToString()), keep_io_types=True)
    assert texts(OnnxModel(normalize(half)[0])) == dict.fromkeys(NAMES, "f16")


def test_quantization_keeps_names_weights_and_multiplications(
    model: OnnxModel, static: Callable[..., OnnxModel], dynamic: Callable[..., OnnxModel]
) -> None:
    expected = [(layer.name, layer.weights, layer.macs) for layer in model.layers()]
    for quantized in (static(per_channel=True), dynamic(per_channel=True)):
        assert [(layer.name, layer.weights, layer.macs) for layer in quantized.layers()] == expected


@pytest.mark.parametrize("how", ["qdq", "operators", "dynamic"])
def test_activations_of_a_quantized_model_compare_with_those_of_the_float_one(
    how: str,
    model: OnnxModel,
    sample: dict[str, Array],
    static: Callable[..., OnnxModel],
    dynamic: Callable[..., OnnxModel],
) -> None:
    if how == "dynamic":
        quantized = dynamic(per_channel=True, weight_type=QuantType.QUInt8)
    else:
        fmt = QuantFormat.QDQ if how == "qdq" else QuantFormat.QOperator
        quantized = static(quant_format=fmt, activation_type=QuantType.QUInt8, per_channel=True, reduce_range=True)
    before, after = model.run(sample, watch=NAMES), quantized.run(sample, watch=NAMES)
    # Int8 is worth 15 dB or more here; the tensor before a bias or a Relu would be at 5 dB or less.
    assert {n: after[n].dtype for n in NAMES} == {n: np.dtype(np.float32) for n in NAMES}
    assert min(sqnr_db(before[n], after[n]) for n in NAMES) > 12


def test_watching_does_not_stop_integer_kernels(static: Callable[..., OnnxModel], sample: dict[str, Array]) -> None:
    model = static(activation_type=QuantType.QUInt8, per_channel=True)
    watched = model.run(sample, watch=["stem", "depthwise"])
    assert np.array_equal(watched["y"], model.run(sample)["y"])


def matmul(build: Build, weight: list[Any], *, opset: int = 21, **dequantize: Any) -> dict[str, str]:
    """The scheme of a MatMul whose 4 x 6 weight is dequantized; ``weight`` is its dtype, scale and zero point."""
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["f"], name="dq", **dequantize),
        helper.make_node("MatMul", ["x", "f"], ["y"], name="matmul"),
    ]
    proto = build(nodes, {"s": weight[1]}, opset=opset, ir_version=10)
    proto.graph.initializer.append(helper.make_tensor("w", weight[0], [4, 6], np.arange(24) % 8))
    return texts(OnnxModel(proto))


def test_a_dequantized_weight_with_float_input_is_weight_only(build: Build) -> None:
    scale = np.ones(6, np.float32)
    assert matmul(build, [TensorProto.INT8, scale], axis=1) == {"matmul": "w8"}


def test_one_scale_makes_it_per_tensor(build: Build) -> None:
    assert matmul(build, [TensorProto.UINT8, np.float32(1)]) == {"matmul": "w8t"}


def test_four_bits_in_groups_are_read_from_the_block_size(build: Build) -> None:
    scale = np.ones((2, 6), np.float32)
    assert matmul(build, [TensorProto.INT4, scale], axis=0, block_size=2) == {"matmul": "w4g2"}


def test_sixteen_bit_weights_are_read_back(build: Build) -> None:
    assert matmul(build, [TensorProto.INT16, np.float32(1)]) == {"matmul": "w16t"}


def test_one_scale_for_one_channel_counts_as_per_channel(build: Build) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["f"], axis=0),
        helper.make_node("Conv", ["x", "f"], ["y"], name="conv"),
    ]
    weights = {"w": np.ones((1, 4, 1, 1), np.int8), "s": np.ones(1, np.float32)}
    assert texts(OnnxModel(build(nodes, weights, inputs={"x": [1, 4, 2, 2]}))) == {"conv": "w8"}


def test_block_quantized_products_are_read_from_their_attributes(build: Build) -> None:
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], name="fc_Q4", domain="com.microsoft", K=64, N=3, bits=4, block_size=32
    )
    weights = {"w": np.zeros((3, 2, 16), np.uint8), "s": np.ones((3, 2), np.float32)}
    model = OnnxModel(build([node], weights, inputs={"x": ["N", 64]}))
    assert texts(model) == {"fc": "w4g32"}
    assert [(layer.kind, layer.weights, layer.macs) for layer in model.layers()] == [("MatMul", 192, 192)]


def test_a_quantized_input_alone_leaves_a_layer_float(build: Build) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"], name="matmul"),
    ]
    weights = {"w": np.ones((4, 3), np.float32), "s": np.float32(0.1), "z": np.uint8(0)}
    assert texts(OnnxModel(build(nodes, weights))) == {"matmul": "float"}


def test_an_embedding_that_is_scaled_after_the_lookup_is_weight_only(build: Build) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="embedding"),
        helper.make_node("Cast", ["rows"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["scales", "ids"], ["steps"], name="steps"),
        helper.make_node("Mul", ["floats", "steps"], ["y"]),
    ]
    weights = {"table": np.ones((9, 4), np.int8), "scales": np.ones((9, 1), np.float32)}
    assert texts(OnnxModel(build(nodes, weights))) == {"embedding": "w8"}
