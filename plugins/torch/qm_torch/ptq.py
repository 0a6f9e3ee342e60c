"""Static quantization: integer weights, and activations in ranges that calibration has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from qm.numerics import Stream, grid_for_range
from qm.plugin import Dataset, QuantizeJob, fitting
from qm_torch import annotation, layer, note, qdq, range, share, trace, turn, weight
from qm_torch.annotation import Annotation
from qm_torch.constant import erase_unused
from qm_torch.fold import fold
from qm_torch.model import TorchModel
from qm_torch.option import PTQ, PtqOptions
from qm_torch.range import Range
from qm_torch.share import activation_bits, checked
from qm_torch.weight import Rounded


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
    rounded = _rounded(job, model, found.gm, options)
    return write(model, found.gm, found.drawn, found.chosen, job, bits=found.bits, rounded=rounded)


def _rounded(job: QuantizeJob, model: TorchModel, gm: GraphModule, options: PtqOptions) -> dict[Node, Rounded]:
    """The integers of weights as the options want them, biases changed with them."""
    assert job.data is not None
    wishes = fitting.Wishes.of(options)
    schemes = layer.schemes(gm.graph, job.plan)
    if keeping := sum(wishes.keeps_results(s.weight_bits) for s in schemes.values()):
        layers = "1 layer" if keeping == 1 else f"{keeping} layers"
        job.notes.say(f"{layers} with weights rounded so that results stay (rounding={wishes.method})")
    fit = turn.fit if keeping > 1 and options.sequential else weight.fit
    return fit(model, gm, schemes, job.data, wishes, progress=job.progress)


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
    rounded: Mapping[Node, Rounded],
) -> TorchModel:
    """The model of a graph whose ranges are ``chosen``, its weights and activations written as integers.

    ``bits`` are those that activations use, ``rounded`` the weights of the layers.
    """
    qdq.weights(gm, layer.schemes(gm.graph, job.plan), rounded)
    for tensor, (low, high) in chosen.items():
        if tensor in drawn.readers:
            qdq.activations(gm, tensor, drawn.readers[tensor], grid_for_range(low, high, bits=bits))
        else:
            note.write(tensor, low, high)
    erase_unused(gm)
    made = model.with_program(trace.closed(gm, model.program))
    share.verify(made, job)
    return made
