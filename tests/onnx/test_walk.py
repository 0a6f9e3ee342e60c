"""Runs over samples to tensors ever further on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from qm.plugin import Array, Silent
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize
from qm_onnx.walk import ROOM, Walk

ORDER = ("first", "left", "right", "last")


class Data:
    """Samples that count how often they are gone through."""

    labels = None

    def __init__(self) -> None:
        self.rounds = 0

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[Mapping[str, Array]]:
        self.rounds += 1
        for seed in range(len(self)):
            yield {"x": np.random.default_rng(seed).standard_normal((2, 4)).astype(np.float32)}


@pytest.fixture
def model(build: Callable[..., ModelProto]) -> OnnxModel:
    wires = {"first": "x w a", "left": "r w b", "right": "r w c", "last": "s w y"}
    made: dict[str, Any] = {
        name: helper.make_node("MatMul", wire.split()[:2], wire.split()[2:], name=name) for name, wire in wires.items()
    }
    nodes = [made["first"], helper.make_node("Relu", ["a"], ["r"], name="relu"), made["left"], made["right"]]
    nodes += [helper.make_node("Add", ["b", "c"], ["s"], name="add"), made["last"]]
    weight = np.random.default_rng(9).standard_normal((4, 4)).astype(np.float32)
    return OnnxModel(normalize(build(nodes, {"w": weight}, inputs={"x": [2, 4]}))[0])


def walked(model: OnnxModel, data: Data, room: int, most: int = 5) -> list[tuple[int, str, bytes]]:
    walk, ahead = Walk(model, data, most=most, room=room), set(ORDER)
    seen: list[tuple[int, str, bytes]] = []
    for names, done in ((["x"], ["first"]), (["r"], ["left"]), (["r"], ["right"]), (["s"], ["last"])):
        found = walk.values(model.proto, names, frozenset(ahead), progress=Silent())
        seen += [(number, name, value.tobytes()) for number, name, value in found]
        ahead.difference_update(done)
    return seen


def test_the_values_are_those_of_the_model_whatever_there_is_room_for(model: OnnxModel) -> None:
    seen = walked(model, Data(), ROOM)
    assert [(n, t) for n, t, _ in seen] == [(n, t) for t in ("x", "r", "r", "s") for n in range(5)]
    session = model.session(extra_outputs=["r", "s"])
    for number, name, value in seen:
        batch = dict(list(Data())[number])
        expected = batch["x"] if name == "x" else session.run([name], batch)[0]
        assert np.frombuffer(value, np.float32) == pytest.approx(expected.ravel(), abs=1e-6)
    assert walked(model, Data(), 0) == seen


def test_samples_are_gone_through_once_where_there_is_room(model: OnnxModel) -> None:
    roomy, cramped = Data(), Data()
    walked(model, roomy, ROOM)
    walked(model, cramped, 0)
    assert (roomy.rounds, cramped.rounds) == (1, 4)


def test_no_more_samples_are_taken_than_asked(model: OnnxModel) -> None:
    assert {number for number, _, _ in walked(model, Data(), ROOM, most=3)} == {0, 1, 2}
