"""Weight-only quantization: weights stored as integers, and computed with in float."""

from __future__ import annotations

from qm.plugin import QuantizeJob
from qm_torch import layer, qdq, share, trace
from qm_torch.constant import erase_unused
from qm_torch.fold import fold
from qm_torch.model import TorchModel
from qm_torch.option import WEIGHTS


def quantize(job: QuantizeJob) -> TorchModel:
    """The model with its layers as the plan asks.

    Raises:
        UsageError: the model is quantized already.
        Unsupported: the plan asks for a layer or scheme that there is not.
        PluginError: what was made is not what the plan asks for.
    """
    model = share.checked(job, "torch.weights", WEIGHTS)
    if not job.plan.quantized():
        return model.with_program(model.program)
    gm = fold(trace.opened(model.program))
    qdq.weights(gm, layer.schemes(gm.graph, job.plan))
    erase_unused(gm)
    made = model.with_program(trace.closed(gm, model.program))
    share.verify(made, job)
    return made
