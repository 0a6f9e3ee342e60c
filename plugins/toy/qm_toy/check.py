"""Does a plan fit a toy model?"""

from __future__ import annotations

from qm.plugin import Plan, Scheme, Unsupported, UsageError
from qm_toy.model import ToyModel


def check_plan(plan: Plan, model: ToyModel, offered: frozenset[Scheme]) -> None:
    """Check that the plan speaks of float layers of the model, in schemes on offer, alike where weights are shared.

    Raises:
        UsageError: a layer is not there, is quantized already, or shares its weight with one in another scheme.
        Unsupported: a scheme is not on offer.
    """
    layers = {layer.name: layer for layer in model.native}
    for name, scheme in plan.quantized().items():
        if name not in layers:
            raise UsageError(f"the plan names a layer {name!r}", hint=f"The layers are: {', '.join(layers)}.")
        if scheme not in offered:
            known = ", ".join(sorted(map(str, offered)))
            raise Unsupported(f"layer {name!r} cannot be brought to {str(scheme)!r}", hint=f"Choose among: {known}.")
        if not layers[name].scheme.is_float:
            raise UsageError(
                f"layer {name!r} is in {str(layers[name].scheme)!r} already", hint="Start from the float model."
            )
    first: dict[str, str] = {}
    for layer in model.native:
        other = first.setdefault(layer.tensor, layer.name)
        if plan[layer.name] != plan[other]:
            raise UsageError(
                f"layers {other!r} and {layer.name!r} share one weight, and the plan has them in "
                f"{str(plan[other])!r} and {str(plan[layer.name])!r}",
                hint="Give both the same scheme.",
            )
