"""What the tensors of a float model hold, from one pass over samples; nothing is kept of a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qm.numerics import Stream, choose_range, needs_histogram
from qm.plugin import Dataset, Memo, Progress, UsageError
from qm_tf import runtime
from qm_tf.chain import Chain
from qm_tf.model import LiteModel

Range = tuple[float, float]


def observe(
    model: LiteModel,
    tensors: Mapping[int, str],
    data: Dataset,
    *,
    method: str = "minmax",
    histogram: bool = True,
    progress: Progress,
    memo: Memo | None = None,
) -> dict[int, Stream]:
    """Statistics of tensors by number; ``tensors`` says whose each is. ``memo`` keeps what is seen.

    Raises:
        UsageError: there are no samples, one does not fit the model, or a tensor holds NaN or infinity.
    """
    if not len(data):
        raise UsageError("calibration has no samples", hint="Give a few dozen with --data.")
    histogram |= needs_histogram(method)

    def look(keys: Sequence[tuple[str, int, bool]]) -> dict[tuple[str, int, bool], Stream]:
        seen = _observed(model, {t: tensors[t] for _, t, _ in keys}, data, histogram=histogram, progress=progress)
        return {key: seen[key[1]] for key in keys}

    known = (memo or Memo.forgetful()).many([("stream", t, histogram) for t in tensors], look)
    return {t: stream for (_, t, _), stream in known.items()}


def _observed(
    model: LiteModel, tensors: Mapping[int, str], data: Dataset, *, histogram: bool, progress: Progress
) -> dict[int, Stream]:
    streams = {t: Stream(histogram=histogram) for t in tensors}
    inputs = {t: model.graph.name(t) for t in tensors if t in model.graph.inputs}
    interpreter = model.interpreter(extra_outputs=[t for t in tensors if t not in inputs])
    for number, batch in enumerate(progress.track(data, "calibrating", total=len(data))):
        values = runtime.run(interpreter, batch)
        for t, stream in streams.items():
            if t in inputs:
                _take(stream, np.asarray(batch[inputs[t]]), f"input {inputs[t]!r}", number)
            else:
                _take(stream, values[t], f"tensor {model.graph.name(t)!r} at {tensors[t]!r}", number)
    return streams


def _take(stream: Stream, values: object, what: str, number: int) -> None:
    stream.update(np.asarray(values))
    if stream.nonfinite:
        raise UsageError(
            f"{what} holds NaN or infinity for calibration sample {number}",
            hint="Look at that sample, or leave the layer in float with a rule.",
        )


def method_for(asked: str, bits: int = 8) -> str:
    """The range method where none is asked: 16 bits have steps enough for all that was seen, 8 bits have not."""
    return asked if asked != "auto" else "minmax" if bits == 16 else "percentile"


def ranges(
    model: LiteModel, chain: Chain, streams: Mapping[int, Stream], *, method: str, percentile: float = 99.99
) -> dict[int, Range]:
    """The range of each tensor: of those that share a scale the widest, and where LiteRT prescribes one, that."""
    made: dict[int, Range] = {}
    for t, stream in streams.items():
        bits = chain.bits(model.graph, t)
        chosen = method_for(method, bits)
        low, high = choose_range(stream, chosen, bits=bits, symmetric=bits == 16, percentile=percentile)
        made[t] = (low, high) if low < high else (0.0, 1.0)  # Nothing but zeros: any scale holds them.
    return joined(chain, made)


def joined(chain: Chain, single: Mapping[int, Range]) -> dict[int, Range]:
    """The ranges, brought to agree where tensors must share a scale."""
    made = dict(single) | dict(chain.fixed)
    for group in chain.groups:
        members = [made[t] for t in group if t in made]
        if members:
            shared = min(low for low, _ in members), max(high for _, high in members)
            made.update({t: shared for t in group if t not in chain.fixed})
    return made
