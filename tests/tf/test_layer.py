from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from qm_tf import layer
from qm_tf.model import LiteModel


def test_layers_come_in_order_with_kinds_weights_and_macs(small: LiteModel) -> None:
    assert [(m.name, m.kind, m.weights, m.macs) for m in small.layers()] == [
        ("stem_1", "CONV_2D", 3 * 3 * 3 * 16, 16 * 16 * 16 * 27),
        ("depthwise_1", "DEPTHWISE_CONV_2D", 3 * 3 * 16, 16 * 16 * 16 * 9),
        ("pointwise_1", "CONV_2D", 16 * 16, 16 * 16 * 16 * 16),
        ("down_1", "CONV_2D", 3 * 3 * 16 * 32, 8 * 8 * 32 * 144),
        ("hidden_1", "FULLY_CONNECTED", 32 * 32, 32 * 32),
        ("logits_1", "FULLY_CONNECTED", 32 * 10, 32 * 10),
    ]


def test_a_table_multiplies_nothing(loaded: Callable[[str], LiteModel]) -> None:
    table, answer = loaded("words").layers()
    assert (table.kind, table.weights, table.macs) == ("GATHER", 200 * 16, 0)
    assert (answer.weights, answer.macs) == (16 * 4, 16 * 4)


def test_names_are_the_same_before_and_after_loading(models: Path, loaded: Callable[[str], LiteModel]) -> None:
    for name in ("small", "mlp", "words"):
        raw = LiteModel((models / f"{name}.tflite").read_bytes())
        assert [m.name for m in raw.layers()] == [m.name for m in loaded(name).layers()]


def test_a_float_file_and_its_quantized_one_have_the_same_names(shared: Path) -> None:
    names = [
        [m.name for m in LiteModel((shared / "models" / f"kws_mlperf_{kind}.tflite").read_bytes()).layers()]
        for kind in ("int8", "dynamic")
    ]
    assert names[0] == names[1]


def test_layers_that_share_a_weight_are_tied(mlp: LiteModel) -> None:
    assert [m.tied for m in mlp.layers()] == [None, None, None]
    native = copy.deepcopy(mlp.native)
    first, second = mlp.found[1].weights[0], mlp.found[2].weights[0]
    native.subgraphs[0].tensors[second].buffer = native.subgraphs[0].tensors[first].buffer
    tied = [m.tied for m in layer.layers(native)]
    assert tied[0] is None and tied[1] is not None and tied[1] == tied[2]


def test_macs_are_not_told_where_lengths_are_free(small: LiteModel) -> None:
    native = copy.deepcopy(small.native)
    stem = small.found[0]
    native.subgraphs[0].tensors[stem.output].shapeSignature = [1, -1, 16, 16]
    assert next(m.macs for m in layer.layers(native)) == 0


@pytest.mark.parametrize("batch", [1, 4])
def test_macs_are_those_of_one_sample(small: LiteModel, batch: int) -> None:
    native = copy.deepcopy(small.native)
    for tensor in native.subgraphs[0].tensors:
        if (
            tensor.shape is not None
            and len(tensor.shape) in (2, 4)
            and tensor.shape[0] == 1
            and tensor.buffer not in {small.graph.tensor(f.weights[0]).buffer for f in small.found}
        ):
            tensor.shape = [batch, *tensor.shape[1:]]
    assert [m.macs for m in layer.layers(native)] == [m.macs for m in small.layers()]
