"""Cards: what plugins declare. Plain data, so that choosing among methods never imports a framework."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from qm.scheme import Scheme
from qm.types import Can, Layer


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


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a plugin declares. ``impl`` is a callable, or ``"package.module:function"``, imported when it is run.

    ``requires`` names the distributions the implementation needs, ``"a | b"`` where either will do; ``extra`` is the
    extra of this project that installs them, where it is not called as the namespace. ``ready`` is named as ``impl``
    is, takes nothing, imports no framework, and raises NotReady where something else is missing, such as a compiler.
    """

    kind: ClassVar[str] = "card"
    name: str
    summary: str
    impl: str | Callable[..., Any]
    options: type[Options] = Options
    requires: tuple[str, ...] = ()
    extra: str | None = None
    ready: str | Callable[[], None] | None = None

    def implementation(self) -> Callable[..., Any]:
        """The function itself, its module imported."""
        return _named(self.impl)

    def check_ready(self) -> None:
        """Raise NotReady where ``ready`` does."""
        if self.ready is not None:
            _named(self.ready)()


def _named(function: str | Callable[..., Any]) -> Callable[..., Any]:
    if callable(function):
        return function
    module, _, attribute = function.partition(":")
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
