"""Calibration in a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from qm.numerics import METHODS
from qm.plugin import Batch, Silent, UsageError
from qm_onnx.calibrate import observe
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize

Build = Callable[..., ModelProto]
TENSORS = {"x": "conv", "c": "conv", "r": "relu", "y": "fc"}


class Data:
    labels = None

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches
        self.walks = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        self.walks += 1
        return iter(self.batches)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def small(build: Build) -> OnnxModel:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="fc"),
        helper.make_node("ArgMax", ["y"], ["s"], name="largest"),
        helper.make_node("Cast", ["s"], ["z"], name="cast", to=TensorProto.FLOAT),
    ]
    weights = {"w": normal(4, 3, 1, 1), "v": normal(64, 5)}
    return OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 3, 4, 4]}, outputs=["y", "z"]))[0])


@pytest.fixture
def data() -> Data:
    return Data([{"x": normal(1, 3, 4, 4, seed=i) * (1 + i)} for i in range(6)])


def test_extremes_are_those_of_all_samples(small: OnnxModel, data: Data) -> None:
    seen = observe(small, TENSORS, data, method="minmax", progress=Silent())
    session = small.session(extra_outputs=["c", "r"])
    every = [session.run(["c", "r", "y"], dict(b)) for b in data.batches]
    for i, name in enumerate(("c", "r", "y")):
        assert seen[name].low == pytest.approx(min(float(v[i].min()) for v in every), rel=1e-5)
        assert seen[name].high == pytest.approx(max(float(v[i].max()) for v in every), rel=1e-5)
    assert seen["x"].high == max(float(b["x"].max()) for b in data.batches)


@pytest.mark.parametrize("method", METHODS)
def test_the_samples_are_walked_through_once(small: OnnxModel, data: Data, method: str) -> None:
    seen = observe(small, TENSORS, data, method=method, progress=Silent())
    assert data.walks == 1
    assert {s.samples for s in seen.values()} == {6}


def test_a_histogram_is_kept_only_where_the_method_needs_it(small: OnnxModel, data: Data) -> None:
    kept = {m: observe(small, TENSORS, data, method=m, progress=Silent())["c"].has_histogram for m in METHODS}
    assert kept == {"minmax": False, "percentile": True, "mse": True, "entropy": True}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_kept_does_not_grow_with_the_samples(small: OnnxModel, method: str) -> None:
    def kept(count: int) -> int:
        data = Data([{"x": normal(1, 3, 4, 4, seed=i % 4)} for i in range(count)])
        return sum(s.nbytes for s in observe(small, TENSORS, data, method=method, progress=Silent()).values())

    assert kept(1600) == kept(800)


def test_tensors_that_are_not_float_are_left_out(small: OnnxModel, data: Data) -> None:
    assert set(observe(small, {"s": "largest", "y": "fc"}, data, method="minmax", progress=Silent())) == {"y"}


def test_nan_is_told_with_its_layer_and_sample(small: OnnxModel, data: Data) -> None:
    data.batches[3]["x"][0, 0, 0, 0] = np.inf
    with pytest.raises(UsageError, match=r"tensor '.' at '\w+' holds NaN or infinity for calibration sample 3"):
        observe(small, {"c": "conv", "y": "fc"}, data, method="minmax", progress=Silent())


def test_nan_in_an_input_is_told_as_such(small: OnnxModel, data: Data) -> None:
    data.batches[2]["x"][0, 1, 0, 0] = np.nan
    with pytest.raises(UsageError, match="input 'x' holds NaN or infinity for calibration sample 2"):
        observe(small, TENSORS, data, method="minmax", progress=Silent())


def test_a_sample_of_another_shape_is_refused(small: OnnxModel) -> None:
    with pytest.raises(UsageError, match=r"shape \[1, 3, 4, 4\], not \[1, 4, 4, 3\]"):
        observe(small, TENSORS, Data([{"x": normal(1, 4, 4, 3)}]), method="minmax", progress=Silent())


def test_no_samples_are_too_few(small: OnnxModel) -> None:
    with pytest.raises(UsageError, match="no samples"):
        observe(small, TENSORS, Data([]), method="minmax", progress=Silent())


def test_one_sample_is_enough(small: OnnxModel, data: Data) -> None:
    assert observe(small, TENSORS, Data(data.batches[:1]), method="mse", progress=Silent())["y"].samples == 1


def test_progress_is_told(small: OnnxModel, data: Data) -> None:
    class Told(Silent):
        told: tuple[str, int | None] = ("", 0)

        def track(self, items, label, total=None):  # type: ignore[no-untyped-def]
            self.told = label, total
            yield from items

    progress = Told()
    observe(small, TENSORS, data, method="minmax", progress=progress)
    assert progress.told == ("calibrating", 6)


def test_no_file_is_written(small: OnnxModel, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    observe(small, TENSORS, data, method="mse", progress=Silent())
    assert list(tmp_path.iterdir()) == []


def test_what_else_is_looked_at_changes_no_bit(build: Build) -> None:
    # In ONNX Runtime's blocked layout the Add would vanish into the second convolution, which sums in another order.
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "v"], ["b"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["a", "b"], ["s"], name="sum"),
        helper.make_node("Conv", ["s", "u"], ["y"], name="third"),
    ]
    weights = {"w": normal(64, 3, 3, 3), "v": normal(64, 64, 3, 3, seed=1), "u": normal(8, 64, 1, 1, seed=2)}
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 3, 16, 16]}, outputs=["y"]))[0])
    data = Data([{"x": normal(1, 3, 16, 16, seed=i)} for i in range(4)])
    every = observe(model, dict.fromkeys("absy", "it"), data, method="minmax", progress=Silent())
    for name in "sy":
        alone = observe(model, {name: "it"}, data, method="minmax", progress=Silent())[name]
        assert (alone.low, alone.high) == (every[name].low, every[name].high)


@pytest.fixture
def activated(build: Build) -> OnnxModel:
    """A Relu, a Clip whose limits are reached at once, and one whose upper limit never is, with data between."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "v"], ["b"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["b", "zero", "six"], ["c"], name="clip"),
        helper.make_node("Conv", ["c", "v"], ["d"], name="third", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["d", "zero", "huge"], ["e"], name="wide"),
        helper.make_node("Conv", ["e", "u"], ["y"], name="last"),
    ]
    weights = {"w": normal(16, 3, 3, 3), "v": normal(16, 16, 3, 3, seed=1), "u": normal(8, 16, 1, 1, seed=2)}
    limits = {n: np.array(v, np.float32) for n, v in (("zero", 0), ("six", 6), ("huge", 1e9))}
    return OnnxModel(normalize(build(nodes, weights | limits, inputs={"x": [1, 3, 8, 8]}, outputs=["y"]))[0])


