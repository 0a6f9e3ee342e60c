"""Static quantization: integer weights, and activations in ranges that calibration has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from qm.numerics import Grid, Stream, grid_for_range
from qm.plugin import Dataset, QuantizeJob
from qm_torch import annotation, layer, note, qdq, range, share, trace, weight
from qm_torch.annotation import Annotation
from qm_torch.constant import erase_unused
from qm_torch.fold import fold
from qm_torch.model import TorchModel
from qm_torch.option import PTQ, PtqOptions
from qm_torch.range import Range
from qm_torch.share import activation_bits, checked


def quantize(job: QuantizeJob) -> TorchModel:
    """The model with its layers as the plan asks.

    Raises:
        UsageError: the model is quantized already, or the samples do not fit it.
        Unsupported: the plan asks for a layer or scheme that there is not.
        PluginError: what was made is not what the plan asks for.
    """
    options = job.options if isinstance(job.options, PtqOptions) else PtqOptions()
    model = checked(job, "torch.ptq", PTQ)
    if not job.plan.quantized():
        return model.with_program(model.program)
    found = calibrated(job, model, job.data, options)
    job.activations.extend(range.seen(found.drawn, found.streams, found.chosen, bits=found.bits))
    grids = weight.grids(found.gm, layer.schemes(found.gm.graph, job.plan), method=options.weight_ranges)
    return write(model, found.gm, found.drawn, found.chosen, job, bits=found.bits, grids=grids)


@dataclass(frozen=True)
class Calibrated:
    """A folded graph, what is to be integers in it, and what calibration saw and chose of that.

    ``bits`` are those that activations use.
    """

    gm: GraphModule
    drawn: Annotation
    streams: Mapping[Node, Stream]
    chosen: Mapping[Node, Range]
    bits: int


def calibrated(job: QuantizeJob, model: TorchModel, data: Dataset | None, options: PtqOptions) -> Calibrated:
    """The model's graph, ready to be written.

    Raises:
        UsageError: there are no samples, or they do not fit the model.
    """
    gm = fold(trace.opened(model.program))
    drawn = annotation.annotate(gm.graph, layer.named(gm.graph), job.plan)
    streams = range.observe(model, gm, drawn, data, job.progress)
    bits = activation_bits(job)
    chosen = range.ranges(drawn, streams, method=options.ranges, percentile=options.percentile, bits=bits)
    return Calibrated(gm, drawn, streams, chosen, bits)


def write(
    model: TorchModel,
    gm: GraphModule,
    drawn: Annotation,
    chosen: Mapping[Node, Range],
    job: QuantizeJob,
    *,
    bits: int,
    grids: Mapping[Node, Grid] | None = None,
) -> TorchModel:
    """The model of a graph whose ranges are ``chosen``, its weights and activations written as integers.

    ``bits`` are those that activations use, ``grids`` the weights' where they are chosen already.
    """
    qdq.weights(gm, layer.schemes(gm.graph, job.plan), grids)
    for tensor, (low, high) in chosen.items():
        if tensor in drawn.readers:
            qdq.activations(gm, tensor, drawn.readers[tensor], grid_for_range(low, high, bits=bits))
        else:
            note.write(tensor, low, high)
    erase_unused(gm)
    made = model.with_program(trace.closed(gm, model.program))
    share.verify(made, job)
    return made
