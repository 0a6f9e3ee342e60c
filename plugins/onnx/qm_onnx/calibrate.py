"""What the tensors of a model hold, from one pass over samples; nothing is kept of a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import onnxruntime as ort

from qm.numerics import Stream, needs_histogram
from qm.plugin import Array, Dataset, Memo, Progress, UsageError
from qm_onnx import runtime
from qm_onnx.look import Look, narrowed, watching
from qm_onnx.model import OnnxModel

PICTURED = 4
"""Of so many samples values are counted for a histogram that is looked at, with no range taken from it."""


def observe(
    model: OnnxModel,
    tensors: Mapping[str, str],
    data: Dataset,
    *,
    method: str,
    counted: int = 0,
    progress: Progress,
    memo: Memo | None = None,
) -> dict[str, Stream]:
    """Statistics of the tensors that hold floats; those of other types are left out. ``tensors`` says whose each is.

    Extremes are those of all samples. Values are counted of all samples where the method needs more than extremes,
    else of the first ``counted``. ``memo`` keeps what is seen.

    Raises:
        UsageError: there are no samples, one does not fit the model, or a tensor holds NaN or infinity.
    """
    if not len(data):
        raise UsageError("calibration has no samples", hint="Give a few dozen with --data.")
    counted = len(data) if needs_histogram(method) else min(counted, len(data))

    def look(keys: Sequence[tuple[str, str, int]]) -> dict[tuple[str, str, int], Stream | None]:
        seen = _observed(model, {t: tensors[t] for _, t, _ in keys}, data, counted=counted, progress=progress)
        return {key: seen.get(key[1]) for key in keys}

    known = (memo or Memo.forgetful()).many([("stream", t, counted) for t in tensors], look)
    return {t: stream for (_, t, _), stream in known.items() if stream is not None}


def _observed(
    model: OnnxModel, tensors: Mapping[str, str], data: Dataset, *, counted: int, progress: Progress
) -> dict[str, Stream]:
    session = watching(model, tensors)
    shown = {s.name: s for s in runtime.specs([*session.get_inputs(), *session.get_outputs()])}
    floats = [t for t in tensors if t in shown and shown[t].dtype == "float32"]
    streams = {t: Stream(histogram=counted > 0) for t in floats}
    look = Look(session, dict(zip(floats, floats, strict=True)))
    del session
    inputs = {s.name for s in model.inputs()}
    for number, batch in enumerate(progress.track(data, "calibrating", total=len(data))):
        if number == max(counted, 1):
            places, peaks = narrowed(model, streams, [t for t in floats if len(shown[t].shape) == 4])
            if places:
                del look  # Two sessions would take twice the memory.
                look = Look(watching(model, places.values(), peaks), places)
        for name, value in look.values(batch):
            what = f"input {name!r}" if name in inputs else f"tensor {name!r} at {tensors[name]!r}"
            _take(streams[name], value, what, number, counted=number < counted)
    return streams


def values(
    session: ort.InferenceSession, names: Sequence[str], data: Dataset, *, progress: Progress, doing: str, most: int = 0
) -> Iterator[tuple[int, str, Array]]:
    """The number of the sample, the name and the value of each tensor for each sample, of the first ``most`` if given.

    The tensors are inputs or outputs of the session. Each value is let go as soon as the next is asked for.
    """
    look = Look(session, dict(zip(names, names, strict=True)))
    count = min(len(data), most or len(data))
    for number, batch in enumerate(progress.track(islice(data, count), doing, total=count)):
        for name, value in look.values(batch):
            yield number, name, value


def _take(stream: Stream, value: Array, what: str, number: int, *, counted: bool) -> None:
    stream.update(value, counted=counted)
    if stream.nonfinite:
        raise UsageError(
            f"{what} holds NaN or infinity for calibration sample {number}",
            hint="Look at that sample, or leave the layer in float with a rule.",
        )


def spans(streams: Mapping[str, Stream]) -> dict[str, float]:
    """How far the values of each tensor spread, zero included."""
    return {name: max(s.high, 0.0) - min(s.low, 0.0) for name, s in streams.items()}
