"""Models whose weights stay on the disk: small ones here, taken the way of those that are larger than memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import qm
from qm.plugin import ExportJob, LoadJob, Plan, QmError, QuantizeJob, Scheme, UsageError
from qm_onnx import graph
from qm_onnx.export import export
from qm_onnx.load import load
from qm_onnx.model import OnnxModel
from qm_onnx.spill import Spill
from qm_onnx.weights import quantize

T = TypeVar("T")
SCHEMES = ["w8", "w4g32", "w4g128"]
KINDS = {"Gather", "Gemm", "MatMul"}
STREAM = {"in_memory_mb": 0}


class Stop(Exception):
    """A run that is cut off."""


class Until:
    """Progress that stops after some layers."""

    def __init__(self, layers: int) -> None:
        self._layers = layers

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        for i, item in enumerate(items):
            if i == self._layers:
                raise Stop
            yield item


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def every_kind() -> ModelProto:
    """An embedding, matrices on both sides of a product, a Gemm with transB, tied weights, and one without a scheme."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="words"),
        helper.make_node("MatMul", ["e", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="tied"),
        helper.make_node("MatMul", ["left", "b"], ["c"], name="mix"),
        helper.make_node("ReduceMean", ["c"], ["m"], name="mean", axes=[0], keepdims=1),
        helper.make_node("Gemm", ["m", "head"], ["g"], name="head", transB=1),
        helper.make_node("Transpose", ["turned"], ["upright"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["g", "upright"], ["h"], name="last"),
        helper.make_node("Mul", ["h", "factors"], ["y"], name="scale"),
    ]
    weights = {
        "table": normal(150, 160, seed=1),
        "w": normal(160, 160, seed=2) / 12,
        "left": normal(33, 5, seed=3),
        "head": normal(131, 160, seed=4),
        "turned": normal(160, 131, seed=5),
        "factors": normal(131, 160, seed=6),
    }
    made = helper.make_graph(
        nodes,
        "every",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [131, 160])],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(autouse=True)
def _beside_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qm_onnx.load.SMALL", 64)


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """``every_kind``, its weights in a file of another name than ours."""
    path = tmp_path / "in" / "net.onnx"
    path.parent.mkdir()
    onnx.save(every_kind(), path, save_as_external_data=True, location="weights.bin", size_threshold=64)
    return path


def job(model: OnnxModel, scheme: str, **more: object) -> QuantizeJob:
    layers = {m.name: Scheme.parse(scheme) for m in model.layers() if m.kind in KINDS}
    return QuantizeJob(model=model, plan=Plan(layers), **more)  # type: ignore[arg-type]


def streamed(path: Path) -> OnnxModel:
    return load(LoadJob(path=path, streamed=True))


def contents(path: Path) -> tuple[bytes, dict[str, bytes]]:
    """The graph without its tensors' values, and the values by name."""
    proto = onnx.load(path)
    values = {t.name: t.raw_data for t in proto.graph.initializer}
    for t in graph.tensors(proto):
        t.ClearField("raw_data")
        t.ClearField("data_location")
    return proto.SerializeToString(deterministic=True), values


