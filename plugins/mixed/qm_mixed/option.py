"""What the planners can be told with ``-o name=value``."""

from __future__ import annotations

from qm.plugin import Field, Options


class LadderOptions(Options):
    """Which schemes are tried."""

    ladder: str = Field(
        default="",
        description="schemes to choose from, with commas: float,w8a8,w4a8; where empty, all that the quantizer offers "
        "with the activations of the default scheme, and float",
    )


class SensitivityOptions(LadderOptions):
    """Options of mixed.sensitivity."""

    count: int = Field(default=1, ge=0, description="how many of the worst layers get a better scheme")
    table: str = Field(default="", description="a .csv file for what each layer costs at each scheme")


class BudgetOptions(LadderOptions):
    """Options of mixed.budget. Limits of size may be combined; goals of accuracy may be."""

    max_bytes: int | None = Field(default=None, ge=1, description="bytes that the file may take")
    max_ratio: float | None = Field(default=None, gt=0, description="share of the float model's bytes that it may take")
    max_macs_bits: float | None = Field(
        default=None,
        gt=0,
        description="limit of the sum over layers of multiply-accumulates x weight bits x activation bits",
    )
    max_latency_us: float | None = Field(
        default=None, gt=0, description="microseconds that one sample may take on this machine, with one thread"
    )
    min_sqnr_db: float | None = Field(default=None, description="least SQNR to the float model; the smallest is sought")
    max_drop: float | None = Field(
        default=None, ge=0, le=100, description="percent of top-1 answers that may change; the smallest is sought"
    )
    trials: int = Field(default=8, ge=1, le=200, description="plans that are really tried, those of one layer aside")


class GreedyOptions(LadderOptions):
    """Options of mixed.greedy."""

    max_bytes: int | None = Field(default=None, ge=1, description="bytes that the file may take")
    max_ratio: float | None = Field(default=None, gt=0, description="share of the float model's bytes that it may take")


class ParetoOptions(LadderOptions):
    """Options of mixed.pareto."""

    points: int = Field(default=6, ge=2, le=50, description="sizes that are tried, from the smallest to the default's")
    folder: str = Field(default="", description="a folder for the recipes of the front, one file a point")
