"""Can this request be carried out? All problems at once, and nothing heavy imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qm import steer
from qm import target as targets
from qm.catalog import Catalog, Found
from qm.errors import PluginError, QmError, RouteError, UsageError
from qm.file import refuse_overwrite
from qm.plugin import Benchmark, Card, Exporter, Loader, Options, Planner, Quantizer
from qm.recipe import Recipe
from qm.scheme import Scheme
from qm.source import check_there, stem
from qm.target import Target


@dataclass(frozen=True, kw_only=True)
class PlanLeg:
    """A planner of the pipe, with its options."""

    found: Found[Planner]
    options: Options


@dataclass(frozen=True, kw_only=True)
class QuantizeLeg:
    """A quantizer of the pipe, with its options and the scheme it uses where no rule says another."""

    found: Found[Quantizer]
    options: Options
    default: Scheme


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """How a float model gets into a format that the first quantizer takes: written by one, loaded by another."""

    exporter: Found[Exporter]
    loader: Found[Loader]


@dataclass(frozen=True, kw_only=True)
class Route:
    """How a request is carried out, from the file that is read to the file that is written."""

    source: Path
    to: Path
    loader: Found[Loader]
    load: Options
    bridge: Bridge | None
    planners: tuple[PlanLeg, ...]
    quantizers: tuple[QuantizeLeg, ...]
    exporter: Found[Exporter]
    benchmark: Found[Benchmark] | None
    target: Target

    @property
    def reader(self) -> Found[Loader]:
        """What gives the model that is quantized."""
        return self.bridge.loader if self.bridge else self.loader

    def lines(self) -> list[str]:
        """The route in words, one step a line."""
        steps = [f"load       {self.source} with {self.loader.plugin}{_told(self.load)}"]
        if self.bridge:
            steps.append(
                f"convert    to {self.bridge.loader.card.gives} with {self.bridge.exporter.plugin}, "
                f"load that with {self.bridge.loader.plugin}"
            )
        steps += [f"plan       with {p.found.plugin}{_told(p.options)}" for p in self.planners]
        steps += [f"quantize   with {q.found.plugin} to {q.default}{_told(q.options)}" for q in self.quantizers]
        steps += [f"export     to {self.to} with {self.exporter.plugin}"]
        runtime = f"by {self.benchmark.plugin}" if self.benchmark else "without running it: no plugin runs this format"
        return [*steps, f"audit      {runtime}", f"target     {self.target.name} ({self.target.summary})"]


def _told(options: Options) -> str:
    told = {name: getattr(options, name) for name in sorted(options.model_fields_set)}
    return f" ({', '.join(f'{k}={v}' for k, v in told.items())})" if told else ""


def find_route(
    source: Path,
    recipe: Recipe,
    catalog: Catalog,
    *,
    to: Path | None,
    has_data: bool,
    force: bool = False,
    load: Mapping[str, Any] | None = None,
) -> Route:
    """The route of a request; ``load`` is what the loader is told.

    Raises:
        RouteError: it cannot be carried out; each reason is in ``problems``.
    """
    return _Search(source, recipe, catalog, has_data=has_data, load=load or {}).route(to, force=force)


class _Search:
    """Collects every problem on the way, so that a user mends them in one go."""

    def __init__(
        self, source: Path, recipe: Recipe, catalog: Catalog, *, has_data: bool, load: Mapping[str, Any]
    ) -> None:
        self.source, self.recipe, self.catalog, self.has_data = source, recipe, catalog, has_data
        self.load = load
        self.target: Target | None = None
        self.problems: list[QmError] = []
        self.planners: list[PlanLeg] = []
        self.quantizers: list[QuantizeLeg] = []

    def route(self, to: Path | None, *, force: bool) -> Route:
        self.target = target = self._target()
        self._stages()
        loader = self._loader()
        self._schemes()
        if self.problems or loader is None or target is None:
            raise RouteError(self.problems)
        bridge = self._bridge(loader)
        reader = bridge.loader if bridge else loader
        self._capabilities(reader)
        fmt = self._chain(reader)
        exporter = self._exporter(fmt, to)
        if exporter and (problem := steer.format_problem(exporter.plugin, exporter.card.gives, target, self.catalog)):
            self.problems.append(problem)
        if self.problems or exporter is None:
            raise RouteError(self.problems)
        place = to or self.source.with_name(f"{stem(self.source)}.{self.quantizers[-1].default}{exporter.card.suffix}")
        try:
            if place.exists() and place.resolve() == self.source.resolve():
                raise UsageError(
                    f"{str(place)!r} is the model itself, which stays as it is", hint="Name another file with --to."
                )
            refuse_overwrite(place, force=force)
        except UsageError as e:
            raise RouteError([e]) from None
        return Route(
            source=self.source,
            to=place,
            loader=loader,
            load=loader.options(dict(self.load)),
            bridge=bridge,
            planners=tuple(self.planners),
            quantizers=tuple(self.quantizers),
            exporter=exporter,
            benchmark=self._benchmark(exporter.card.gives),
            target=target,
        )

    def _target(self) -> Target | None:
        try:
            return targets.find(self.recipe.target)
        except UsageError as e:
            self.problems.append(e)
            return None

    def _stages(self) -> None:
        if not self.recipe.stages:
            self.problems.append(UsageError("no method is named", hint="Name one with -p; see qm plugins --methods."))
            return
        for stage in self.recipe.stages:
            try:
                found = self.catalog.method(stage.plugin)
                found.check_ready()
                options = found.options(dict(stage.options))
                self._add(found.namespace, found.card, options)
            except (UsageError, PluginError) as e:
                self.problems.append(e)
        last_is_planner = bool(self.planners) and not self.quantizers
        if last_is_planner and not self.problems:
            name = self.planners[-1].found.plugin
            self.problems.append(
                UsageError(
                    f"{name} plans, and nothing quantizes after it", hint=f"Add a quantizer: -p {name} -p METHOD"
                )
            )

    def _add(self, namespace: str, card: Card, options: Options) -> None:
        if isinstance(card, Quantizer):
            asked = self.recipe.scheme
            usual = steer.default_scheme(card, self.target, has_data=self.has_data)
            default = Scheme.parse(asked) if asked else usual
            self.quantizers.append(QuantizeLeg(found=Found(namespace, card), options=options, default=default))
        elif isinstance(card, Planner):
            if self.quantizers:
                before = self.quantizers[-1].found.plugin
                raise UsageError(
                    f"{namespace}.{card.name} plans, but stands after {before}", hint=f"Put it before -p {before}."
                )
            self.planners.append(PlanLeg(found=Found(namespace, card), options=options))

    def _loader(self) -> Found[Loader] | None:
        try:
            check_there(self.source)
            takes = frozenset(self.quantizers[0].found.card.takes) if self.quantizers else None
            found = self.catalog.loader(self.source, gives=takes)
            self._check_quantizable(found.card.gives)
            found.check_ready()
            self._told(found)
        except UsageError as e:
            self.problems.append(e)
            return None
        return found

    def _check_quantizable(self, fmt: str) -> None:
        """Raise UsageError for what a compiler wrote: a runtime opens the format, and no way leads to a quantizer."""
        takes = {t for f in self.catalog.all(Quantizer) for t in f.card.takes}
        if fmt in takes or self._benchmark(fmt) is None or any(self.catalog.bridges(fmt, takes)):
            return
        before = {t for f in self.catalog.all(Exporter) if f.card.gives == fmt for t in f.card.takes & takes}
        readers = [f.plugin for f in self.catalog.all(Loader) if f.card.gives in before]
        what = f"the {_either(sorted(before))} model" if before else "the model"
        raise UsageError(
            f"{str(self.source)!r} is of format {fmt}, which can be run and not be quantized",
            hint=f"Give {what} it was made from{f', which {_either(readers)} reads' if readers else ''}.",
        )

    def _told(self, loader: Found[Loader]) -> None:
        try:
            loader.options(dict(self.load))
        except UsageError as e:
            way_out = "An option of a method stands after its -p." if self.quantizers or self.planners else ""
            raise UsageError(e.message, hint=f"{e.hint} {way_out}".strip()) from None

    def _bridge(self, loader: Found[Loader]) -> Bridge | None:
        """A way to what the first quantizer takes, where the loader does not give it; one that is ready, if any is."""
        fmt, takes = loader.card.gives, self.quantizers[0].found.card.takes if self.quantizers else frozenset()
        if fmt in takes:
            return None
        ways = [Bridge(exporter=e, loader=r) for e, r in self.catalog.bridges(fmt, takes)]
        if not ways:
            return None
        way = next((w for w in ways if not w.exporter.obstacle() and not w.loader.obstacle()), ways[0])
        self.problems += [e for found in (way.exporter, way.loader) if (e := found.obstacle())]
        return way

    def _schemes(self) -> None:
        """Every scheme asked for is offered by some stage, and what it needs is there."""
        if not self.quantizers:
            return
        cards = [q.found.card for q in self.quantizers]
        offered = steer.offered(cards)
        asked = {Scheme.parse(r.scheme) for r in self.recipe.rules} | {q.default for q in self.quantizers}
        for scheme in sorted(asked - offered - {Scheme()}, key=str):
            names = " or ".join(q.found.plugin for q in self.quantizers)
            self.problems.append(
                UsageError(
                    f"scheme {str(scheme)!r} is not offered by {names}",
                    hint=f"Offered are: {', '.join(sorted(str(s) for s in offered))}, float.",
                )
            )
        self.problems += steer.scheme_problems(asked & offered, cards, self.target)
        for leg in self.quantizers:
            if self.recipe.rules and not leg.found.card.per_layer:
                self.problems.append(
                    UsageError(f"{leg.found.plugin} treats all layers alike", hint="Drop the rules from the recipe.")
                )
            mine = [s for s in asked if s in {Scheme.parse(t) for t in leg.found.card.schemes}]
            needing = [s for s in mine if leg.found.card.needs_data(s)]
            if needing and not self.has_data:
                free = sorted(str(s) for s in steer.offered(cards, self.target) if not leg.found.card.needs_data(s))
                self.problems.append(
                    UsageError(
                        f"{leg.found.plugin} needs samples to calibrate {needing[0]}",
                        hint="Give some with --data" + (f", or ask for --scheme {free[0]}." if free else "."),
                    )
                )
        if any(p.found.card.needs_data for p in self.planners) and not self.has_data:
            name = self.planners[0].found.plugin
            self.problems.append(UsageError(f"{name} needs samples to try plans on", hint="Give some with --data."))

    def _capabilities(self, loader: Found[Loader]) -> None:
        for leg in self.planners:
            if lacking := leg.found.card.needs - loader.card.can:
                self.problems.append(
                    UsageError(
                        f"{leg.found.plugin} needs {', '.join(sorted(lacking))} of the model, "
                        f"which {loader.plugin} does not offer",
                        hint="Leave the planner out, or convert the model to another format first.",
                    )
                )

    def _chain(self, loader: Found[Loader]) -> str:
        """Walk the formats along the pipe; the format that comes out."""
        fmt, giver = loader.card.gives, loader.plugin
        for leg in self.quantizers:
            card = leg.found.card
            if fmt not in card.takes:
                self.problems.append(
                    UsageError(
                        f"{leg.found.plugin} takes {_either(sorted(card.takes))} models, and {giver} gives {fmt}",
                        hint=self._alternatives(fmt),
                    )
                )
            fmt, giver = card.gives or fmt, leg.found.plugin
        return fmt

    def _alternatives(self, fmt: str) -> str:
        able = [f.plugin for f in self.catalog.all(Quantizer) if fmt in f.card.takes]
        return f"For {fmt} there is: {', '.join(able)}." if able else f"No installed method takes {fmt} models."

    def _exporter(self, fmt: str, to: Path | None) -> Found[Exporter] | None:
        try:
            found = self.catalog.exporter(fmt, to.suffix if to else None)
            found.check_ready()
            if found.card.float_only:
                raise UsageError(
                    f"{found.plugin} writes float models only, as {found.card.suffix}",
                    hint=self._alternatives(found.card.gives),
                )
        except (UsageError, PluginError) as e:
            self.problems.append(e)
            return None
        return found

    def _benchmark(self, fmt: str) -> Found[Benchmark] | None:
        try:
            return self.catalog.benchmark(fmt)
        except UsageError:
            return None


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)
