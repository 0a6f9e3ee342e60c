"""The range of each tensor that is to be quantized, from one pass of the float program; nothing is kept of a sample."""

from __future__ import annotations

from collections.abc import Mapping

from torch.fx import GraphModule, Node

from qm.numerics import Stream, activation, choose_range
from qm.plugin import Activation, Array, Dataset, Progress, UsageError
from qm_torch import watch
from qm_torch.annotation import Annotation
from qm_torch.model import TorchModel

Range = tuple[float, float]


def observe(
    model: TorchModel, gm: GraphModule, annotation: Annotation, data: Dataset | None, progress: Progress
) -> dict[Node, Stream]:
    """Statistics of the tensors whose own range is needed.

    Raises:
        UsageError: there are no samples, one does not fit the model, or a tensor holds NaN or infinity.
    """
    if data is None or not len(data):
        raise UsageError("calibration has no samples", hint="Give a few dozen with --data.")
    streams = {annotation.root(t): Stream(histogram=True) for t in (*annotation.readers, *annotation.results)}
    owners = annotation.owners | annotation.results

    def see(number: int, node: Node, value: Array) -> None:
        streams[node].update(value)
        if streams[node].nonfinite:
            what = f"input {node.name!r}" if node.op == "placeholder" else f"what layer {owners[node]!r} reads"
            raise UsageError(
                f"{what} holds NaN or infinity for calibration sample {number}",
                hint="Look at that sample, or leave the layer in float with a rule.",
            )

    watch.walk(model, gm, streams, data, see, progress=progress, doing="calibrating")
    return streams


def ranges(
    annotation: Annotation, streams: Mapping[Node, Stream], *, method: str, percentile: float, bits: int
) -> dict[Node, Range]:
    """The range of each tensor; one that holds nothing but zeros gets 0 to 1, as any scale holds them."""
    made: dict[Node, Range] = {}
    for root, stream in streams.items():
        low, high = choose_range(stream, method, bits=bits, percentile=percentile)
        made[root] = (low, high) if low < high else (0.0, 1.0)
    return {t: made[annotation.root(t)] for t in (*annotation.readers, *annotation.results)}


def seen(
    annotation: Annotation, streams: Mapping[Node, Stream], chosen: Mapping[Node, Range], *, bits: int
) -> list[Activation]:
    """What calibration saw, for the report."""
    return [
        activation(stream, tensor=t.name, layer=annotation.owners[t], low=chosen[t][0], high=chosen[t][1], bits=bits)
        for t, stream in streams.items()
        if stream.values and t in annotation.readers
    ]
