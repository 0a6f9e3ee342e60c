"""What a model must be to be quantized, and what it must be afterwards."""

from __future__ import annotations

from collections.abc import Mapping

from qm.plugin import PluginError, QuantizeJob, Unsupported, UsageError
from qm_torch.model import TorchModel


def checked(job: QuantizeJob, method: str, kinds: Mapping[str, frozenset[str]]) -> TorchModel:
    """The job's model, once it is one that can be quantized and the plan fits it.

    Raises:
        UsageError: it is of another framework, or quantized already.
        Unsupported: the plan asks for a layer or scheme that there is not.
    """
    model = job.model
    if not isinstance(model, TorchModel):
        raise UsageError(f"{model!r} is no PyTorch model", hint="Quantize it with a method of its own framework.")
    done = {name: s for name, s in model.schemes().items() if not s.is_float}
    if done:
        name, what = next(iter(done.items()))
        raise UsageError(
            f"model {model.name!r} is quantized already: its layer {name!r} is {what}",
            hint="Quantize the float model that it was made from.",
        )
    job.plan.check([layer.name for layer in model.layers()], frozenset().union(*kinds.values()), method)
    for layer in model.layers():
        asked = job.plan[layer.name]
        if not asked.is_float and str(asked) not in kinds.get(layer.kind, ()):
            raise Unsupported(
                f"{method} has no {asked!s} for {layer.kind} layers, such as {layer.name!r}",
                hint=f"It has {', '.join(sorted(kinds.get(layer.kind, ()))) or 'nothing'} for them; leave it in float.",
            )
    return model


def verify(model: TorchModel, job: QuantizeJob) -> None:
    """Check what each layer is in, and say what share of the weights is quantized.

    Raises:
        PluginError: a layer is not in what the plan asks for.
    """
    there = model.schemes()
    for name, asked in job.plan.layers.items():
        got = there.get(name)
        if got != asked:
            raise PluginError("torch", f"layer {name!r} was to be {asked} and is {got} in the quantized program")
    job.notes.say(text(model))


def text(model: TorchModel) -> str:
    """The quantized share of the weights, as a person reads it."""
    there = model.schemes()
    layers = model.layers()
    total = sum(layer.weights for layer in layers)
    done = [layer for layer in layers if not there[layer.name].is_float]
    part = sum(layer.weights for layer in done)
    return f"{100 * part / max(total, 1):.1f} % of the weights are integers: {len(done)} of {len(layers)} layers"


def activation_bits(job: QuantizeJob) -> int:
    """How many bits activations use: 7 of 8 where kernels saturate, or may; says so."""
    if job.target.pair_saturates is False:
        job.notes.say(f"activations use all 8 bits: kernels of {job.target.name} sum 8-bit products in 32 bits")
        return 8
    reason = (
        f"kernels of {job.target.name} add pairs of products in 16 bits"
        if job.target.pair_saturates
        else f"whether kernels of {job.target.name} saturate is not known"
    )
    job.notes.say(f"activations use 7 of their 8 bits: {reason}")
    return 7
