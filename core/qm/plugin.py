"""The door for plugin authors: cards, jobs, options, and everything an implementation needs.

A plugin is a module with one hook implementation that returns cards::

    from qm.plugin import Loader, Quantizer, hookimpl

    @hookimpl
    def qm_cards():
        yield Quantizer(
            name="ternary", impl="qm_ternary.quantize:quantize", takes={"toy"}, schemes={"w2"}, default="w2"
        )

named in the distribution's metadata, where the entry point's name becomes the namespace of its cards::

    [project.entry-points."qm.v1"]
    acme = "qm_ternary.plugin"
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pluggy
from pydantic import BaseModel, ConfigDict, Field

from qm import function
from qm.errors import NotReady, PluginError, QmError, Unsupported, UsageError
from qm.file import contents, sha256, written
from qm.progress import Progress, Silent
from qm.recipe import Recipe, Rule, Stage
from qm.scheme import F16, FLOAT, Activations, Granularity, Scheme
from qm.target import Target
from qm.types import (
    Activation,
    Array,
    Artifact,
    Batch,
    Can,
    Dataset,
    Hazard,
    Layer,
    Model,
    OpTime,
    Plan,
    Session,
    TensorSpec,
    unique,
)

__all__ = [
    "F16",
    "FLOAT",
    "GROUP",
    "Activation",
    "Activations",
    "Array",
    "Artifact",
    "Batch",
    "Bench",
    "Benchmark",
    "BenchmarkJob",
    "Can",
    "Card",
    "Dataset",
    "ExportJob",
    "Exporter",
    "Field",
    "Granularity",
    "Hazard",
    "Layer",
    "LoadJob",
    "Loader",
    "Model",
    "Needs",
    "Notes",
    "NotReady",
    "OpTime",
    "Options",
    "Plan",
    "PlanJob",
    "Planner",
    "PluginError",
    "Progress",
    "QmError",
    "QuantizeJob",
    "Quantizer",
    "Recipe",
    "Rule",
    "Scheme",
    "Session",
    "Silent",
    "Stage",
    "Step",
    "Target",
    "TensorSpec",
    "Trial",
    "Unsupported",
    "UsageError",
    "contents",
    "function",
    "hookimpl",
    "sha256",
    "unique",
    "written",
]

GROUP = "qm.v1"
"""The entry-point group. It carries the major version of this contract."""

hookimpl = pluggy.HookimplMarker("qm")


class Options(BaseModel):
    """What a method can be told with ``-o name=value``. Give every field a description, a default and its range."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Needs:
    """What data a quantizer needs."""

    NOTHING = "nothing"
    RANGES = "ranges"
    """Samples, for schemes with static activations only."""
    DATA = "data"
    LABELS = "labels"


