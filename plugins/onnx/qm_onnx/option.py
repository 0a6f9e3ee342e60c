"""What the methods can be told with ``-o name=value``. No framework is imported here."""

from __future__ import annotations

from typing import Literal

from qm.plugin import Field, Options

SCHEMES = {
    "ptq": frozenset({"w8a8", "w8a8t", "w8a16", "w8a16t", "w4a8"}),
    "dynamic": frozenset({"w8d8", "w8d8t"}),
    "weights": frozenset({"w8", "w4g32", "w4g128"}),
    "fp16": frozenset({"f16"}),
}
"""What each method offers, by its card's name."""


class LoadOptions(Options):
    """Options of the loader."""

    in_memory_mb: float = Field(
        default=1000,
        ge=0,
        le=1900,  # A protobuf message ends at 2 GiB.
        description="weights beside the model are read with it up to this many megabytes; more stay in their file",
    )


class PtqOptions(Options):
    """Options of static quantization."""

    ranges: Literal["minmax", "percentile", "mse", "entropy"] = Field(
        default="minmax", description="how an activation's range is taken from what calibration saw"
    )
    percentile: float = Field(
        default=99.99, gt=50, le=100, description="share of values inside the range, for ranges=percentile, in percent"
    )
    weights: Literal["auto", "minmax", "mse", "octav", "hessian"] = Field(
        default="auto",
        description="how the range of each channel of a weight is chosen; hessian is mse with errors weighed by what "
        "the layer's inputs are; auto is minmax for 8 bits and hessian for 4",
    )
    rounding: Literal["auto", "nearest", "gptq", "adaround"] = Field(
        default="auto",
        description="how weights are rounded: each to the nearest, or so that a layer's results stay, one column after "
        "another (gptq) or all together (adaround, slower); auto is gptq for 4 bits and nearest for 8",
    )
    sequential: bool = Field(
        default=True,
        description="whether layers are rounded in turn, each fitted to what reaches it through those that are rounded "
        "already, where two or more are to keep their results",
    )
    bias_correction: bool = Field(
        default=True, description="whether biases make good what the rounding of weights changes on average"
    )
    fold: bool = Field(
        default=True, description="whether constants that layers' data and results meet are put into their weights"
    )
    equalize: bool = Field(
        default=False,
        description="whether the weights of neighbouring layers are made alike, channel by channel, without data",
    )
    smooth: float = Field(
        default=0.0,
        ge=0,
        le=1,
        examples=[0.5],
        description="how much of the range of a layer's inputs is moved into its weights, channel by channel: from 0 "
        "for none over 0.5 for half to 1 for all",
    )
    balance: bool = Field(
        default=False,
        description="whether each channel of a convolution's results that operations in float read gets a range of its "
        "own, which costs these operations a product and a sum more",
    )
    operators: str = Field(
        default="auto",
        description="operator kinds to quantize beside the layers, comma-separated, such as Add,MaxPool; none for no "
        "others; auto for those between integer kernels",
    )


class DynamicOptions(Options):
    """Options of dynamic quantization."""


class WeightsOptions(Options):
    """Options of weight-only quantization."""


class Fp16Options(Options):
    """Options of half precision."""
