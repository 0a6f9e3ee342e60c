"""What loaders and methods can be told with ``-o name=value``, and what each offers. No framework is imported here.

One class of options a card, in the order of the cards: loaders, quantizers, exporters, benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from qm.plugin import Field, Options, fitting, training


class FactoryOptions(Options):
    """Options of loading a model from the function that makes it."""

    weights: str | None = Field(
        default=None, description="the weights: a .safetensors file, or a .pt file with a state dict and nothing else"
    )


class PtqOptions(fitting.FittingOptions):
    """Options of static quantization."""

    ranges: Literal["minmax", "percentile", "mse", "entropy"] = Field(
        default="minmax", description="how an activation's range is taken from what calibration saw"
    )
    percentile: float = Field(
        default=99.99, gt=50, le=100, description="share of values inside the range, for ranges=percentile, in percent"
    )
    sequential: bool = Field(
        default=True,
        description="whether layers are rounded in turn, each fitted to what reaches it through those that are rounded "
        "already, where two or more are to keep their results",
    )


class QatOptions(training.TrainingOptions):
    """Options of quantization-aware training."""


PTQ: Mapping[str, frozenset[str]] = {
    "conv1d": frozenset({"w8a8", "w4a8"}),
    "conv2d": frozenset({"w8a8", "w4a8"}),
    "linear": frozenset({"w8a8", "w4a8"}),
}
"""What torch.ptq offers, by the kind of layer."""
QAT: Mapping[str, frozenset[str]] = PTQ
"""What torch.qat offers, by the kind of layer."""
DYNAMIC: Mapping[str, frozenset[str]] = {"linear": frozenset({"w8d8"})}
"""What torch.dynamic offers, by the kind of layer."""
WEIGHTS: Mapping[str, frozenset[str]] = {
    **{
        kind: frozenset({"w8"})
        for kind in ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
    },
    **{kind: frozenset({"w8", "w4g32", "w4g128"}) for kind in ("embedding", "linear")},
}
"""What torch.weights offers, by the kind of layer."""
