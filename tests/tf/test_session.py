from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qm.plugin import Artifact, BenchmarkJob, UsageError
from qm_tf import alone, flat, runtime
from qm_tf.graph import Graph
from qm_tf.model import LiteModel
from qm_tf.session import LiteSession, open_session

Array = NDArray[np.float32]
VERSION = runtime.version()


def opened(path: Path, threads: int = 1) -> LiteSession:
    return open_session(BenchmarkJob(artifact=Artifact(path=path, format="tflite"), threads=threads))


@pytest.fixture
def small_file(small: LiteModel, tmp_path: Path) -> Path:
    return saved(small.native, tmp_path)


@pytest.fixture
def image(images: list[dict[str, Array]]) -> dict[str, Array]:
    return images[0]


def saved(native: object, folder: Path) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(flat.serialize(native))
    return path


def halved(model: LiteModel) -> object:
    """The first layer's weights stored as halves behind a DEQUANTIZE, as converters store them."""
    native = copy.deepcopy(model.native)
    graph = Graph(native)
    number = model.found[0].weights[0]
    whole = graph.tensor(number)
    half = copy.copy(whole)
    half.name, whole.name = whole.name, b"restored"
    half.type = next(code for code, n in flat.TYPES.items() if n == "FLOAT16")
    native.buffers.append(copy.copy(native.buffers[0]))
    half.buffer = len(native.buffers) - 1
    values = graph.array(number)
    assert values is not None
    graph.native.tensors.append(half)
    flat.store(native, half, values.astype(np.float16))
    whole.buffer = 0
    code = copy.copy(native.operatorCodes[0])
    code.builtinCode = code.deprecatedBuiltinCode = next(c for c, n in flat.OPERATORS.items() if n == "DEQUANTIZE")
    native.operatorCodes.append(code)
    restore = copy.copy(graph.native.operators[0])
    restore.opcodeIndex, restore.builtinOptions, restore.builtinOptionsType = len(native.operatorCodes) - 1, None, 0
    restore.inputs, restore.outputs = [len(graph.native.tensors) - 1], [number]
    graph.native.operators.insert(0, restore)
    return native


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread"), (2, "2 threads")])
def test_the_runtime_is_told_in_words(small_file: Path, threads: int, words: str) -> None:
    assert opened(small_file, threads).runtime == f"LiteRT {VERSION} XNNPACK, {words}"


def test_the_runtime_says_where_xnnpack_has_not_taken_all(models: Path) -> None:
    assert opened(models / "words.tflite").runtime == f"LiteRT {VERSION} XNNPACK for 2 of 6 operations, 1 thread"


def test_a_session_runs_as_the_model_does(small: LiteModel, small_file: Path, image: dict[str, Array]) -> None:
    session = opened(small_file)
    assert list(session.inputs()) == list(small.inputs())
    there = small.run(image)
    assert all(np.array_equal(value, there[name]) for name, value in session.run(image).items())


def test_a_batch_that_does_not_fit_is_told(small_file: Path) -> None:
    with pytest.raises(UsageError, match="must have the shape"):
        opened(small_file).run({"image": np.zeros((1, 8, 8, 3), np.float32)})