@pytest.fixture
def growing() -> Data:
    return Data([{"x": normal(1, 3, 8, 8, seed=i) * (1 + i)} for i in range(12)])


@pytest.mark.parametrize("counted", [0, 3])
def test_extremes_are_the_same_however_few_samples_are_counted(
    activated: OnnxModel, growing: Data, counted: int
) -> None:
    whose = dict.fromkeys("xarbcdey", "it")
    every = observe(activated, whose, growing, method="minmax", counted=12, progress=Silent())
    few = observe(activated, whose, growing, method="minmax", counted=counted, progress=Silent())
    assert {t: (s.low, s.high) for t, s in few.items()} == {t: (s.low, s.high) for t, s in every.items()}
    assert every["c"].high == 6


def test_values_are_counted_of_the_first_samples_alone(activated: OnnxModel, growing: Data) -> None:
    seen = observe(activated, {"y": "last"}, growing, method="minmax", counted=3, progress=Silent())["y"]
    # A result of 512 values is counted whole.
    assert seen.bins()[2].sum() == 3 * 8 * 8 * 8
    assert seen.samples == 12


def test_a_tensor_whose_limits_are_reached_is_looked_at_no_more(activated: OnnxModel, growing: Data) -> None:
    seen = observe(activated, dict.fromkeys("ce", "it"), growing, method="minmax", progress=Silent())
    assert seen["c"].samples == 1
    assert seen["e"].samples == 12


def test_an_infinity_is_told_where_only_peaks_are_looked_at(activated: OnnxModel, growing: Data) -> None:
    # Through the first convolution it reaches the Relu alone, of which the largest value is all that is open.
    growing.batches[7]["x"][...] = 1e38
    with pytest.raises(UsageError, match="tensor 'r' at 'relu' holds NaN or infinity for calibration sample 7"):
        observe(activated, {"r": "relu"}, growing, method="minmax", progress=Silent())
