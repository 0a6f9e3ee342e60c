"""What the methods can be told with ``-o name=value``, and what each offers. No framework is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from qm.plugin import Field, fitting, training

FULL = frozenset({"w8a8", "w8a16", "w8d8", "w8", "f16"})
NARROW = FULL | {"w4a8", "w4d8", "w4"}

KINDS: Mapping[str, frozenset[str]] = {
    "BATCH_MATMUL": FULL - {"f16"},
    "CONV_2D": NARROW,
    "DEPTHWISE_CONV_2D": FULL,
    "EMBEDDING_LOOKUP": frozenset({"w8", "w4", "f16"}),
    "FULLY_CONNECTED": NARROW,
    "GATHER": frozenset({"w8"}),
    "TRANSPOSE_CONV": FULL,
}
"""The schemes that each kind of layer can be brought to."""

INSTEAD: Mapping[str, tuple[str, ...]] = {
    "w4a8": ("w8a8", "w4", "w8"),
    "w4d8": ("w8d8", "w4", "w8"),
    "w4": ("w8",),
    "w8a8": ("w8",),
    "w8a16": ("w8",),
    "w8d8": ("w8",),
}
"""What a layer gets that has no kernel for the scheme of the others, the first that its kind offers."""

PTQ = frozenset().union(*KINDS.values())
QAT = frozenset({"w8a8", "w4a8"})


class PtqOptions(fitting.FittingOptions):
    """Options of post-training quantization."""

    engine: Literal["aeq", "converter", "best"] = Field(
        default="aeq",
        description="who writes the integers: ai-edge-quantizer, TensorFlow's converter, or the better of both by "
        "measured SQNR",
    )
    ranges: Literal["auto", "minmax", "percentile", "mse", "entropy"] = Field(
        default="auto",
        description="how an activation's range is taken from what calibration saw; auto is percentile for 8 bits and "
        "minmax for 16, and where TensorFlow's converter does it",
    )
    percentile: float = Field(
        default=99.99, gt=50, le=100, description="share of values inside the range, for ranges=percentile, in percent"
    )
    weights: Literal["auto", "minmax", "mse", "octav", "hessian"] = Field(
        default="auto",
        description="how the range of each channel of a weight is chosen; hessian is mse with errors weighed by what "
        "the layer's inputs are; auto is minmax for 8 bits and mse for 4",
    )
    io: Literal["float", "int8"] = Field(
        default="float", description="what the file takes and gives: float, or int8 for devices without float"
    )


class QatOptions(training.TrainingOptions):
    """Options of quantization-aware training."""

    io: Literal["float", "int8"] = Field(
        default="float", description="what the file takes and gives: float, or int8 for devices without float"
    )
