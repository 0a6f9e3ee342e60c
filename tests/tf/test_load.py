from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qm.plugin import LoadJob, QmError, Unsupported, UsageError
from qm_tf import flat
from qm_tf.load import load
from qm_tf.model import LiteModel

Damage = Callable[[Any], None]


def loaded_from(path: Path) -> LiteModel:
    return load(LoadJob(path=path))


def saved(native: Any, folder: Path) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(flat.serialize(native))
    return path


def test_a_float_model_is_put_in_order(models: Path) -> None:
    model = loaded_from(models / "small.tflite")
    assert [layer.name for layer in model.layers()][:2] == ["stem_1", "depthwise_1"]
    assert model.nbytes() < (models / "small.tflite").stat().st_size


def test_a_quantized_file_stays_as_it_is(shared: Path) -> None:
    path = shared / "models" / "kws_mlperf_int8.tflite"
    assert loaded_from(path).content == path.read_bytes()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"PK\x03\x04" + bytes(50), "a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"what is this, then?", "no TensorFlow Lite model"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_tflite_file_is_told_by_what_it_is(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=text):
        loaded_from(path)


@pytest.mark.parametrize("part", [0.01, 0.25, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_told(models: Path, tmp_path: Path, part: float) -> None:
    whole = (models / "small.tflite").read_bytes()
    path = tmp_path / "model.tflite"
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(UsageError):
        loaded_from(path)


def no_such_tensor(native: Any) -> None:
    native.subgraphs[0].operators[0].inputs = [0, 999, 1]


def no_such_buffer(native: Any) -> None:
    native.subgraphs[0].tensors[0].buffer = 12345


def no_such_operator(native: Any) -> None:
    native.subgraphs[0].operators[0].opcodeIndex = 99


def huge(native: Any) -> None:
    native.subgraphs[0].tensors[-2].shape = [1, 8, 16_777_224, 32]


def short_weight(native: Any) -> None:
    buffer = max((b for b in native.buffers if b.data is not None), key=lambda b: len(b.data))
    buffer.data = buffer.data[:-4]


def too_many_scales(native: Any) -> None:
    tensor = native.subgraphs[0].tensors[0]
    tensor.quantization = tensor.quantization or flat.schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.quantizedDimension = [0.1, 0.2], 7


def scale_that_is_no_number(native: Any) -> None:
    tensor = native.subgraphs[0].tensors[0]
    tensor.quantization = tensor.quantization or flat.schema.QuantizationParametersT()
    tensor.quantization.scale = [float("nan")]


def integers_without_scale(native: Any) -> None:
    first = native.subgraphs[0].operators[0]
    given, made = (native.subgraphs[0].tensors[int(t)] for t in (first.inputs[0], first.outputs[0]))
    given.type = made.type = 9
    given.quantization = flat.schema.QuantizationParametersT()
    given.quantization.scale, given.quantization.zeroPoint = [0.5], [0]


def out_of_order(native: Any) -> None:
    native.subgraphs[0].operators.reverse()


def name_that_is_no_text(native: Any) -> None:
    native.subgraphs[0].tensors[0].name = b"\xc4\xff"


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (no_such_tensor, "uses tensor 999, of"),
        (no_such_buffer, "is in buffer 12345, of"),
        (no_such_operator, "is of kind 99, of"),
        (huge, "would take"),
        (short_weight, "bytes"),
        (too_many_scales, "2 scales along axis 7"),
        (scale_that_is_no_number, "is not a number above 0"),
        (integers_without_scale, "has no scale"),
        (out_of_order, "before it is there"),
        (name_that_is_no_text, "is no text"),
    ],
)
def test_what_would_end_the_process_is_refused_before(
    small: LiteModel, tmp_path: Path, harm: Damage, text: str
) -> None:
    native = copy.deepcopy(small.native)
    harm(native)
    with pytest.raises(UsageError, match=text) as caught:
        loaded_from(saved(native, tmp_path))
    assert "is damaged" in caught.value.message


def test_flipped_bytes_end_in_a_model_or_in_an_error_of_ours(models: Path, tmp_path: Path) -> None:
    whole = (models / "mlp.tflite").read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(len(whole) - 6000, len(whole), 3):
            content[place] ^= 1 << int(rng.integers(8))
        path = tmp_path / "model.tflite"
        path.write_bytes(content)
        try:
            loaded_from(path).schemes()
        except QmError:
            continue


def renamed(small: LiteModel, custom: str) -> Any:
    native = copy.deepcopy(small.native)
    code = native.operatorCodes[native.subgraphs[0].operators[-1].opcodeIndex]
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, custom.encode()
    last = native.subgraphs[0].operators[-1]
    last.builtinOptions, last.builtinOptionsType = None, 0
    return native


@pytest.mark.parametrize(
    ("custom", "text"),
    [("FlexLgamma", r"TensorFlow operations \(SELECT_TF_OPS\).*'Lgamma'"), ("MyOwn", "has no operation 'MyOwn'")],
)
def test_operations_that_no_interpreter_here_runs_are_named(
    small: LiteModel, tmp_path: Path, custom: str, text: str
) -> None:
    with pytest.raises(Unsupported, match=text):
        loaded_from(saved(renamed(small, custom), tmp_path))


def test_weights_behind_the_flatbuffer_must_be_in_the_file(small: LiteModel, tmp_path: Path) -> None:
    native = copy.deepcopy(small.native)
    buffer = max((b for b in native.buffers if b.data is not None), key=lambda b: len(b.data))
    buffer.offset, buffer.size, buffer.data = 1 << 33, len(buffer.data), None
    path = tmp_path / "model.tflite"
    path.write_bytes(bytes(flat.flatbuffer_utils.convert_object_to_bytearray(native)))
    with pytest.raises(UsageError, match="damaged or cut short"):
        loaded_from(path)
