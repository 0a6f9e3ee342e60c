from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qm.plugin import UsageError
from qm_tf import runtime
from qm_tf.model import LiteModel

Array = NDArray[np.float32]


def test_watched_layers_give_what_a_run_that_keeps_all_tensors_gives(
    small: LiteModel, images: list[dict[str, Array]]
) -> None:
    names = [f.name for f in small.found]
    seen = small.run(images[0], watch=names)
    kept = small.interpreter(extra_outputs=[t for op in small.graph.ops for t in op.outputs])
    values = runtime.run(kept, images[0])
    assert all(np.array_equal(seen[f.name], values[f.output]) for f in small.found)


def test_watching_leaves_the_outputs_as_they_are(small: LiteModel, images: list[dict[str, Array]]) -> None:
    alone, watched = small.run(images[0]), small.run(images[0], watch=["down_1", "stem_1"])
    assert list(watched) == [*alone, "down_1", "stem_1"]
    assert all(np.array_equal(alone[name], watched[name]) for name in alone)


def test_a_layer_that_is_an_output_can_be_watched(mlp: LiteModel, features: list[dict[str, Array]]) -> None:
    seen = mlp.run(features[0], watch=["last_1"])
    assert np.array_equal(seen["last_1"], seen[mlp.outputs()[0].name])


def test_a_layer_that_is_not_there_is_told(small: LiteModel, images: list[dict[str, Array]]) -> None:
    with pytest.raises(UsageError, match="no layer 'nothing'"):
        small.run(images[0], watch=["nothing"])


def test_integers_at_the_border_are_real_values_outside(shared: Path) -> None:
    model = LiteModel((shared / "models" / "kws_mlperf_int8.tflite").read_bytes())
    (given,), (told,) = model.inputs(), model.outputs()
    assert (given.dtype, told.dtype) == ("float32", "float32")
    with np.load(shared / "data" / "kws.npz") as data:
        sample, label = data["x_test"][:1], data["y_test"][0]
    answer = model.run({given.name: sample})[told.name]
    assert answer.sum() == pytest.approx(1, abs=0.05)  # A softmax in steps of 1/256, 12 of them.
    assert answer.argmax() == label


def test_activations_stored_in_integers_are_watched_as_real_values(shared: Path) -> None:
    model = LiteModel((shared / "models" / "kws_mlperf_int8.tflite").read_bytes())
    name = model.layers()[0].name
    batch = {s.name: np.zeros([n or 1 for n in s.shape], np.float32) for s in model.inputs()}
    assert model.run(batch, watch=[name])[name].dtype == np.float32


def test_text_and_integers_go_in_as_they_are(loaded: Callable[[str], LiteModel]) -> None:
    model = loaded("words")
    assert [s.dtype for s in model.inputs()] == ["int32"]
    with pytest.raises(UsageError, match="must be int32, not float32"):
        model.run({"ids": np.zeros((1, 12), np.float32)})


def test_the_repr_is_one_line(small: LiteModel) -> None:
    assert repr(small) == f"<LiteModel tflite, {small.nbytes():,} bytes>"
