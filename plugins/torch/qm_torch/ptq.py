"""Static quantization: integer weights, and activations in ranges that calibration has found."""

from __future__ import annotations

from qm.numerics import grid_for_range
from qm.plugin import QuantizeJob
from qm_torch import annotation, layer, note, qdq, range, share, trace
from qm_torch.constant import erase_unused
from qm_torch.fold import fold
from qm_torch.model import TorchModel
from qm_torch.option import PTQ, PtqOptions
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
    gm = fold(trace.opened(model.program))
    names = layer.named(gm.graph)
    drawn = annotation.annotate(gm.graph, names, job.plan)
    streams = range.observe(model, gm, drawn, job.data, job.progress)
    bits = activation_bits(job)
    chosen = range.ranges(drawn, streams, method=options.ranges, percentile=options.percentile, bits=bits)
    job.activations.extend(range.seen(drawn, streams, chosen, bits=bits))
    qdq.weights(gm, [node for node, name in names.items() if not job.plan[name].is_float])
    for tensor, (low, high) in chosen.items():
        if tensor in drawn.readers:
            qdq.activations(gm, tensor, drawn.readers[tensor], grid_for_range(low, high, bits=bits))
        else:
            note.write(tensor, low, high)
    erase_unused(gm)
    made = model.with_program(trace.closed(gm, model.program))
    share.verify(made, job)
    return made
