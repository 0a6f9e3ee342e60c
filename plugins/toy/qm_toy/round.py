"""Round weights to the nearest integer, one scale per output channel; take static ranges from samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from qm.plugin import Activations, Array, Dataset, QuantizeJob, Scheme, Unsupported, UsageError
from qm_toy.check import check_plan
from qm_toy.model import Dense, ToyModel
from qm_toy.weight import Packed

OFFERED = frozenset(Scheme.parse(text) for text in ("w8a8", "w8d8", "w8", "w4"))


def quantize(job: QuantizeJob) -> ToyModel:
    """The model with the planned layers in integers.

    Raises:
        UsageError: the plan does not fit the model, or the samples do not serve.
        Unsupported: the model is not a toy model, or a scheme is not offered.
    """
    if not isinstance(job.model, ToyModel):
        raise Unsupported(f"toy.round quantizes toy models, not {job.model!r}")
    check_plan(job.plan, job.model, OFFERED)
    static = [name for name, scheme in job.plan.quantized().items() if scheme.is_static]
    model = job.model
    # The same for every plan: where plans are tried one after another, the samples are walked once.
    spans = job.memo.many(static, lambda names: input_spans(model, names, job))
    layers = []
    for layer in job.progress.track(model.native, "round", len(model.native)):
        scheme = job.plan[layer.name]
        layers.append(layer if scheme.is_float else _rounded(layer, scheme, job.options.clip, spans))
    return ToyModel(layers)


def input_spans(model: ToyModel, names: Sequence[str], job: QuantizeJob) -> dict[str, tuple[float, float]]:
    """Smallest and largest input of each named layer, over the samples.

    Raises:
        UsageError: there are no samples, or they hold NaN or infinity.
    """
    samples: Dataset | None = job.data
    if samples is None or len(samples) == 0:
        raise UsageError(f"layer {names[0]!r} needs samples for its static range", hint="Give some with --data.")
    spans: dict[str, tuple[float, float]] = {}
    for number, batch in enumerate(job.progress.track(samples, "calibrate", len(samples))):
        x = np.asarray(batch["x"], np.float32)
        if not np.isfinite(x).all():
            raise UsageError(f"sample {number} holds NaN or infinity", hint="Remove it from the data.")
        for layer, y in model.walk(batch):
            if layer.name in names:
                low, high = spans.get(layer.name, (0.0, 0.0))
                spans[layer.name] = (min(low, float(x.min())), max(high, float(x.max())))
            x = y
    return spans


def _rounded(layer: Dense, scheme: Scheme, clip: float, spans: Mapping[str, tuple[float, float]]) -> Dense:
    weight = round_nearest(layer.weight.values(), scheme.weight_bits, clip)
    span = spans[layer.name] if scheme.activations is Activations.STATIC else None
    return replace(layer, weight=weight, activations=scheme.activations, span=span)


def round_nearest(w: Array, bits: int, clip: float = 1.0) -> Packed:
    """``w`` ``(out, in)`` in signed integers of ``bits`` bits, symmetric about zero, one scale per output.

    Source: Jacob et al., "Quantization and training of neural networks", 2018, section 2.1, zero point fixed at 0.
    """
    top = 2 ** (bits - 1) - 1
    scale = np.abs(w).max(axis=1, keepdims=True) * clip / top
    steps = np.divide(w, scale, out=np.zeros_like(w), where=scale > 0)
    return Packed.pack(np.clip(np.rint(steps), -top, top), scale, bits)
