"""What the tensors of a model hold, from one pass over samples in one session; nothing is kept of a sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import onnxruntime as ort

from qm.numerics import Stream, needs_histogram
from qm.plugin import Array, Dataset, Memo, Progress, UsageError
from qm_onnx import chain, runtime
from qm_onnx.graph import Scope
from qm_onnx.model import OnnxModel
from qm_onnx.site import KINDS


def observe(
    model: OnnxModel,
    tensors: Mapping[str, str],
    data: Dataset,
    *,
    method: str,
    histogram: bool = False,
    progress: Progress,
    memo: Memo | None = None,
) -> dict[str, Stream]:
    """Statistics of the tensors that hold floats; those of other types are left out. ``tensors`` says whose each is.

    With ``histogram`` values are counted though the method needs no more than the extremes. ``memo`` keeps what is
    seen.

    Raises:
        UsageError: there are no samples, one does not fit the model, or a tensor holds NaN or infinity.
    """
    if not len(data):
        raise UsageError("calibration has no samples", hint="Give a few dozen with --data.")
    histogram |= needs_histogram(method)

    def look(keys: Sequence[tuple[str, str, bool]]) -> dict[tuple[str, str, bool], Stream | None]:
        seen = _observed(model, {t: tensors[t] for _, t, _ in keys}, data, histogram=histogram, progress=progress)
        return {key: seen.get(key[1]) for key in keys}

    known = (memo or Memo.forgetful()).many([("stream", t, histogram) for t in tensors], look)
    return {t: stream for (_, t, _), stream in known.items() if stream is not None}


def _observed(
    model: OnnxModel, tensors: Mapping[str, str], data: Dataset, *, histogram: bool, progress: Progress
) -> dict[str, Stream]:
    session = watching(model, tensors)
    types = {v.name: v.type for v in [*session.get_inputs(), *session.get_outputs()]}
    streams = {t: Stream(histogram=histogram) for t in tensors if types.get(t) == "tensor(float)"}
    inputs = _inputs(model)
    for number, name, value in values(session, list(streams), data, progress=progress, doing="calibrating"):
        what = f"input {name!r}" if name in inputs else f"tensor {name!r} at {tensors[name]!r}"
        _take(streams[name], value, what, number)
    return streams


def watching(model: OnnxModel, tensors: Iterable[str]) -> ort.InferenceSession:
    """A session with the tensors as outputs too, those that are no inputs.

    So are the results of all layers, wanted or not: what ONNX Runtime fuses with a layer whose result nobody looks at
    changes the last bits of what follows, and these are not to depend on what else is looked at.
    """
    scope = Scope(model.proto.graph)
    results = [n.output[0] for n in scope.graph.node if n.op_type in KINDS and not _is_activated(scope, n.output[0])]
    inputs = _inputs(model)
    return model.session(extra_outputs=[t for t in [*tensors, *results] if t not in inputs])


def _is_activated(scope: Scope, name: str) -> bool:
    """Whether an activation alone reads the tensor; it does the same inside a layer as behind it."""
    readers = scope.consumers.get(name, [])
    return len(readers) == 1 and readers[0].op_type in chain.FUSED


def values(
    session: ort.InferenceSession, names: Sequence[str], data: Dataset, *, progress: Progress, doing: str, most: int = 0
) -> Iterator[tuple[int, str, Array]]:
    """The number of the sample, the name and the value of each tensor for each sample, of the first ``most`` if given.

    The tensors are inputs or outputs of the session. Each value is let go as soon as the next is asked for.
    """
    specs = runtime.specs(session.get_inputs())
    fed = {s.name for s in specs}
    wanted = [t for t in names if t not in fed]
    count = min(len(data), most or len(data))
    for number, batch in enumerate(progress.track(islice(data, count), doing, total=count)):
        with runtime.fitting(specs, batch):
            results = session.run(wanted, {s.name: np.asarray(batch[s.name]) for s in specs}) if wanted else []
        for name in names:
            if name in fed:
                yield number, name, np.asarray(batch[name])
        while results:
            yield number, wanted[len(results) - 1], np.asarray(results.pop())


def _inputs(model: OnnxModel) -> set[str]:
    return {s.name for s in model.inputs()}


def _take(stream: Stream, value: Array, what: str, number: int) -> None:
    stream.update(value)
    if stream.nonfinite:
        raise UsageError(
            f"{what} holds NaN or infinity for calibration sample {number}",
            hint="Look at that sample, or leave the layer in float with a rule.",
        )


def spans(streams: Mapping[str, Stream]) -> dict[str, float]:
    """How far the values of each tensor spread, zero included."""
    return {name: max(s.high, 0.0) - min(s.low, 0.0) for name, s in streams.items()}
