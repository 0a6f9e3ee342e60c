"""Smaller files that compute the same."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils

from qm.plugin import Array, Plan, QuantizeJob, Scheme
from qm_tf import aeq, calibrate, chain, compact, flat, pack, runtime
from qm_tf.model import LiteModel
from qm_tf.ptq import quantize


def as_it_comes(model: LiteModel, data: Any, scheme: str = "w8a8") -> bytes:
    """What ai-edge-quantizer writes, before anything is made of it."""
    plan = Plan({x.name: Scheme.parse(scheme) for x in model.layers()})
    drawn = chain.draw(model.graph, model.found, plan)
    streams = calibrate.observe(model, drawn.tensors, data, progress=_silent())
    ranges = calibrate.ranges(model, drawn, streams, method="minmax")
    return aeq.write(model, plan, drawn, ranges, aeq.weight_bounds(model, plan, drawn, ranges))


def _silent() -> Any:
    from qm.plugin import Silent

    return Silent()


def outputs(content: bytes, data: Any, *, xnnpack: bool) -> Array:
    interpreter = runtime.opened(content, "model", xnnpack=xnnpack)
    return np.stack([next(iter(runtime.run(interpreter, batch).values())) for batch in data])


@pytest.mark.parametrize("xnnpack", [True, False])
@pytest.mark.parametrize("scheme", ["w8a8", "w8d8", "w4a8"])
def test_a_compact_file_computes_the_same_bits(small: LiteModel, images: Any, scheme: str, xnnpack: bool) -> None:  # noqa: FBT001
    if scheme == "w4a8":
        before = quantize(QuantizeJob(model=small, plan=Plan({"down_1": Scheme.parse(scheme)}), data=images)).content
        before = bytes(flatbuffer_utils.convert_object_to_bytearray(flat.parse(before)))
    else:
        before = as_it_comes(small, images, scheme)
    after = compact.compacted(before)
    assert len(after) < len(before)
    assert np.array_equal(outputs(before, images, xnnpack=xnnpack), outputs(after, images, xnnpack=xnnpack))


def test_what_ai_edge_quantizer_writes_shrinks_by_a_tenth(small: LiteModel, images: Any) -> None:
    before = as_it_comes(small, images)
    assert len(compact.compacted(before)) < 0.9 * len(before)


def test_compacting_twice_changes_nothing_more(small: LiteModel, images: Any) -> None:
    once = compact.compacted(as_it_comes(small, images))
    assert compact.compacted(once) == once


def test_what_nothing_reads_goes(mlp: LiteModel) -> None:
    model = flat.parse(mlp.content)
    graph = model.subgraphs[0]
    unread, code = flat.parse(mlp.content), flat.parse(mlp.content).operatorCodes[0]
    graph.tensors.append(unread.subgraphs[0].tensors[1])
    model.buffers.append(unread.buffers[2])
    model.operatorCodes.append(code)
    assert compact.compacted(flat.serialize(model)) == compact.compacted(mlp.content)


def test_buffers_of_the_same_bytes_become_one(mlp: LiteModel) -> None:
    model = flat.parse(mlp.content)
    kernels = [f.weights[0] for f in mlp.found]
    twin = model.subgraphs[0].tensors[kernels[1]]
    size = len(compact.compacted(mlp.content))
    model.buffers[mlp.graph.tensor(kernels[0]).buffer].data = model.buffers[twin.buffer].data
    model.subgraphs[0].tensors[kernels[0]].shape = twin.shape
    assert len(compact.compacted(flat.serialize(model))) < size - 10_000 + 200


def test_the_data_of_buffers_lies_on_multiples_of_16_bytes(small: LiteModel) -> None:
    content = small.content
    for f in small.found:
        values = np.asarray(small.graph.array(f.weights[0])).tobytes()
        assert content.index(values) % pack.ALIGNMENT == 0


def test_the_same_numbers_are_stored_once() -> None:
    builder = pack.Sharing(64)
    first, second = (builder.CreateNumpyVector(np.zeros(9, np.int64)) for _ in range(2))
    other = builder.CreateNumpyVector(np.zeros(8, np.int64))
    assert first == second != other


def test_vectors_of_offsets_are_not_taken_for_numbers() -> None:
    builder = pack.Sharing(64)
    places = []
    for text in ("a", "b"):
        string = builder.CreateString(text)
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(string)
        places.append(builder.EndVector())
    assert places[0] != places[1]


def test_a_packed_model_reads_back_as_it_was(small: LiteModel) -> None:
    again = flat.parse(flat.serialize(small.native))
    assert flat.serialize(again) == small.content
    assert [flat.text(t.name) for t in again.subgraphs[0].tensors] == [
        flat.text(t.name) for t in small.native.subgraphs[0].tensors
    ]


def test_data_behind_the_flatbuffer_of_a_large_file_is_read(mlp: LiteModel) -> None:
    model = flat.parse(mlp.content)
    number = mlp.graph.tensor(mlp.found[1].weights[0]).buffer
    data = bytes(model.buffers[number].data)
    model.buffers[number].data = None
    model.buffers[number].offset = model.buffers[number].size = 77_777_777
    body = bytearray(flatbuffer_utils.convert_object_to_bytearray(model))
    place = struct.pack("<Q", 77_777_777)
    for value in (len(data), len(body)):  # The size is stored before the offset, both in eight bytes.
        at = body.index(place)
        body[at : at + 8] = struct.pack("<Q", value)
    parsed = flat.parse(bytes(body) + data)
    assert bytes(parsed.buffers[number].data) == data
