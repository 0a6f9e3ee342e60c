from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qm.plugin import UsageError
from qm_tf import flat, runtime
from qm_tf.model import LiteModel
from qm_tf.runtime import Runner

Array = NDArray[np.float32]


@pytest.fixture
def free(mlp: LiteModel) -> Runner:
    """``mlp`` for any number of samples."""
    native = copy.deepcopy(mlp.native)
    for number in (*mlp.graph.inputs, *(t for op in mlp.graph.ops for t in op.outputs)):
        native.subgraphs[0].tensors[number].shapeSignature = [-1, *mlp.graph.shape(number)[1:]]
    return Runner(runtime.opened(flat.serialize(native), "free"))


def answer(runner: Runner, rows: Array) -> Array:
    return next(iter(runner.restored(runner.run({"features": rows})).values()))


def test_runs_of_other_lengths_follow_each_other(free: Runner) -> None:
    rows = np.random.default_rng(0).normal(size=(8, 40)).astype(np.float32)
    assert [str(s) for s in runtime.specs(free.inputs)] == ["features float32 [?, 40]"]
    together = answer(free, rows)
    one_by_one = np.concatenate([answer(free, rows[i : i + 1]) for i in range(8)])
    # Kernels for several rows add in another order than those for one.
    assert together == pytest.approx(one_by_one, abs=1e-5)
    assert np.array_equal(answer(free, rows), together)


def test_a_batch_that_does_not_fit_does_not_spoil_the_next(free: Runner) -> None:
    rows = np.ones((2, 40), np.float32)
    before = answer(free, rows)
    with pytest.raises(UsageError, match=r"must have the shape \[\?, 40\], not \[2, 41\]"):
        answer(free, np.ones((2, 41), np.float32))
    assert np.array_equal(answer(free, rows), before)


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ({}, "lacks the input 'features'; it has nothing"),
        ({"features": np.zeros((1, 40), np.float32), "more": np.zeros(1)}, "no input 'more'"),
        ({"features": np.zeros((1, 40))}, "must be float32, not float64"),
        ({"features": np.zeros(40, np.float32)}, "must have the shape"),
    ],
)
def test_what_is_wrong_with_a_batch_is_told(mlp: LiteModel, batch: dict[str, Array], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        mlp.run(batch)


def test_nan_goes_through(mlp: LiteModel) -> None:
    out = mlp.run({"features": np.full((1, 40), np.nan, np.float32)})
    assert all(np.isnan(v).any() for v in out.values())


def test_what_comes_out_is_not_changed_by_the_next_run(mlp: LiteModel, features: list[dict[str, Array]]) -> None:
    first = mlp.run(features[0])
    kept = {name: value.copy() for name, value in first.items()}
    mlp.run(features[1])
    assert all(np.array_equal(first[name], kept[name]) for name in kept)


INTEGER = {"dtype": np.int8, "quantization": (0.5, -10)}


def test_real_values_are_rounded_and_cut_to_the_integers_of_an_input() -> None:
    values = np.array([0.0, 0.25, 0.26, 1.0, 1e6, -1e6], np.float32)
    # 0.25 / 0.5 is half a step, which goes to the even step.
    assert runtime.fed(values, INTEGER).tolist() == [-10, -10, -9, -8, 127, -128]
    assert values.tolist() == [0.0, 0.25, np.float32(0.26), 1.0, 1e6, -1e6]


def test_integers_are_fed_as_they_are() -> None:
    values = np.array([3, -4], np.int8)
    assert runtime.fed(values, INTEGER) is values


def test_integers_of_an_output_are_restored() -> None:
    assert runtime.restored(np.array([-10, -8], np.int8), INTEGER).tolist() == [0.0, 1.0]


def test_integers_without_a_scale_stay() -> None:
    values = np.array([1, 2], np.int8)
    assert runtime.restored(values, {"dtype": np.int8, "quantization": (0.0, 0)}) is values


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_the_answer(small: LiteModel, images: list[dict[str, Array]], threads: int) -> None:
    made = Runner(small.interpreter(threads=threads))
    got, there = made.restored(made.run(images[0])), small.run(images[0])
    assert all(np.array_equal(got[name], there[name]) for name in there)


def test_a_file_that_is_no_flatbuffer_is_damaged(models: Path) -> None:
    content = (models / "small.tflite").read_bytes()
    with pytest.raises(UsageError, match="damaged or cut short"):
        runtime.opened(content[:9000], "model.tflite")
