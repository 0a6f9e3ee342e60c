"""What the results of layers were multiplied with and shifted by, channel by channel, kept in the model's metadata.

So that the activation of such a layer can be given, and compared, as the float model has it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from qm.plugin import Array

Floats = NDArray[np.float64]

KEY = "qm_onnx.results"
"""The entry of the metadata: by layer, the factors and the offsets that made its results what they are."""


def restored(proto: ModelProto, values: Mapping[str, Array]) -> dict[str, Array]:
    """Activations by layer, as the float model has them."""
    known = _recorded(proto)
    return {name: _restored(value, known[name]) if name in known else value for name, value in values.items()}


def _restored(value: Array, change: tuple[Floats, Floats]) -> Array:
    times, plus = change
    shape = (1, -1, *[1] * (value.ndim - 2)) if value.ndim > 2 and value.shape[1] == times.size else (-1,)
    result: Array = ((value - plus.reshape(shape)) / times.reshape(shape)).astype(np.float32)
    return result


def record(proto: ModelProto, layer: str, times: Floats, plus: Floats) -> None:
    """Note that the layer's results ``y`` are now ``y * times + plus``, both ``(channels,)``."""
    known = _recorded(proto)
    before = known.get(layer, (np.ones(1), np.zeros(1)))
    known[layer] = (before[0] * times, before[1] * times + plus)
    text = json.dumps({name: [_text(v) for v in change] for name, change in known.items()})
    others = [p for p in proto.metadata_props if p.key != KEY]
    del proto.metadata_props[:]
    proto.metadata_props.extend(others)
    proto.metadata_props.add(key=KEY, value=text)


def _recorded(proto: ModelProto) -> dict[str, tuple[Floats, Floats]]:
    text = next((p.value for p in proto.metadata_props if p.key == KEY), "{}")
    return {name: (_floats(times), _floats(plus)) for name, (times, plus) in json.loads(text).items()}


def _text(values: Floats) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _floats(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64)