def written(model: OnnxModel, path: Path) -> Path:
    return export(ExportJob(model=model, path=path)).path


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_streamed_model_is_quantized_as_one_in_memory_bit_for_bit(
    beside: Path, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qm_onnx.encode.PIECE", 5000)
    model = streamed(beside)
    assert model.is_streamed and not load(LoadJob(path=beside)).is_streamed
    made = written(quantize(job(model, scheme)), tmp_path / "streamed.onnx")
    held = load(LoadJob(path=beside))
    # What folding constants changes is not at issue: both start from the graph as it is in the file.
    held = OnnxModel(_with_values(model.proto, beside.parent))
    reference = written(quantize(job(held, scheme)), tmp_path / "held.onnx")
    assert contents(made) == contents(reference)


def _with_values(proto: ModelProto, folder: Path) -> ModelProto:
    copy = ModelProto.FromString(proto.SerializeToString())
    onnx.load_external_data_for_model(copy, str(folder))
    return copy


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_command_leaves_a_whole_result_that_runs_and_nothing_else(
    beside: Path, tmp_path: Path, scheme: str
) -> None:
    to = tmp_path / "out" / "small.onnx"
    to.parent.mkdir()
    report = qm.quantize(beside, ["onnx.weights"], scheme=scheme, load=STREAM, to=to)
    names = {"small.onnx", "small.onnx.data", "small.onnx.report.json"}
    assert {p.name for p in to.parent.iterdir()} == names
    (unrun,) = (f for f in report.findings if f.check == "runs")
    assert unrun.seen.startswith("not run") and "--data" in unrun.next
    assert set(report.schemes.values()) == {scheme} and report.accepted
    assert report.size.before > 4 * 150 * 160 and report.size.after == sum(
        (to.parent / n).stat().st_size for n in names - {"small.onnx.report.json"}
    )
    float_model, made = load(LoadJob(path=beside)), load(LoadJob(path=to))
    ids = {"ids": np.array([0, 149, 7, 8, 9], np.int64)}
    reference, got = float_model.run(ids)["y"], made.run(ids)["y"]
    # Five layers of 4-bit normal weights one after another leave about 12 dB; 0 dB would be noise.
    assert 10 * np.log10(np.square(reference).sum() / np.square(reference - got).sum()) > 6


def test_more_than_protobuf_holds_cannot_be_asked_into_memory(beside: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="in_memory_mb"):
        qm.quantize(beside, ["onnx.weights"], load={"in_memory_mb": 2500}, to=tmp_path / "small.onnx")


def test_samples_have_a_streamed_model_run_all_the_same(beside: Path, tmp_path: Path) -> None:
    data = tmp_path / "ids.npz"
    np.savez(data, ids=np.arange(40).reshape(8, 5) % 150)
    report = qm.quantize(beside, ["onnx.weights"], load=STREAM, data=data, to=tmp_path / "small.onnx")
    assert {"opens", "finite", "agrees"} <= {f.check for f in report.findings}


def test_memory_does_not_grow_with_the_model(
    benchmark: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qm_onnx.encode.PIECE", 1 << 14)
    monkeypatch.setattr("qm.numerics.group.TILE", 1 << 14)

    def peak(blocks: int) -> int:
        path = tmp_path / f"{blocks}.onnx"
        benchmark("large_model").write(path, nbytes=blocks * 48 * 128**2, width=128, vocabulary=256)
        model = streamed(path)
        plan = job(model, "w4g32")
        tracemalloc.start()
        quantize(plan)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1)  # Imports and caches.
    few, many = peak(2), peak(12)
    # Ten blocks more are 7.9 MB of weights. What grows is the graph: its nodes and names, some 25 kB a block.
    assert many - few < 0.5e6


def stop_after(layers: int, beside: Path, to: Path, scheme: str = "w4g32") -> None:
    with pytest.raises((Stop, QmError)):
        qm.quantize(beside, ["onnx.weights"], scheme=scheme, load=STREAM, to=to, progress=Until(layers))


def finished(beside: Path, to: Path, scheme: str = "w4g32") -> tuple[bytes, dict[str, bytes]]:
    qm.quantize(beside, ["onnx.weights"], scheme=scheme, load=STREAM, to=to)
    assert not to.with_name(to.name + ".partial").exists()
    return contents(to)


def test_a_run_that_was_cut_off_leaves_no_result_and_goes_on_without_reading_again(
    beside: Path, tmp_path: Path
) -> None:
    reference = finished(beside, tmp_path / "whole.onnx")
    to = tmp_path / "small.onnx"
    stop_after(2, beside, to)
    assert not to.exists() and not to.with_name("small.onnx.data").exists()
    # The weights of the two layers that are done cannot be read any more, and nothing else tells so.
    data = beside.parent / "weights.bin"
    before = data.stat()
    done = [t for t in streamed(beside).proto.graph.initializer if t.name in ("table", "w")]
    with data.open("r+b") as f:
        for tensor in done:
            places = {e.key: e.value for e in tensor.external_data}
            f.seek(int(places["offset"]))
            f.write(np.full(int(places["length"]) // 4, np.nan, np.float32).tobytes())
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert finished(beside, to) == reference


def test_what_a_crash_of_the_machine_spoilt_is_made_again(beside: Path, tmp_path: Path) -> None:
    reference = finished(beside, tmp_path / "whole.onnx")
    to = tmp_path / "small.onnx"
    stop_after(3, beside, to)
    (data,) = (tmp_path / "small.onnx.partial").glob("*.data")
    content = bytearray(data.read_bytes())
    content[100:200] = bytes(100)
    data.write_bytes(content[: len(content) - 50])
    assert finished(beside, to) == reference


def test_another_scheme_does_not_go_on_from_what_was_left(beside: Path, tmp_path: Path) -> None:
    reference = finished(beside, tmp_path / "whole.onnx", "w8")
    stop_after(2, beside, tmp_path / "small.onnx", "w4g32")
    assert finished(beside, tmp_path / "small.onnx", "w8") == reference


def test_a_changed_data_file_is_quantized_from_the_start(beside: Path, tmp_path: Path) -> None:
    to = tmp_path / "small.onnx"
    stop_after(2, beside, to)
    data = beside.parent / "weights.bin"
    data.write_bytes((-np.frombuffer(data.read_bytes(), np.float32)).tobytes())
    assert finished(beside, to) == finished(beside, tmp_path / "whole.onnx")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_run_leaves_no_half_file_and_is_taken_up_again(
    benchmark: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    path, to = tmp_path / "net.onnx", tmp_path / "small.onnx"
    benchmark("large_model").write(path, nbytes=60_000_000, width=512, vocabulary=512)
    words = ["-o", "in_memory_mb=0", str(path), "-p", "onnx.weights", "--scheme", "w4g32", "--to", str(to)]
    child = subprocess.Popen([sys.executable, "-m", "qm", "quantize", *words], stdout=subprocess.DEVNULL)
    journal: list[Path] = []
    while child.poll() is None and not (journal and journal[0].read_bytes().count(b"\n") > 3):
        time.sleep(0.005)
        journal = list(tmp_path.glob("small.onnx.partial/*.jsonl"))
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was done before it could be killed"
    assert not to.exists() and journal
    assert finished(path, to) == finished(path, tmp_path / "whole.onnx")


def test_two_runs_do_not_write_to_one_place(tmp_path: Path) -> None:
    first = Spill(tmp_path / "small.onnx.partial", "subject")
    with pytest.raises(UsageError, match="another run is at work in"):
        Spill(tmp_path / "small.onnx.partial", "subject")
    first.close()
    Spill(tmp_path / "small.onnx.partial", "subject").close()


def test_whoever_keeps_the_error_of_a_run_can_start_it_again(beside: Path, tmp_path: Path) -> None:
    to = tmp_path / "small.onnx"
    with pytest.raises((Stop, QmError)) as kept:
        qm.quantize(beside, ["onnx.weights"], load=STREAM, to=to, progress=Until(2))
    assert kept.tb is not None and finished(beside, to, "w8")


def failure(beside: Path, tmp_path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        qm.quantize(beside, ["onnx.weights"], load=STREAM, to=tmp_path / "small.onnx")
    assert not (tmp_path / "small.onnx").exists()
    return caught.value.message


def test_a_missing_data_file_is_named(beside: Path, tmp_path: Path) -> None:
    (beside.parent / "weights.bin").unlink()
    assert "weights.bin', which does not exist" in failure(beside, tmp_path)


def test_a_data_file_cut_short_is_told(beside: Path, tmp_path: Path) -> None:
    data = beside.parent / "weights.bin"
    os.truncate(data, data.stat().st_size - 4)
    assert "are cut short" in failure(beside, tmp_path)


def spoil(beside: Path, key: str, value: str) -> None:
    proto = onnx.load(beside, load_external_data=False)
    (tensor,) = (t for t in proto.graph.initializer if t.name == "head")
    next(e for e in tensor.external_data if e.key == key).value = value
    beside.write_bytes(proto.SerializeToString())


def test_an_offset_beyond_the_data_file_is_told(beside: Path, tmp_path: Path) -> None:
    spoil(beside, "offset", "99999999")
    assert "are cut short" in failure(beside, tmp_path)


def test_a_length_that_does_not_fit_the_shape_is_told(beside: Path, tmp_path: Path) -> None:
    spoil(beside, "length", "400")
    assert failure(beside, tmp_path) == "the weight 'head' has 400 bytes in 'weights.bin', and 83,840 by its shape"


def test_a_data_file_that_shrinks_meanwhile_is_told(beside: Path) -> None:
    model = streamed(beside)
    os.truncate(beside.parent / "weights.bin", 5000)
    with pytest.raises(UsageError, match="cannot be read from"):
        quantize(job(model, "w8"))


def test_a_weight_with_nan_is_refused_by_name(beside: Path, tmp_path: Path) -> None:
    data = beside.parent / "weights.bin"
    with data.open("r+b") as f:
        f.write(np.full(4, np.nan, np.float32).tobytes())
    assert "holds NaN or infinity" in failure(beside, tmp_path)


def test_without_a_place_to_go_on_from_the_spill_is_gone_with_the_model(beside: Path, tmp_path: Path) -> None:
    made = quantize(job(streamed(beside), "w8"))
    assert made.spill is not None and made.spill.path.exists()
    first, second = (contents(written(made, tmp_path / f"{n}.onnx"))[1] for n in ("a", "b"))
    assert first == second
    place = made.spill.folder
    del made
    assert not place.exists()
