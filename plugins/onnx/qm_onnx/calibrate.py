"""What the tensors of a model hold, from one pass over samples in one session; nothing is kept of a sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from qm.numerics import Stream, needs_histogram
from qm.plugin import Dataset, Progress, UsageError
from qm_onnx import runtime
from qm_onnx.model import OnnxModel

BASIC = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC


def observe(
    model: OnnxModel,
    tensors: Mapping[str, str],
    data: Dataset,
    *,
    method: str,
    histogram: bool = False,
    progress: Progress,
) -> dict[str, Stream]:
    """Statistics of the tensors that hold floats; those of other types are left out. ``tensors`` says whose each is.

    With ``histogram`` values are counted though the method needs no more than the extremes.

    Raises:
        UsageError: there are no samples, one does not fit the model, or a tensor holds NaN or infinity.
    """
    if not len(data):
        raise UsageError("calibration has no samples", hint="Give a few dozen with --data.")
    session = model.session(level=BASIC, extra_outputs=[t for t in tensors if t not in _inputs(model)])
    types = {v.name: v.type for v in [*session.get_inputs(), *session.get_outputs()]}
    histogram |= needs_histogram(method)
    streams = {t: Stream(histogram=histogram) for t in tensors if types.get(t) == "tensor(float)"}
    wanted = [t for t in streams if t not in _inputs(model)]
    fed = [t for t in streams if t in _inputs(model)]
    specs = runtime.specs(session.get_inputs())
    for number, batch in enumerate(progress.track(data, "calibrating", total=len(data))):
        with runtime.fitting(specs, batch):
            values = session.run(wanted, {s.name: np.asarray(batch[s.name]) for s in specs}) if wanted else []
        for name in fed:
            _take(streams[name], batch[name], f"input {name!r}", number)
        while values:  # Each is let go as soon as it was counted.
            name = wanted[len(values) - 1]
            _take(streams[name], values.pop(), f"tensor {name!r} at {tensors[name]!r}", number)
    return streams


def _inputs(model: OnnxModel) -> set[str]:
    return {s.name for s in model.inputs()}


def _take(stream: Stream, value: object, what: str, number: int) -> None:
    stream.update(np.asarray(value))
    if stream.nonfinite:
        raise UsageError(
            f"{what} holds NaN or infinity for calibration sample {number}",
            hint="Look at that sample, or leave the layer in float with a rule.",
        )


def spans(streams: Mapping[str, Stream]) -> dict[str, float]:
    """How far the values of each tensor spread, zero included."""
    return {name: max(s.high, 0.0) - min(s.low, 0.0) for name, s in streams.items()}
