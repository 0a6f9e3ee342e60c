from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from qm.plugin import Artifact, BenchmarkJob, UsageError
from qm_onnx.model import OnnxModel
from qm_onnx.session import OrtSession, open_session

Array = NDArray[np.float32]
Save = Callable[..., Path]


def opened(path: Path, threads: int = 1) -> OrtSession:
    return open_session(BenchmarkJob(artifact=Artifact(path=path, format="onnx"), threads=threads))


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread"), (2, "2 threads")])
def test_the_runtime_is_told_in_words(proto: ModelProto, saved: Save, threads: int, words: str) -> None:
    version = ort.__version__
    assert opened(saved(proto), threads).runtime == f"onnxruntime {version} CPUExecutionProvider, {words}"


def test_a_session_runs_as_the_model_does(model: OnnxModel, saved: Save, sample: dict[str, Array]) -> None:
    session = opened(saved(model.native))
    assert [str(s) for s in session.inputs()] == ["x float32 [?, 3, 8, 8]"]
    assert np.array_equal(session.run(sample)["y"], model.run(sample)["y"])


def test_a_batch_that_does_not_fit_is_told(proto: ModelProto, saved: Save) -> None:
    with pytest.raises(UsageError, match="must have the shape"):
        opened(saved(proto)).run({"x": np.zeros((1, 8, 8, 3), np.float32)})


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08\x12")
    with pytest.raises(UsageError, match="refuses model"):
        opened(path)


def test_a_profile_accounts_for_every_layer(
    model: OnnxModel, saved: Save, sample: dict[str, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(saved(model.native))
    monkeypatch.chdir(tmp_path)
    times = session.profile(sample)
    assert [t.layer for t in times if t.layer] == [layer.name for layer in model.layers()]
    assert all(t.latency_us >= 0 for t in times) and sum(t.latency_us for t in times) > 0
    assert {t.integer for t in times if t.layer} == {False}
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_profile_tells_integer_kernels_from_float_ones(
    model: OnnxModel, saved: Save, sample: dict[str, Array], tmp_path: Path
) -> None:
    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(
        saved(model.native), path, weight_type=QuantType.QUInt8, per_channel=True, nodes_to_exclude=["stem"]
    )
    seen = {t.layer: t.integer for t in opened(path).profile(sample) if t.layer and t.integer is not None}
    assert seen == {"stem": False, "depthwise": True, "fc": True, "matmul": True, "lstm": True}


class Once(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: list[dict[str, Array]]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._samples, None)


def test_a_profile_of_a_static_model_finds_layers_in_their_fused_kernels(
    model: OnnxModel, saved: Save, samples: list[dict[str, Array]], tmp_path: Path
) -> None:
    path = tmp_path / "static.onnx"
    quantize_static(saved(model.native), path, Once(samples), activation_type=QuantType.QUInt8, per_channel=True)
    seen = {t.layer: t.integer for t in opened(path).profile(samples[0]) if t.layer and t.integer is not None}
    assert seen == {"stem": True, "depthwise": True, "fc": True, "matmul": True, "lstm": False}


def test_a_profile_of_half_precision_finds_layers_behind_the_casts(
    model: OnnxModel, saved: Save, sample: dict[str, Array]
) -> None:
    half = convert_float_to_float16(ModelProto.FromString(model.native.SerializeToString()), keep_io_types=True)
    seen = {t.layer for t in opened(saved(half)).profile(sample) if t.integer is not None}
    assert seen == {layer.name for layer in model.layers()}


def test_a_profile_of_efficientnet_knows_all_layers(efficientnet: OnnxModel, saved: Save) -> None:
    session = opened(saved(efficientnet.native))
    times = session.profile({"image": np.zeros((1, 3, 224, 224), np.float32)})
    assert {t.layer for t in times if t.layer} == {layer.name for layer in efficientnet.layers()}
