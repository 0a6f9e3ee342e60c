from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto, helper

from qm.plugin import LoadJob, QmError, Unsupported, UsageError
from qm_onnx.load import load, read
from qm_onnx.model import OnnxModel, is_quantized
from qm_onnx.option import LoadOptions

Save = Callable[..., Path]


def failure(path: Path) -> QmError:
    with pytest.raises(QmError) as caught:
        load(LoadJob(path=path))
    return caught.value


def test_a_model_is_loaded_with_its_inputs_and_outputs(proto: ModelProto, saved: Save) -> None:
    model = load(LoadJob(path=saved(proto)))
    assert [str(s) for s in model.inputs()] == ["x float32 [?, 3, 8, 8]"]
    assert [s.name for s in model.outputs()] == ["y"]


def test_the_file_is_not_touched(proto: ModelProto, saved: Save) -> None:
    path = saved(proto)
    before = path.read_bytes()
    load(LoadJob(path=path))
    assert path.read_bytes() == before


def test_nothing_is_left_in_the_current_folder(
    proto: ModelProto, saved: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(proto)
    monkeypatch.chdir(tmp_path)
    load(LoadJob(path=path))
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    e = failure(tmp_path / "no.onnx")
    assert e.message == f"model {str(tmp_path / 'no.onnx')!r} does not exist"


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert "is a folder" in failure(tmp_path).message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"not a model at all\n" * 100, "is a text file, not an ONNX model"),
        ("naïve text ".encode() * 200, "is a text file, not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"PK\x03\x04" + bytes(50), "is a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "is an HDF5 file"),
        (bytes(4) + b"TFL3" + bytes(50), "is a TensorFlow Lite model"),
        (bytes([0x93, 0x17, 0xFE, 0x00, 0x41] * 300), "is not an ONNX model"),
        (b"\x00" * 100, "is not an ONNX model"),
    ],
    ids=["empty", "text", "utf8", "lfs", "zip", "hdf5", "tflite", "random", "zeros"],
)
def test_what_is_not_onnx_is_told_in_one_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    e = failure(path)
    assert isinstance(e, UsageError) and words in e.message and e.hint and "\n" not in e.message


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_told(proto: ModelProto, saved: Save, share: float) -> None:
    path = saved(proto)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "is damaged or cut short" in failure(path).message


def test_a_name_that_is_not_text_means_damage(proto: ModelProto, saved: Save) -> None:
    path = saved(proto)
    path.write_bytes(path.read_bytes().replace(b"depthwise", b"depth\xff\xfese"))
    assert "is damaged or cut short" in failure(path).message


def test_an_operator_that_never_was_is_named(build: Callable[..., ModelProto], saved: Save) -> None:
    e = failure(saved(build([helper.make_node("Rebu", ["x"], ["y"])], {})))
    assert isinstance(e, Unsupported) and "has no operator 'Rebu'" in e.message


def test_a_file_of_a_future_version_is_refused_without_the_runtimes_code(proto: ModelProto, saved: Save) -> None:
    proto.ir_version = 60
    e = failure(saved(proto))
    assert "Unsupported model IR version: 60" in e.message and "::" not in e.message


def test_a_graph_without_operations_is_refused(build: Callable[..., ModelProto], saved: Save) -> None:
    assert "has no operations" in failure(saved(build([], {}, outputs=["x"]))).message


def test_a_model_without_weights_loads_and_has_no_layers(build: Callable[..., ModelProto], saved: Save) -> None:
    path = saved(build([helper.make_node("Relu", ["x"], ["y"])], {}))
    assert load(LoadJob(path=path)).layers() == ()


def test_an_operator_that_the_runtime_lacks_is_named(build: Callable[..., ModelProto], saved: Save) -> None:
    proto = build([helper.make_node("Frobnicate", ["x"], ["y"], domain="acme.example")], {})
    proto.opset_import.append(helper.make_opsetid("acme.example", 1))
    e = failure(saved(proto))
    assert isinstance(e, Unsupported) and "'acme.example:Frobnicate'" in e.message


def test_an_invalid_graph_is_refused_with_the_runtimes_reason(build: Callable[..., ModelProto], saved: Save) -> None:
    e = failure(saved(build([helper.make_node("Relu", ["nowhere"], ["y"])], {})))
    assert isinstance(e, UsageError) and "nowhere" in e.message and "\n" not in e.message


@pytest.fixture
def beside(proto: ModelProto, tmp_path: Path) -> Path:
    """The network with its weights in a file of their own."""
    path = tmp_path / "model.onnx"
    copy = ModelProto.FromString(proto.SerializeToString())  # onnx.save moves the weights of what it is given.
    onnx.save(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data_is_read(beside: Path, model: OnnxModel, sample: dict[str, object]) -> None:
    assert (load(LoadJob(path=beside)).run(sample)["y"] == model.run(sample)["y"]).all()


def test_large_external_data_stays_in_its_file(
    beside: Path, model: OnnxModel, sample: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qm_onnx.load.SMALL", 500)
    loaded = load(LoadJob(path=beside, options=LoadOptions(in_memory_mb=0.002)))
    assert {t.name for t in loaded.native.graph.initializer if t.external_data} == {"w0", "w2", "W", "R"}
    assert (loaded.run(sample)["y"] == model.run(sample)["y"]).all()


def test_missing_external_data_is_named(beside: Path) -> None:
    (beside.parent / "weights.bin").unlink()
    assert f"{str(beside.parent / 'weights.bin')!r}, which does not exist" in failure(beside).message


def test_external_data_cut_short_is_told(beside: Path) -> None:
    data = beside.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:-100])
    assert "are cut short" in failure(beside).message


def test_external_data_outside_the_models_folder_is_refused(beside: Path) -> None:
    proto = onnx.load(beside, load_external_data=False)
    for tensor in proto.graph.initializer:
        tensor.external_data[0].value = "../weights.bin"
    beside.write_bytes(proto.SerializeToString())
    assert "outside its own folder" in failure(beside).message


def test_a_quantized_file_loads_and_is_known_as_such(build: Callable[..., ModelProto], saved: Save) -> None:
    import numpy as np

    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["wf"]),
        helper.make_node("MatMul", ["x", "wf"], ["y"], name="matmul"),
    ]
    weights = {"w": np.ones((4, 3), np.int8), "s": np.float32(0.5)}
    model = load(LoadJob(path=saved(build(nodes, weights))))
    assert is_quantized(model)
    assert [n.op_type for n in model.native.graph.node] == ["DequantizeLinear", "MatMul"]


def test_reading_leaves_the_model_as_it_is(proto: ModelProto, saved: Save) -> None:
    assert read(saved(proto)) == proto