def test_a_damaged_file_is_told(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes((models / "small.tflite").read_bytes()[:9000])
    with pytest.raises(UsageError, match="damaged or cut short"):
        opened(path)


def test_a_profile_accounts_for_every_operation_and_layer(
    small: LiteModel, small_file: Path, image: dict[str, Array]
) -> None:
    times = opened(small_file).profile(image)
    assert [t.kind for t in times] == [op.kind for op in small.graph.ops]
    assert [t.layer for t in times if t.layer] == [layer.name for layer in small.layers()]
    assert all(t.latency_us > 0 for t in times)
    assert {t.integer for t in times if t.layer} == {False}
    assert {t.integer for t in times if not t.layer} == {None}
    assert len({t.name for t in times}) == len(times)


def test_layers_of_a_raw_file_have_the_names_that_loading_gives(
    models: Path, loaded: Callable[[str], LiteModel], image: dict[str, Array]
) -> None:
    session = opened(models / "small.tflite")
    assert [spec.name for spec in session.inputs()] == ["image"]
    assert [t.layer for t in session.profile(image) if t.layer] == [layer.name for layer in loaded("small").layers()]


def test_an_operation_cut_out_gives_what_it_gives_in_the_model(small: LiteModel, image: dict[str, Array]) -> None:
    graph = small.graph
    every = [t for op in graph.ops for t in op.outputs if t not in graph.outputs]
    values = runtime.run(small.interpreter(extra_outputs=every), image) | {graph.inputs[0]: image["image"]}
    for op in graph.ops:
        content = alone.cut(graph, op, {t: v.shape for t, v in values.items()})
        interpreter = runtime.opened(content, "one operation")
        for details, number in zip(interpreter.get_input_details(), alone.fed(graph, op), strict=True):
            interpreter.set_tensor(details["index"], values[number])
        interpreter.invoke()
        got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert np.array_equal(got, values[op.outputs[0]]), op


def test_an_operation_alone_is_delegated_as_it_is_in_the_model(loaded: Callable[[str], LiteModel]) -> None:
    model = loaded("words")
    graph = model.graph
    whole = alone.delegated(graph, model.interpreter())
    for op in graph.ops:
        content = alone.cut(graph, op, {})
        interpreter = runtime.opened(content, "one operation")
        assert bool(alone.delegated(Graph(flat.parse(content)), interpreter)) == (op.number in whole), op


def test_builtin_kernels_are_shown(models: Path) -> None:
    session = opened(models / "words.tflite")
    ids = {session.inputs()[0].name: np.zeros((1, 12), np.int32)}
    kinds = {t.layer: t.kind for t in session.profile(ids) if t.layer}
    assert list(kinds.values()) == ["GATHER (no XNNPACK)", "FULLY_CONNECTED"]


def test_a_table_multiplies_nothing(models: Path) -> None:
    session = opened(models / "words.tflite")
    ids = {session.inputs()[0].name: np.zeros((1, 12), np.int32)}
    assert [t.integer for t in session.profile(ids) if t.layer] == [None, False]


def test_what_prepares_constants_takes_no_time_of_its_own(
    small: LiteModel, tmp_path: Path, image: dict[str, Array]
) -> None:
    session = opened(saved(halved(small), tmp_path))
    times = session.profile(image)
    assert session.runtime == f"LiteRT {VERSION} XNNPACK, 1 thread"
    assert "DEQUANTIZE" not in {t.kind for t in times}
    assert [t.layer for t in times if t.layer] == [layer.name for layer in small.layers()]


@pytest.mark.parametrize(("name", "integer"), [("kws_mlperf_int8", True), ("resnet8_mlperf_int8", True)])
def test_integer_kernels_are_told(shared: Path, name: str, *, integer: bool) -> None:
    session = opened(shared / "models" / f"{name}.tflite")
    batch = {s.name: np.zeros([n or 1 for n in s.shape], s.dtype) for s in session.inputs()}
    times = session.profile(batch)
    assert {t.integer for t in times if t.layer} == {integer}
    assert "SOFTMAX (no XNNPACK)" in {t.kind for t in times}
    assert "operations, 1 thread" in session.runtime


def test_dynamic_range_layers_multiply_integers(shared: Path) -> None:
    path = shared / "models" / "kws_mlperf_dynamic.tflite"
    session = opened(path)
    batch = {s.name: np.zeros([n or 1 for n in s.shape], s.dtype) for s in session.inputs()}
    integer = {t.layer: t.integer for t in session.profile(batch) if t.layer}
    schemes = LiteModel(path.read_bytes()).schemes()
    assert integer == {layer: not scheme.is_float for layer, scheme in schemes.items()}
    assert set(integer.values()) == {True, False}
