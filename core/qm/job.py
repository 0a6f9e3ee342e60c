"""Jobs: what an implementation is handed. Fields may be added with defaults, never removed, within a major version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from qm.card import Options
from qm.chart import Chart
from qm.memo import Memo
from qm.progress import Progress, Silent
from qm.recipe import Recipe
from qm.scheme import Scheme
from qm.target import Target
from qm.types import Activation, Artifact, Dataset, Layer, Model, Plan

J = TypeVar("J")
R = TypeVar("R")


class Notes(list[str]):
    """Decisions worth a line in the report: what was chosen, and why."""

    def say(self, text: str) -> None:
        """Add a line, once."""
        if text not in self:
            self.append(text)


@dataclass(frozen=True, kw_only=True)
class LoadJob:
    """``streamed`` asks that weights stay on the disk where they can, since the model is looked at and not run."""

    path: Path
    options: Any = field(default_factory=Options)
    notes: Notes = field(default_factory=Notes)
    streamed: bool = False


@dataclass(frozen=True, kw_only=True)
class QuantizeJob:
    """``activations`` takes what calibration saw, for the report, which keeps the worst.

    ``scratch`` is a folder beside the result, not there yet, for what a run that is cut off can go on from; it is
    removed once the result is in its place. None where nobody will go on.

    ``memo`` keeps what does not depend on the plan for the other plans of a run. It is of this method, model and data
    alone.
    """

    model: Model
    plan: Plan
    data: Dataset | None = None
    target: Target = field(default_factory=lambda: Target(name="unknown"))
    options: Any = field(default_factory=Options)
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    notes: Notes = field(default_factory=Notes)
    activations: list[Activation] = field(default_factory=list)
    scratch: Path | None = None
    memo: Memo = field(default_factory=Memo.forgetful)


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    model: Model
    path: Path
    options: Options = field(default_factory=Options)


@dataclass(frozen=True, kw_only=True)
class BenchmarkJob:
    artifact: Artifact
    threads: int = 1
    options: Options = field(default_factory=Options)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A recipe tried: size in bytes, and the error on held-out samples as the real runtime computes it."""

    recipe: Recipe
    nbytes: int
    sqnr_db: float
    agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Time of one run on one sample on this machine, and of each layer in it where the runtime tells; microseconds."""

    latency_us: float
    layers_us: Mapping[str, float] = field(default_factory=dict)


class Bench(Protocol):
    """What a planner may do. It sees names, sizes, kinds, offers and measured errors, never a framework's tensor."""

    @property
    def layers(self) -> Sequence[Layer]: ...
    @property
    def target(self) -> Target: ...
    @property
    def float_nbytes(self) -> int: ...

    def offers(self, layer: Layer) -> tuple[Scheme, ...]:
        """The schemes that the stages after the planner offer for the layer, float aside."""
        ...

    def plan(self, recipe: Recipe) -> Plan:
        """The recipe worked out, layer by layer."""
        ...

    def run(self, recipe: Recipe) -> Trial:
        """Quantize, export and run the recipe; what was tried before, by an interrupted run too, is remembered.

        Raises:
            Unsupported: a method, the exporter or the runtime refuses the plan; others may do.
        """
        ...

    def time(self, recipe: Recipe) -> Speed:
        """Time what the recipe makes on this machine, in turns with the first recipe timed; remembered as trials are.

        It takes some seconds.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    """``charts`` takes what the planner measured and a person may want to look at, for the report."""

    recipe: Recipe
    bench: Bench
    options: Any = field(default_factory=Options)
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    notes: Notes = field(default_factory=Notes)
    charts: list[Chart] = field(default_factory=list)


@dataclass(frozen=True)
class Step(Generic[J, R]):
    """One step of the pipe on its way through the hooks: whose it is, what it is handed, and how to do it."""

    plugin: str
    job: J
    call: Callable[[], R]