# Cards: plain data, so that choosing among methods never imports a framework.


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a plugin declares. ``impl`` is a callable, or ``"package.module:function"``, imported when it is run.

    ``requires`` names the distributions the implementation needs, ``"a | b"`` where either will do; ``extra`` is the
    extra of this project that installs them, where it is not called as the namespace.
    """

    kind: ClassVar[str] = "card"
    name: str
    summary: str
    impl: str | Callable[..., Any]
    options: type[Options] = Options
    requires: tuple[str, ...] = ()
    extra: str | None = None

    def implementation(self) -> Callable[..., Any]:
        """The function itself, its module imported."""
        if callable(self.impl):
            return self.impl
        module, _, attribute = self.impl.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return found


@dataclass(frozen=True, kw_only=True)
class Loader(Card):
    """Turns a path into a model: ``impl(LoadJob) -> Model``.

    ``suffixes`` are lower case with the dot; ``"/"`` is a folder, and ``":"`` a function, ``package.module:function``,
    whose name is the job's path (see ``function``), and whose model needs a ``digest``. ``sniff`` tells by a look at
    the path, without a framework, whether the loader knows the content, where several share a suffix.
    """

    kind: ClassVar[str] = "loader"
    suffixes: AbstractSet[str]
    gives: str
    can: AbstractSet[Can] = frozenset()
    sniff: Callable[[Path], bool] | None = None


@dataclass(frozen=True, kw_only=True)
class Planner(Card):
    """Turns a recipe into a better one: ``impl(PlanJob) -> Recipe``. It names no framework."""

    kind: ClassVar[str] = "planner"
    needs: AbstractSet[Can] = frozenset()
    needs_data: bool = True


@dataclass(frozen=True, kw_only=True)
class Quantizer(Card):
    """Turns a model and a plan into a quantized model: ``impl(QuantizeJob) -> Model``.

    ``gives`` is the format that comes out, the one that went in where it is None. ``default`` is the scheme used where
    none is asked, ``default_without_data`` the one where there is no data either (``default`` where None).
    ``per_layer`` says whether a plan may differ between layers. ``layer_kinds`` are the only layer kinds that it
    quantizes, all where it is empty; ``kinds`` narrows the schemes of some of them. ``instead`` says what a layer gets
    that has no kernel for the scheme of the others: the first that its kind offers. ``samples`` is how many it takes
    where nobody says, None for all but those that judge.
    """

    kind: ClassVar[str] = "quantizer"
    takes: AbstractSet[str]
    gives: str | None = None
    schemes: AbstractSet[str]
    default: str
    default_without_data: str | None = None
    per_layer: bool = True
    needs: str = Needs.NOTHING
    layer_kinds: AbstractSet[str] = frozenset()
    kinds: Mapping[str, AbstractSet[str]] = field(default_factory=dict)
    instead: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    samples: int | None = 128

    def needs_data(self, scheme: Scheme) -> bool:
        """Whether samples are needed to quantize a layer to ``scheme``."""
        return self.needs in (Needs.DATA, Needs.LABELS) or (self.needs == Needs.RANGES and scheme.is_static)

    def offers(self, layer: Layer) -> tuple[Scheme, ...]:
        """The schemes it can bring the layer to, float aside."""
        if self.layer_kinds and layer.kind not in self.layer_kinds:
            return ()
        offered = self.schemes & self.kinds.get(layer.kind, self.schemes)
        return tuple(Scheme.parse(text) for text in sorted(offered))

    def nearest(self, layer: Layer, scheme: Scheme) -> Scheme | None:
        """``scheme`` where it is offered for the layer, else what takes its place; None where nothing does."""
        offered = self.offers(layer)
        candidates = (scheme, *(Scheme.parse(text) for text in self.instead.get(str(scheme), ())))
        return next((s for s in candidates if s in offered), None)


@dataclass(frozen=True, kw_only=True)
class Exporter(Card):
    """Writes a model: ``impl(ExportJob) -> Artifact``. ``suffix`` has its dot; ``gives`` is what loaders call it.

    One that is ``float_only`` ends no route, but leads to methods that take what it gives.
    """

    kind: ClassVar[str] = "exporter"
    takes: AbstractSet[str]
    gives: str
    suffix: str
    float_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Benchmark(Card):
    """Opens an artifact by its real runtime: ``impl(BenchmarkJob) -> Session``."""

    kind: ClassVar[str] = "benchmark"
    takes: AbstractSet[str]
    can: AbstractSet[Can] = frozenset()


# Jobs: what an implementation is handed. Fields may be added with defaults, never removed, within a major version.


class Notes(list[str]):
    """Decisions worth a line in the report: what was chosen, and why."""

    def say(self, text: str) -> None:
        """Add a line, once."""
        if text not in self:
            self.append(text)


@dataclass(frozen=True, kw_only=True)
class LoadJob:
    path: Path
    options: Any = field(default_factory=Options)
    notes: Notes = field(default_factory=Notes)


@dataclass(frozen=True, kw_only=True)
class QuantizeJob:
    """``activations`` takes what calibration saw, for the report, which keeps the worst."""

    model: Model
    plan: Plan
    data: Dataset | None = None
    target: Target = field(default_factory=lambda: Target(name="unknown"))
    options: Any = field(default_factory=Options)
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    notes: Notes = field(default_factory=Notes)
    activations: list[Activation] = field(default_factory=list)


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
        """Quantize, export and run the recipe; what was tried before, by an interrupted run too, is remembered."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    recipe: Recipe
    bench: Bench
    options: Any = field(default_factory=Options)
    seed: int = 0
    progress: Progress = field(default_factory=Silent)
    notes: Notes = field(default_factory=Notes)


J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True)
class Step(Generic[J, R]):
    """One step of the pipe on its way through the hooks: whose it is, what it is handed, and how to do it."""

    plugin: str
    job: J
    call: Callable[[], R]
