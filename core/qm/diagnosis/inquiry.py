"""The whole inquiry: measure, try, and say why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from qm.catalog import Catalog
from qm.diagnosis import cause, error, operation, remedy
from qm.diagnosis.evidence import Evidence, gathered
from qm.diagnosis.explanation import Exclusion, Explanation, LayerError, Remedy, Saturation, Timing
from qm.diagnosis.narrowing import narrowed
from qm.diagnosis.pair import Pair, open_pair, some, units
from qm.diagnosis.trial import Late, Trials
from qm.errors import UsageError
from qm.file import sha256
from qm.journal import Journal
from qm.measurement import Ratio
from qm.plugin import Notes, Progress, Recipe, Silent
from qm.report import File, environment, rounded

GOAL_DB = 6.0
"""How much better than the artifact a list of layers should make it, where no goal is told: half the error."""
SPEED_S = 20.0
CONTRIBUTIONS = 0.6
"""Share of the time for trials that may go into trying layers one by one."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked.

    ``data`` is whatever ``qm.data.open_data`` takes; ``time_s`` bounds what is tried; ``times`` asks for speed too.
    """

    artifact: Path
    baseline: Path
    data: Any = None
    samples: int | None = None
    time_s: float = 120.0
    goal_db: float | None = None
    tries: bool = True
    times: bool = True
    threads: int = 1
    seed: int = 0
    recipe_to: Path | None = None


def explain(question: Question, *, catalog: Catalog | None = None, progress: Progress | None = None) -> Explanation:
    """Why the artifact is slower or worse than the baseline.

    Raises:
        UsageError: the two do not belong together, or the data do not fit.
        Unsupported: one of them does not run.
    """
    return _Inquiry(question, catalog or Catalog(), progress or Silent()).answer()


@dataclass
class _Inquiry:
    question: Question
    catalog: Catalog
    progress: Progress
    notes: Notes = field(default_factory=Notes)
    remedies: list[Remedy] = field(default_factory=list)
    alone: dict[str, float] = field(default_factory=dict)
    exclusion: Exclusion | None = None
    stopped_by: Literal["done", "time", "interrupt"] = "done"
    base: Recipe | None = None
    base_db: float = math.inf

    def answer(self) -> Explanation:
        asked = self.question
        pair = open_pair(asked.baseline, asked.artifact, self.catalog, self.notes)
        evidence = gathered(pair, asked.data, samples=asked.samples, seed=asked.seed, notes=self.notes)
        errors = error.measure(pair, evidence.judging, self.progress, self.notes)
        saturated = error.saturation(errors, pair, self.notes)
        timing, speed = self._times(evidence) if asked.times else (None, None)
        if asked.tries:
            self._try(pair, evidence, errors, saturated)
        rows = self._rows(errors, pair)
        facts = self._facts(pair, evidence, errors, rows, saturated, timing, speed)
        return Explanation(
            artifact=File.of_source(pair.after.path, pair.after.model),
            baseline=File.of_source(pair.before.path, pair.before.model),
            samples=len(evidence.judging),
            synthetic=evidence.synthetic,
            sqnr_db=rounded(errors.sqnr_db, 2),
            agreement=rounded(errors.outputs.agreement),
            speed=speed,
            timing=timing,
            saturation=saturated,
            errors=rows,
            remedies=tuple(sorted(self.remedies, key=lambda r: -(r.gain_db if r.gain_db is not None else 1e9))),
            exclusion=self.exclusion,
            causes=cause.ranked(facts),
            recommended=cause.recommended(facts),
            notes=tuple(self.notes),
            stopped_by=self.stopped_by,
        )

    def _facts(
        self,
        pair: Pair,
        evidence: Evidence,
        errors: error.Errors,
        rows: tuple[LayerError, ...],
        saturated: Saturation | None,
        timing: Timing | None,
        speed: Ratio | None,
    ) -> cause.Facts:
        asked = self.question
        return cause.Facts(
            question=cause.Command(asked.artifact, asked.baseline, asked.data, asked.recipe_to),
            pair=pair,
            sqnr_db=errors.sqnr_db,
            errors=rows,
            saturation=saturated,
            timing=timing,
            speed=speed,
            remedies=self.remedies,
            exclusion=self.exclusion,
            base=self.base,
            synthetic=evidence.synthetic,
        )

    def _times(self, evidence: Evidence) -> tuple[Timing | None, Ratio | None]:
        asked, batch = self.question, evidence.judging[0]
        timing = operation.timing(
            asked.baseline, asked.artifact, batch, catalog=self.catalog, threads=asked.threads, notes=self.notes
        )
        speed = operation.speed(
            asked.baseline,
            asked.artifact,
            batch,
            catalog=self.catalog,
            threads=asked.threads,
            time_s=min(SPEED_S, asked.time_s / 4),
            seed=asked.seed,
            notes=self.notes,
            progress=self.progress,
        )
        return timing, speed

    def _try(self, pair: Pair, evidence: Evidence, errors: error.Errors, saturated: Saturation | None) -> None:
        """Everything that is tried; what an interrupt or the clock cuts short stays as far as it came."""
        if pair.recipe is None or not pair.layers:
            self.notes.say("nothing was tried: what the artifact was made by is not known")
            return
        if not math.isfinite(errors.sqnr_db):
            same = errors.sqnr_db == math.inf
            self.notes.say(f"nothing was tried: {'there is no error' if same else 'the outputs cannot be compared'}")
            return
        journal = _journal(self.question.artifact, self.notes)
        end = monotonic() + self.question.time_s
        trials = Trials(pair, evidence, journal, self.catalog, deadline=end, threads=self.question.threads)
        trials.times = self.question.times
        attempt = _Attempt(self, pair, trials, errors, end)
        try:
            attempt.run(pair.recipe, saturated)
        except Late:
            self.stopped_by = "time"
        except KeyboardInterrupt:
            self.stopped_by = "interrupt"
        for failure in dict.fromkeys(trials.failures):
            self.notes.say(f"a trial could not be carried out: {failure}")
        if self.stopped_by == "done" and journal.path is not None:
            journal.path.unlink(missing_ok=True)
        elif journal.path is not None:
            self.notes.say(f"what was tried is kept in {journal.path}: the same command goes on from there")

    def _rows(self, errors: error.Errors, pair: Pair) -> tuple[LayerError, ...]:
        # Noise adds up: what the layers that were tried do not make, those that were not must.
        total = max(sum(10 ** (-db / 10) for db in self.alone.values()), 10 ** (-self.base_db / 10))
        rows = []
        for row in error.by_layer(errors, pair):
            db = self.alone.get(row.layer)
            share = None if db is None or not total else round(10 ** (-db / 10) / total, 4)
            rows.append(row.model_copy(update={"alone_db": None if db is None else rounded(db, 2), "share": share}))
        return tuple(rows)


@dataclass
class _Attempt:
    """The trials in their order: the recipe again, safe scales, other settings, each layer alone, layers in float."""

    to: _Inquiry
    pair: Pair
    trials: Trials
    errors: error.Errors
    end: float

    def run(self, recipe: Recipe, saturated: Saturation | None) -> None:
        goal = self.to.question.goal_db
        goal = self.errors.sqnr_db + GOAL_DB if goal is None else goal
        self.to.base = recipe
        again = self._remedy("again", "quantized again by the same recipe", recipe)
        safe = remedy.safe_recipe(recipe) if saturated is not None else None
        if safe is not None and self._remedy("safe", f"scales that are safe here (--target {safe.target})", safe):
            self.to.base = safe
        elif again is None:
            return
        reached = self.trials.run(self.to.base)
        self.to.base_db = reached.sqnr_db if reached is not None else math.inf
        met = reached is not None and reached.sqnr_db >= goal
        too = "safe scales and " if self.to.base is safe else ""
        for name, what, changed in self._tracked(
            list(remedy.whole_model(self.trials, self.to.base)), "trying remedies"
        ):
            self._remedy(name, too + what, changed)
        if met and reached is not None:
            self.to.exclusion = Exclusion(
                goal_db=goal, layers=(), sqnr_db=rounded(reached.sqnr_db, 2), minimal=True, trials=self.trials.count
            )
            return
        ranked = self._contributions(self.to.base)
        self._exclude(self.to.base, ranked, goal)
        listed = self.to.exclusion.layers if self.to.exclusion is not None else None
        if listed and listed != ranked[0]:
            self._remedy("excluded", f"{too}{some(listed)} in float", remedy.without(self.to.base, listed))
        for name, what, changed in remedy.for_layers(self.trials, self.to.base, ranked[0]):
            self._remedy(name, too + what, changed)

    def _remedy(self, name: str, what: str, recipe: Recipe) -> Remedy | None:
        found = self.trials.remedy(name, what, recipe, self.errors.sqnr_db)
        if found is not None:
            self.to.remedies.append(found)
        return found

    def _contributions(self, base: Recipe) -> list[tuple[str, ...]]:
        """Layers, those that share weights together, by the error of each quantized alone, the worst first.

        Those for which there is no time follow, by how suspect they are.
        """
        plan = self.trials.plan(base).quantized()
        added = error.suspicion(self.errors, self.pair)
        groups = [g for g in units(self.trials.layers) if any(name in plan for name in g)]
        groups.sort(key=lambda g: max(added.get(name, 0.0) for name in g), reverse=True)
        found: dict[tuple[str, ...], float] = {}
        self.trials.deadline = monotonic() + CONTRIBUTIONS * max(0.0, self.end - monotonic())
        try:
            for group in self._tracked(groups, "each layer alone"):
                others = tuple(name for name in plan if name not in group)
                trial = self.trials.run(remedy.without(base, others), rough=True)
                if trial is not None:
                    found[group] = trial.sqnr_db
                    self.to.alone.update(dict.fromkeys(group, trial.sqnr_db))
        except Late:
            self.to.stopped_by = "time"
        self.trials.deadline = self.end
        if len(found) < len(groups):
            self.to.notes.say(f"{len(groups) - len(found)} of {len(groups)} layers were not tried alone")
        known = sorted(found, key=lambda g: found[g])
        return known + [g for g in groups if g not in found]

    def _exclude(self, base: Recipe, ranked: Sequence[tuple[str, ...]], goal: float) -> None:
        """Look for the smallest list; the best so far is kept at each step."""
        start = self.trials.count
        self.to.exclusion = Exclusion(goal_db=goal, layers=None)
        for best, sqnr in self._tracked(self._narrowing(base, ranked, goal), "layers to leave in float"):
            if best is not None:
                names = tuple(name for group in best for name in group)
                self.to.exclusion = Exclusion(
                    goal_db=goal, layers=names, sqnr_db=rounded(sqnr, 2), trials=self.trials.count - start
                )
        if self.to.exclusion.layers is not None:
            self.to.exclusion = self.to.exclusion.model_copy(update={"minimal": True})

    def _narrowing(
        self, base: Recipe, ranked: Sequence[tuple[str, ...]], goal: float
    ) -> Iterator[tuple[tuple[tuple[str, ...], ...] | None, float]]:
        """Drive the search; after each trial, the list that meets the goal, None where it does not."""
        search = narrowed(ranked)
        with suppress(StopIteration):
            candidate = next(search)
            while True:
                trial = self.trials.run(remedy.without(base, tuple(n for group in candidate for n in group)))
                meets = trial is not None and trial.sqnr_db >= goal
                yield (candidate if meets else None), (trial.sqnr_db if trial is not None else float("nan"))
                candidate = search.send(meets)

    def _tracked(self, items: Any, label: str) -> Iterator[Any]:
        total = len(items) if isinstance(items, list) else None
        return self.to.progress.track(items, label, total)


def _journal(artifact: Path, notes: Notes) -> Journal:
    """What was tried is remembered beside the artifact, where that can be written."""
    place = artifact.with_name(artifact.name + ".explain.jsonl")
    try:
        return Journal(place, {"artifact": sha256(artifact), "version": environment(set())["quantized-model"]})
    except UsageError as e:
        notes.say(f"trials are not remembered: {e.message}")
    except OSError as e:
        notes.say(f"trials are not remembered: {str(place)!r} cannot be written ({e.strerror})")
    return Journal(None, {})
