from __future__ import annotations

import copy

import numpy as np
import pytest

from qm_tf import flat, runtime
from qm_tf.model import LiteModel

CODES = {name: code for code, name in flat.TYPES.items()}


def test_writing_and_reading_again_changes_nothing(small: LiteModel) -> None:
    assert flat.serialize(flat.parse(small.content)) == small.content


@pytest.mark.parametrize("count", [7, 8])
def test_integers_of_4_bits_are_packed_and_unpacked(small: LiteModel, count: int) -> None:
    native = copy.deepcopy(small.native)
    tensor = native.subgraphs[0].tensors[small.found[0].weights[0]]
    tensor.type, tensor.shape = CODES["INT4"], [count]
    values = np.arange(-4, count - 4, dtype=np.int8)
    flat.store(native, tensor, values)
    assert len(native.buffers[tensor.buffer].data) == 4
    assert np.array_equal(flat.array(native, tensor), values)


def test_the_first_of_two_integers_lies_in_the_lower_bits(small: LiteModel) -> None:
    native = copy.deepcopy(small.native)
    tensor = native.subgraphs[0].tensors[small.found[0].weights[0]]
    tensor.type, tensor.shape = CODES["INT4"], [2]
    flat.store(native, tensor, np.array([-8, 7], np.int8))
    assert list(native.buffers[tensor.buffer].data) == [0x78]


def test_integers_of_2_bits_are_unpacked(small: LiteModel) -> None:
    native = copy.deepcopy(small.native)
    tensor = native.subgraphs[0].tensors[small.found[0].weights[0]]
    tensor.type, tensor.shape = CODES["INT2"], [4]
    native.buffers[tensor.buffer].data = np.array([0b10_11_00_01], np.uint8)
    assert flat.array(native, tensor).tolist() == [1, 0, -1, -2]


def test_a_stored_weight_is_the_one_that_runs(mlp: LiteModel) -> None:
    native = copy.deepcopy(mlp.native)
    tensor = native.subgraphs[0].tensors[mlp.found[-1].weights[0]]
    flat.store(native, tensor, np.zeros(flat.shape(tensor), np.float32))
    features = {"features": np.ones((1, 40), np.float32)}
    assert all(value.any() for value in mlp.run(features).values())
    assert not any(value.any() for value in mlp.with_content(flat.serialize(native)).run(features).values())


def test_free_lengths_are_none(small: LiteModel) -> None:
    tensor = copy.copy(small.graph.tensor(small.graph.inputs[0]))
    tensor.shapeSignature = [-1, 16, 16, 3]
    assert (flat.free_shape(tensor), flat.shape(tensor)) == ((None, 16, 16, 3), (1, 16, 16, 3))


def test_the_interpreter_takes_what_was_written(small: LiteModel) -> None:
    assert runtime.opened(flat.serialize(small.native), "model").get_input_details()[0]["name"] == "image"
