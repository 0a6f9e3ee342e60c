"""What was found, as ``qm explain --json`` prints it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qm.measurement import Ratio
from qm.recipe import Recipe
from qm.report import File
from qm.strict import Strict


class LayerError(Strict):
    """Error of one layer's output, in the artifact against the baseline; None where it cannot be said, or is none."""

    layer: str
    kind: str
    scheme: str | None = None
    sqnr_db: float | None = Field(default=None, description="of the layer's output, with the error of all before it")
    exact_sqnr_db: float | None = Field(default=None, description="the same by kernels that cannot saturate")
    arises: float = Field(default=0.0, description="share of the noise in the output that was not there a layer before")
    alone_db: float | None = Field(default=None, description="of the model's output, with this layer alone quantized")
    share: float | None = Field(default=None, description="noise of the layer alone over that of all, at the output")


class Saturating(Strict):
    """A layer whose weights can saturate."""

    layer: str
    seen: str


class Saturation(Strict):
    """The artifact by its real kernels and by exact ones, both against the baseline."""

    real_db: float
    exact_db: float
    layers: tuple[Saturating, ...] = Field(description="layers at risk, those that differ most first")

    @property
    def lost_db(self) -> float:
        """What saturation costs."""
        return self.exact_db - self.real_db


class LayerTime(Strict):
    """Time of one layer's operations, in microseconds a run; ``integer`` tells of its kernel in the artifact."""

    layer: str
    before_us: float
    after_us: float
    integer: bool | None = None


class KindTime(Strict):
    """Time of all operations of one kind, in microseconds a run."""

    kind: str
    before_us: float
    after_us: float


class Timing(Strict):
    """Time by operation of both. ``border_us`` is that of operations that only quantize or dequantize."""

    before_us: float
    after_us: float
    border_us: float
    borders: int
    layers: tuple[LayerTime, ...]
    kinds: tuple[KindTime, ...]
    others: tuple[KindTime, ...] = Field(
        default=(), description="kinds of operations that belong to no layer, borders aside"
    )

    @property
    def border_share(self) -> float:
        """Share of the artifact's time that goes into borders."""
        return self.border_us / self.after_us if self.after_us else 0.0


class Speed(Strict):
    """How many times as fast as the artifact: the median over pairs of blocks, and the least and the most of them."""

    ratio: float
    low: float
    high: float


class Remedy(Strict):
    """One thing tried, with its effect against the artifact."""

    name: str = Field(
        description="what kind of remedy: again, safe, option, granularity, activations, weights, layer, excluded"
    )
    what: str
    sqnr_db: float | None
    gain_db: float | None
    agreement: float | None = None
    nbytes: int
    speed: Speed | None = None
    recipe: Recipe


class Exclusion(Strict):
    """The smallest list of layers that, left in float, brings the error within the goal.

    ``layers`` is None where no list was found in time. ``minimal`` says that no layer of it can be spared.
    """

    goal_db: float
    layers: tuple[str, ...] | None
    sqnr_db: float | None = None
    minimal: bool = False
    trials: int = 0


class Cause(Strict):
    """One reason, with its evidence and what to do next."""

    about: Literal["worse", "slower"]
    name: str
    sentence: str
    layers: tuple[str, ...] = ()
    gain_db: float | None = None
    next: str = ""


class Explanation(Strict):
    """The whole of it; ``causes`` are ranked."""

    artifact: File
    baseline: File
    samples: int
    synthetic: bool
    sqnr_db: float | None
    agreement: float | None
    speed: Ratio | None = None
    timing: Timing | None = None
    saturation: Saturation | None = None
    errors: tuple[LayerError, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    exclusion: Exclusion | None = None
    causes: tuple[Cause, ...] = ()
    recommended: Recipe | None = None
    notes: tuple[str, ...] = ()
    stopped_by: Literal["done", "time", "interrupt"] = "done"
