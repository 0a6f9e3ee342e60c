from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qm_tf import flat
from qm_tf.graph import Graph
from qm_tf.model import LiteModel
from qm_tf.normalize import normalize

Array = NDArray[np.float32]


@pytest.fixture(params=["small", "mlp", "words"])
def raw(request: pytest.FixtureRequest, models: Path) -> LiteModel:
    return LiteModel((models / f"{request.param}.tflite").read_bytes())


def test_weights_and_results_are_named_after_their_layer(small: LiteModel) -> None:
    for f in small.found:
        assert small.graph.name(f.weights[0]) == f"{f.name}/kernel"
        assert small.graph.name(f.output) == f.name


def test_a_bias_that_layers_share_is_named_after_the_first(small: LiteModel) -> None:
    names = {f.name: small.graph.name(f.bias) for f in small.found if f.bias >= 0}
    assert names["stem_1"] == names["depthwise_1"] == "stem_1/bias"
    assert "logits_1" not in names  # The converter drops a bias of zeros where it can.


def test_inputs_and_outputs_have_the_names_of_the_signature(small: LiteModel) -> None:
    signature = small.native.signatureDefs[0]
    assert [s.name for s in small.inputs()] == [flat.text(t.name) for t in signature.inputs] == ["image"]
    assert [s.name for s in small.outputs()] == [flat.text(t.name) for t in signature.outputs]


def test_names_are_unique(raw: LiteModel) -> None:
    tensors = normalize(raw.native).subgraphs[0].tensors
    assert len({t.name for t in tensors}) == len(tensors)


def test_doing_it_twice_changes_nothing(raw: LiteModel) -> None:
    once = flat.serialize(normalize(raw.native))
    assert flat.serialize(normalize(flat.parse(once))) == once


def test_the_given_model_stays_as_it_was(raw: LiteModel) -> None:
    before = flat.serialize(raw.native)
    normalize(raw.native)
    assert flat.serialize(raw.native) == before


def test_outputs_stay_bit_for_bit(
    models: Path, loaded: Callable[[str], LiteModel], images: list[dict[str, Array]]
) -> None:
    raw = LiteModel((models / "small.tflite").read_bytes())
    for batch in images[:4]:
        before = raw.run({raw.inputs()[0].name: batch["image"]})
        after = loaded("small").run(batch)
        assert all(np.array_equal(a, b) for a, b in zip(before.values(), after.values(), strict=True))


def test_names_that_keras_knows_take_the_place_of_those_of_a_second_trace(models: Path) -> None:
    native = flat.parse((models / "mlp.tflite").read_bytes())
    made = normalize(native, layers=("first", "second", "last"))
    graph = Graph(made)
    kernels = {graph.name(t) for t in range(len(graph.native.tensors)) if graph.name(t).endswith("/kernel")}
    assert kernels == {"first/kernel", "second/kernel", "last/kernel"}
