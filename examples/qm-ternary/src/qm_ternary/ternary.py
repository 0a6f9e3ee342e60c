"""Ternary weights for the toy framework."""

from dataclasses import replace

import numpy as np

from qm.plugin import Array, QuantizeJob, Scheme, Unsupported
from qm_toy.check import check_plan
from qm_toy.model import ToyModel
from qm_toy.weight import Packed

OFFERED = frozenset({Scheme.parse("w2")})


def quantize(job: QuantizeJob) -> ToyModel:
    """The model with the planned layers in ternary weights."""
    if not isinstance(job.model, ToyModel):
        raise Unsupported(f"acme.ternary quantizes toy models, not {job.model!r}")
    check_plan(job.plan, job.model, OFFERED)
    layers = []
    for layer in job.progress.track(job.model.native, "ternary", len(job.model.native)):
        if not job.plan[layer.name].is_float:
            layer = replace(layer, weight=ternary(layer.weight.values(), job.options.threshold))
        layers.append(layer)
    return ToyModel(layers)


def ternary(w: Array, threshold: float) -> Packed:
    """``w`` ``(out, in)`` as -1, 0 and 1, times one scale per output: the mean of what is not zero.

    Source: Li, Zhang and Liu, "Ternary weight networks", 2016: the threshold is 0.7 of the mean magnitude.
    """
    size = np.abs(w)
    large = size > threshold * size.mean(axis=1, keepdims=True)
    count = np.maximum(large.sum(axis=1, keepdims=True), 1)
    scale = (size * large).sum(axis=1, keepdims=True) / count
    return Packed.pack(np.sign(w) * large, scale, bits=2)
