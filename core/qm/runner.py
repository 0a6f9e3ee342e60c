"""Load, plan, quantize, export, audit, benchmark, report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from qm import page
from qm import target as targets
from qm.audit import Audit, Evidence, audit, profiled
from qm.catalog import Catalog, Found
from qm.contender import race, runnable
from qm.crossing import cross
from qm.data import Samples, open_data, suspicion
from qm.errors import AuditFailed, QmError
from qm.file import refuse_overwrite, written
from qm.journal import Journal
from qm.judgement import quality_of
from qm.layout import left_out, merged, work_out
from qm.measurement import Ratio
from qm.plugin import (
    Activation,
    Artifact,
    Card,
    Chart,
    Loader,
    Memo,
    Model,
    Notes,
    Plan,
    PlanJob,
    Progress,
    Recipe,
    Rule,
    Silent,
    Step,
)
from qm.report import File, Finding, Level, Profile, Report, Size, Spread, environment, now, page_path, report_path
from qm.report import Samples as SamplesUsed
from qm.request import Request
from qm.route import Route, find_route
from qm.scheme import Scheme
from qm.split import Split, divided, made_up, trial_samples
from qm.steer import default_scheme
from qm.step import check_float, export_model, load_model, quantize_model
from qm.workbench import Workbench


@dataclass
class Run:
    """One request on its way through the house. ``divide`` says which samples are for what, where not as usual."""

    request: Request
    catalog: Catalog = field(default_factory=Catalog)
    progress: Progress = field(default_factory=Silent)
    notes: Notes = field(default_factory=Notes)
    activations: list[Activation] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    profile_before: Profile | None = None
    divide: Callable[[Samples], Split] | None = None

    @cached_property
    def route(self) -> Route:
        """How the request is carried out; raises RouteError where it cannot be."""
        request = self.request
        return find_route(
            request.model,
            request.recipe,
            self.catalog,
            to=request.to,
            has_data=request.data is not None,
            force=request.force,
            load=request.load,
        )

    @cached_property
    def _original(self) -> Model:
        """The model as its own loader gives it."""
        return load_model(self.catalog.manager, self.route.loader, self.request.model, self.request.load, self.notes)

    @cached_property
    def model(self) -> Model:
        """The float model; raises UsageError where it is quantized already, or has nothing to quantize."""
        loader, bridge, model = self.route.reader, self.route.bridge, self._original
        if bridge is not None:
            model = cross(self.catalog.manager, bridge, model, self.notes)
        check_float(loader, model, self.request.model)
        return model

    @cached_property
    def split(self) -> Split:
        """The samples by what they are for."""
        request = self.request
        if request.data is None:
            return made_up(self.model, request.recipe.seed)
        samples = open_data(request.data, self.model.inputs())
        if self.divide is not None:
            return self.divide(samples)
        wanted = [leg.found.card.samples for leg in self.route.quantizers]
        most = None if None in wanted else max(n for n in wanted if n is not None)
        trials = trial_samples(self.model.layers()) if self.route.planners else 0
        return divided(samples, request.recipe, trials=trials, wanted=most)

    @cached_property
    def _memo(self) -> Memo | None:
        """What the methods keep from the trials of planners to the final run; None where there are no trials."""
        return Memo() if self.route.planners else None

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe after every planner, each of which plans for whatever follows it."""
        recipe = self.request.recipe
        if not self.route.planners:
            return recipe
        manager = self.catalog.manager
        bench = Workbench(
            catalog=self.catalog,
            route=self.route,
            model=self.model,
            calibration=self.split.calibration,
            judging=self.split.trial,
            journal=self._journal(),
            seed=recipe.seed,
            memo=self._memo,
        )
        names = {leg.found.plugin for leg in self.route.planners}
        recipe = recipe.model_copy(update={"stages": tuple(s for s in recipe.stages if s.plugin not in names)})
        for leg in self.route.planners:
            job = PlanJob(
                recipe=recipe,
                bench=bench,
                options=leg.options,
                seed=recipe.seed,
                progress=self.progress,
                notes=self.notes,
                charts=self.charts,
            )
            implementation = partial(_implemented, leg.found.card, job)
            recipe = manager.perform("plan", Step(leg.found.plugin, job, implementation), Recipe)
        return recipe

    def _journal(self) -> Journal:
        subject = {
            "model": self._source.sha256,
            "data": self.split.whole.fingerprint if self.split.whole is not None else "made up",
            "seed": self.request.recipe.seed,
            "samples": self.request.recipe.samples,
            "target": self.route.target.model_dump(mode="json"),
            "version": environment(set())["quantized-model"],
        }
        return Journal(self.journal_path, subject)

    @property
    def journal_path(self) -> Path:
        """Where the trials of this run are remembered, until it is done."""
        return self.route.to.with_name(self.route.to.name + ".trials.jsonl")

    @property
    def _scratch(self) -> Path:
        """Where a quantizer leaves what a run that is cut off can go on from."""
        return self.route.to.with_name(self.route.to.name + ".partial")

    @cached_property
    def plans(self) -> tuple[Plan, ...]:
        """One plan a quantizer."""
        return work_out(self.recipe, self.model.layers(), self.route.quantizers)

    @cached_property
    def plan(self) -> Plan:
        """The scheme of every layer."""
        return merged(self.plans, self.model.layers())

    def spelled_out(self) -> Recipe:
        """The recipe with a rule for every layer, so that a person can see and change each."""
        rules = tuple(Rule.exactly(name, scheme) for name, scheme in self.plan.layers.items())
        self._forget_trials()
        return self.recipe.model_copy(update={"rules": rules})

    def quantize(self) -> Report:
        """The whole run; the artifact and its report are there when this returns.

        Raises:
            QmError: of the kind that says whose fault it is; AuditFailed where a promise was broken, the artifact
                then lies under its name with ``.rejected`` at the end.
        """
        route = self.route
        for place in [report_path(route.to), *([page_path(route.to)] if self.request.page else [])]:
            refuse_overwrite(place, force=self.request.force)
        quantized = quantize_model(
            self.catalog.manager,
            route.quantizers,
            self._ready(),
            self.model,
            data=self.split.calibration,
            target=route.target,
            seed=self.recipe.seed,
            progress=self.progress,
            notes=self.notes,
            activations=self.activations,
            scratch=self._scratch,
            memo=self._memo,
        )
        with written(route.to, force=self.request.force) as temporary:
            artifact = export_model(self.catalog.manager, route.exporter, quantized, temporary, named=route.to)
            seen = self._audit(artifact)
            speed = self._race(artifact, seen)
            report = self._report(artifact, seen, speed)
            if seen.broken:
                self._reject(temporary, report, seen.broken)
            report_path(temporary).write_text(report.json_text(), encoding="utf-8")
        self._forget_trials()
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._draw(report, route.to)
        return report

    def _draw(self, report: Report, artifact: Path) -> None:
        """The page, once all else is in its place: it can be drawn again from the report."""
        if self.request.page:
            page.write([report], page_path(artifact), force=True)

    def _forget_trials(self) -> None:
        if self.route.planners:
            self.journal_path.unlink(missing_ok=True)

    def _ready(self) -> tuple[Plan, ...]:
        """The plans, once the samples are known to fit: what is wrong with them is said before anything is done."""
        _ = self.split
        for leg in self.route.quantizers:
            card, target = leg.found.card, self.route.target
            if self.request.recipe.scheme is not None:
                continue
            usual = default_scheme(card, None, has_data=self.request.data is not None)
            if leg.default != usual:
                self.notes.say(f"{leg.found.plugin} takes {leg.default}, as {target.name} does not run {usual}")
            elif self.request.data is None and card.default_without_data:
                self.notes.say(
                    f"without samples {leg.found.plugin} takes {card.default_without_data}; give some with --data for "
                    f"{card.default}"
                )
        return self.plans

    def _audit(self, artifact: Artifact) -> Audit:
        route, split = self.route, self.split
        loader = self.catalog.loader(artifact.path, gives={artifact.format})
        evidence = Evidence(
            model=self.model,
            layers=self.model.layers(),
            plan=self.plan,
            left_out=left_out(self.recipe, self.model.layers()),
            float_nbytes=self._float_nbytes(artifact),
            artifact=artifact,
            judging=split.judging,
            labels=split.labels,
            target=route.target,
            host=targets.host(),
            synthetic=split.synthetic,
            again=self.request.again(),
            wider=self._wider(),
            doubt=None if split.whole is None else suspicion(split.whole, self.model.inputs()),
            read=partial(self._read_back, artifact, loader) if self.model.is_streamed and not split.judging else None,
        )
        return audit(
            evidence,
            benchmark=route.benchmark.plugin if route.benchmark else None,
            loader=loader.plugin,
            can=frozenset(loader.card.can),
            progress=self.progress,
        )

    def _read_back(self, artifact: Artifact, loader: Found[Loader]) -> Mapping[str, Scheme]:
        """What each layer of the artifact is in, its weights left where they are."""
        return load_model(self.catalog.manager, loader, artifact.path, streamed=True).schemes()

    def _wider(self) -> Scheme | None:
        """The next scheme up from the default that the last method offers, float aside."""
        leg = self.route.quantizers[-1]
        offered = (Scheme.parse(text) for text in leg.found.card.schemes)
        wider = [s for s in offered if _bits(s) > _bits(leg.default) and s.granularity == leg.default.granularity]
        return min(wider, key=_bits, default=None)

    @cached_property
    def _source(self) -> File:
        return File.of_source(self.request.model, self._original)

    def _float_nbytes(self, artifact: Artifact) -> int:
        """Bytes of the float model in the artifact's own format: those of a file that also trains tell nothing."""
        if self._source.format != artifact.format:
            return self.model.nbytes()
        # A file of weights may have any name, and then only the model knows it.
        return max(self._source.nbytes, self.model.nbytes()) if self.model.is_streamed else self._source.nbytes

    def _race(self, artifact: Artifact, seen: Audit) -> Ratio | None:
        if not self.request.benchmark or seen.broken or not self.split.judging or self.route.benchmark is None:
            return None
        try:
            with runnable(self.request.model, self.catalog, self.request.load, like=artifact.format) as (reference, _):
                self.profile_before = profiled(reference, self.split.judging[0], self.catalog)
                return race(
                    reference,
                    artifact,
                    self.split.judging[0],
                    catalog=self.catalog,
                    threads=self.request.threads,
                    time_s=self.request.time_s,
                    seed=self.recipe.seed,
                    progress=self.progress,
                )
        except QmError as e:
            # The artifact is made and audited: that the original cannot be timed must not cost it.
            seen.add("speed", Level.WARNING, f"not measured: {e.message}", todo=e.hint)
            return None

    def _report(self, artifact: Artifact, seen: Audit, speed: Ratio | None) -> Report:
        route, split = self.route, self.split
        final = Artifact(path=route.to, format=artifact.format)
        return Report(
            created=now(),
            command=self.request.command or self.request.again(),
            model=self._source,
            artifact=File.of(artifact).model_copy(update={"path": str(final.path)}),
            accepted=not seen.broken,
            route=tuple(route.lines()),
            recipe=self.recipe,
            plan=_texts(self.plan.layers),
            schemes=_texts(seen.schemes),
            target=route.target,
            host=targets.host(),
            runtime=seen.runtime,
            decisions=tuple(self.notes),
            findings=tuple(seen.findings),
            size=Size(before=self._float_nbytes(artifact), after=artifact.nbytes),
            quality=quality_of(
                seen.evaluation, synthetic=split.synthetic, indices=split.judged.indices if split.judged else ()
            )
            if seen.evaluation
            else None,
            speed=speed,
            data=self._samples(),
            error_by_layer=tuple(seen.layers),
            profile_before=self.profile_before,
            profile_after=Profile.of(seen.operations),
            activations=Spread.worst(self.activations),
            charts=tuple(self.charts),
            environment=environment(self._distributions()),
        )

    def _samples(self) -> SamplesUsed | None:
        whole, calibration, judged = self.split.whole, self.split.calibration, self.split.judged
        if whole is None or judged is None:
            return None
        uses_data = any(
            leg.found.card.needs_data(s)
            for leg, plan in zip(self.route.quantizers, self.plans, strict=True)
            for s in plan.schemes()
        )
        calibrated = calibration.indices if calibration is not None and uses_data else ()
        used = {*calibrated, *self.split.tried}
        return SamplesUsed(
            source=str(whole.source),
            fingerprint=whole.fingerprint,
            count=len(whole),
            calibrated=calibrated,
            tried=self.split.tried,
            seen=tuple(d for i, d in zip(whole.indices, whole.digests, strict=True) if i in used),
            judged=judged.indices,
            notes=tuple(whole.notes),
        )

    def _distributions(self) -> set[str]:
        route = self.route
        cards: list[Found[Any]] = [route.loader, route.exporter]
        if route.bridge is not None:
            cards += [route.bridge.exporter, route.bridge.loader]
        cards += [leg.found for leg in route.planners] + [leg.found for leg in route.quantizers]
        named = {d.strip() for found in cards for text in found.card.requires for d in text.split("|")}
        return named | {self.catalog.manager.offer(found.namespace).distribution for found in cards}

    def _reject(self, temporary: Path, report: Report, broken: Sequence[Finding]) -> None:
        place = self.route.to.with_name(self.route.to.name + ".rejected")
        report.write(report_path(place))
        shutil.rmtree(self._scratch, ignore_errors=True)
        for made in sorted(temporary.parent.iterdir(), key=lambda p: p.name == temporary.name):
            shutil.move(made, place if made.name == temporary.name else place.with_name(made.name))
        self._draw(report, place)
        first = broken[0]
        raise AuditFailed(
            f"{str(self.route.to)!r} does not keep its promise: {first.seen}"
            + (f" ({first.layer})" if first.layer else ""),
            hint=f"{first.next} The file is kept as {str(place)!r}, with its report.".strip(),
        )


def _implemented(card: Card, job: Any) -> Any:
    return card.implementation()(job)


def _bits(scheme: Scheme) -> tuple[int, int]:
    return scheme.weight_bits, scheme.activation_bits


def _texts(schemes: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(scheme) for name, scheme in schemes.items()}
