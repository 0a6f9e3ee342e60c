"""The range of each tensor that is to be quantized, from one pass of the float program; nothing is kept of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from qm.numerics import Stream, activation, choose_range
from qm.plugin import Activation, Dataset, Progress, UsageError
from qm_torch.annotation import Annotation
from qm_torch.model import TorchModel, refused

Range = tuple[float, float]


class _Watch(Interpreter):
    """Runs a graph, and counts what the watched nodes hold."""

    def __init__(self, gm: GraphModule, streams: Mapping[Node, Stream], owners: Mapping[Node, str]) -> None:
        super().__init__(gm)
        self.streams, self.owners = streams, owners
        self.number = 0

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        stream = self.streams.get(n)
        if stream is not None:
            stream.update(value.detach().numpy())
            if stream.nonfinite:
                what = f"input {n.name!r}" if n.op == "placeholder" else f"what layer {self.owners[n]!r} reads"
                raise UsageError(
                    f"{what} holds NaN or infinity for calibration sample {self.number}",
                    hint="Look at that sample, or leave the layer in float with a rule.",
                )
        return value


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
    watch = _Watch(gm, streams, annotation.owners | annotation.results)
    for number, batch in enumerate(progress.track(data, "calibrating", total=len(data))):
        watch.number = number
        args, kwargs = model.arguments(batch)
        flat = gm.graph._codegen.process_inputs(*args, **kwargs)
        try:
            with torch.no_grad():
                watch.run(*flat, enable_io_processing=False)
        except (AssertionError, RuntimeError) as e:
            raise refused(model.name, e) from e
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
