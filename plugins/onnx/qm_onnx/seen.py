"""What calibration saw of the tensors that were quantized, for the report."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from qm.numerics import Stream, activation
from qm.plugin import Activation
from qm_onnx.qdq import Draft


def seen(
    written: ModelProto, draft: Draft, streams: Mapping[str, Stream], whose: Mapping[str, str]
) -> list[Activation]:
    """One a tensor that the written model rounds; ``whose`` names the layer or operation of each."""
    rounded = {node.input[0] for node in written.graph.node if node.op_type == "QuantizeLinear"}
    return [
        activation(
            stream,
            tensor=name,
            layer=whose.get(name, ""),
            low=draft.ranges[name][0],
            high=draft.ranges[name][1],
            bits=16 if name in draft.widths.wide else 8,
        )
        for name, stream in streams.items()
        if name in rounded and name in draft.ranges and stream.has_histogram and stream.values
    ]
