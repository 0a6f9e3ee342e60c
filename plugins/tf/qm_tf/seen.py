"""What calibration saw of the tensors that were quantized, for the report."""

from __future__ import annotations

from collections.abc import Mapping

from qm.numerics import Stream, activation
from qm.plugin import Activation
from qm_tf.calibrate import Range
from qm_tf.chain import Chain
from qm_tf.model import LiteModel


def seen(
    model: LiteModel, chain: Chain, streams: Mapping[int, Stream], ranges: Mapping[int, Range]
) -> list[Activation]:
    """One a tensor, but for those whose range LiteRT prescribes."""
    return [
        activation(
            stream,
            tensor=model.graph.name(t),
            layer=chain.tensors.get(t, ""),
            low=ranges[t][0],
            high=ranges[t][1],
            bits=chain.bits(model.graph, t),
        )
        for t, stream in streams.items()
        if t not in chain.fixed and stream.has_histogram and stream.values
    ]
