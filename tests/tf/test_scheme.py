from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qm_tf import flat
from qm_tf.model import LiteModel
from qm_tf.scheme import is_quantized, schemes

CODES = {name: code for code, name in flat.TYPES.items()}


def retyped(model: LiteModel, weight: str, data: str = "FLOAT32", scales: int = 0, block: int = 0) -> Any:
    """The model with its last layer's weight and input said to be of other types; it is read, never run."""
    native = copy.deepcopy(model.native)
    f = model.found[-1]
    tensor = native.subgraphs[0].tensors[f.weights[0]]
    tensor.type = CODES[weight]
    tensor.quantization = flat.schema.QuantizationParametersT()
    tensor.quantization.scale = np.ones(scales, np.float32)
    if block:
        tensor.quantization.details = flat.schema.BlockwiseQuantizationT()
        tensor.quantization.details.blockSize = block
    native.subgraphs[0].tensors[f.data].type = CODES[data]
    return native


@pytest.mark.parametrize(
    ("weight", "data", "scales", "expected"),
    [
        ("INT8", "INT8", 40, "w8a8"),
        ("INT8", "INT8", 1, "w8a8t"),
        ("INT4", "INT8", 40, "w4a8"),
        ("INT8", "INT16", 40, "w8a16"),
        ("INT8", "FLOAT32", 40, "w8d8"),
        ("INT4", "FLOAT32", 1, "w4d8t"),
        ("INT2", "FLOAT32", 40, "w2d8"),
        ("FLOAT16", "FLOAT32", 0, "f16"),
        ("FLOAT32", "FLOAT32", 0, "float"),
    ],
)
def test_a_scheme_is_read_from_the_types(mlp: LiteModel, weight: str, data: str, scales: int, expected: str) -> None:
    assert str(schemes(retyped(mlp, weight, data, scales))["last_1"]) == expected


def test_blocks_of_a_weight_are_groups(mlp: LiteModel) -> None:
    assert str(schemes(retyped(mlp, "INT4", block=32))["last_1"]) == "w4d8g32"


def test_a_float_model_is_not_quantized(mlp: LiteModel) -> None:
    assert not is_quantized(mlp.native)
    assert is_quantized(retyped(mlp, "INT8", scales=40))


def test_real_files_are_read(shared: Path) -> None:
    def found(name: str) -> set[str]:
        model = LiteModel((shared / "models" / f"{name}.tflite").read_bytes())
        return {str(s) for s in model.schemes().values()}

    assert found("resnet8_mlperf_int8") == {"w8a8", "w8a8t"}  # Per tensor in the dense layer.
    assert found("kws_mlperf_int8") == {"w8a8", "w8a8t"}
    assert found("kws_mlperf_dynamic") == {"w8d8t", "float"}  # Its name upstream says float32.
