"""From a model and a goal to the smallest model that keeps it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

from qm import request as requests
from qm import target as targets
from qm.catalog import Catalog, Found
from qm.data import Samples, open_data
from qm.errors import AuditFailed, QmError, UsageError
from qm.file import sha256
from qm.journal import Journal
from qm.plugin import Loader, Model, Progress, Silent
from qm.report import File, Report, environment, now, report_path
from qm.runner import Run
from qm.step import check_float, load_model
from qm.tuning.cluster import Cluster
from qm.tuning.executor import Executor, Inline
from qm.tuning.goal import Goal, Verdict
from qm.tuning.job import Subject
from qm.tuning.outcome import Best, Point, Sight, Tuning
from qm.tuning.pool import Pool, cores
from qm.tuning.rack import Rack
from qm.tuning.remedy import remedies
from qm.tuning.search import Search
from qm.tuning.share import Shares, divide
from qm.tuning.space import Candidate, Cost, Request, Space, space
from qm.tuning.standing import Result, Standing
from qm.verdict import Answer

MOST_WORKERS = 8
EXECUTORS = ("inline", "processes", "ray")
Watch = Callable[[Sight], None]
"""Is told how far the search is, whenever a trial begins or ends."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked of a search. ``time_s`` bounds the search; the verdict and the chosen model come on top."""

    model: Path
    data: Any
    goal: Goal = field(default_factory=Goal)
    to: Path | None = None
    time_s: float | None = None
    target: str = "host"
    suffix: str | None = None
    samples: int | None = None
    seed: int = 0
    load: Mapping[str, Any] = field(default_factory=dict)
    executor: str = "processes"
    workers: int | None = None
    resume: bool = False
    page: bool = False


class Tuner:
    """One order on its way."""

    def __init__(
        self,
        order: Order,
        catalog: Catalog | None = None,
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.order = order
        self.catalog = catalog or Catalog()
        self.progress = progress or Silent()
        self.watch = watch
        self.rack = Rack(order.to or Rack.usual(order.model), resume=order.resume)
        self.notes: list[str] = []

    def run(self) -> Tuning:
        """The whole search.

        Raises:
            UsageError: the model, the data or the folder are not what they should be, or nothing can be tried.
            QmError: everything that was tried failed.
        """
        start = monotonic()
        with self.rack.held():
            journal = Journal(self.rack.journal, self._journal_subject())
            standing = Standing(self.space.candidates, self.shares.rungs, self.order.goal, self.float_nbytes)
            executor = self._executor()
            try:
                deadline = None if self.order.time_s is None else monotonic() + self.order.time_s
                search = Search(standing, self.shares, journal, self.rack, executor, deadline, self._tell)
                search.recall()
                finished = search.run()
                if search.pending:
                    executor.close()
                    search.pending.clear()
                    search.executor = executor = self._executor()
                verdicts, accepted = self._decide(search)
                best = self._hand_over(search, verdicts, accepted)
            except KeyboardInterrupt as e:
                e.add_note(f"the front so far is in {str(self.rack.folder)!r}; the same command goes on from there")
                raise
            finally:
                executor.close()
            return self._tuning(search, verdicts, best, finished=finished, seconds=monotonic() - start)

    @cached_property
    def model(self) -> Model:
        """The float model, as its own loader gives it."""
        found = self.loader
        model = load_model(self.catalog.manager, found, self.order.model, self.order.load)
        check_float(found, model, self.order.model)
        return model

    @cached_property
    def loader(self) -> Found[Loader]:
        """The model's loader."""
        found = self.catalog.loader(self.order.model)
        found.check_ready()
        return found

    @cached_property
    def source(self) -> File:
        """The model's file."""
        return File.of_source(self.order.model, self.model)

    @cached_property
    def float_nbytes(self) -> int:
        """Bytes that an artifact must stay below."""
        return min(self.source.nbytes, self.model.nbytes())

    @cached_property
    def samples(self) -> Samples:
        """All samples."""
        if self.order.data is None:
            raise UsageError("without samples there is nothing to judge by", hint="Give some with --data.")
        return open_data(self.order.data, self.model.inputs())

    @cached_property
    def space(self) -> Space:
        """What could be tried."""
        _ = self.model
        request = Request(
            model=self.order.model,
            load=self.order.load,
            target=self.order.target,
            seed=self.order.seed,
            samples=self.order.samples,
            suffix=self.order.suffix,
            labelled=self.samples.labels is not None,
        )
        return space(request, self.catalog)

    @cached_property
    def shares(self) -> Shares:
        """Which samples are for what."""
        return divide(self.samples, seed=self.order.seed, wanted=self.order.samples, trains=self.space.trains)

    def _journal_subject(self) -> dict[str, Any]:
        methods = [self.catalog.method(c.method) for c in self.space.candidates if not c.options]
        named = {d.strip() for f in (self.loader, *methods) for text in f.card.requires for d in text.split("|")}
        known = environment(named)
        del known["system"]
        return {
            "model": self.source.sha256,
            "data": self.samples.fingerprint,
            "seed": self.order.seed,
            "number of samples": self.order.samples,
            "target": targets.find(self.order.target).model_dump(mode="json"),
            "version": known.pop("quantized-model"),
            "set of packages": known,
            "division of samples": "a method trains" if self.space.trains else "none trains",
        }

    def _executor(self) -> Executor:
        kept = isinstance(self.order.data, str | Path)
        data = self.order.data if kept else self.samples
        subject = Subject(model=self.order.model, data=data, load=self.order.load)
        if self.order.executor == "inline":
            return Inline(subject, self.rack.scratch, self.catalog)
        if self.order.executor == "processes":
            usual = min(MOST_WORKERS, cores(), len(self.space.candidates))
            return Pool(subject, self.rack.scratch, workers=self.order.workers or usual)
        if self.order.executor == "ray":
            return Cluster(subject, self.rack.scratch, workers=self.order.workers)
        raise UsageError(
            f"there is no executor {self.order.executor!r}", hint=f"The executors are: {', '.join(EXECUTORS)}."
        )

    def _decide(self, search: Search) -> tuple[dict[str, Verdict], list[Result]]:
        """Verdicts from the most promising on, each smaller than the last, up to the first that is not clearly good.

        The order is fixed by other samples than those that judge, so that the chance of one wrong verdict among all is
        that of a single one.
        Source: Maurer, Hothorn and Lehmacher, "Multiple comparisons in drug clinical trials and preclinical assays:
        a-priori ordered hypotheses", 1995.
        """
        verdicts: dict[str, Verdict] = {}
        accepted: list[Result] = []
        for result in search.standing.chain():
            measured = search.judged(result.candidate)
            if isinstance(measured, QmError):
                search.standing.failures[result.candidate.name] = measured.message
                continue
            found = self.order.goal.judge(measured)
            verdicts[result.candidate.name] = found
            if found.answer is not Answer.NOT_WORSE:
                break
            accepted.append(result)
        return verdicts, accepted

    def _hand_over(self, search: Search, verdicts: dict[str, Verdict], accepted: list[Result]) -> Best | None:
        """The smallest that keeps the goal, as the ordinary runner makes it; else the nearest."""
        nearest = [r for r in search.standing.chain() if r.candidate.name in verdicts][:1]
        for result in [*reversed(accepted), *([] if accepted else nearest)]:
            try:
                report = self._made(result.candidate)
            except AuditFailed as e:
                self.notes.append(f"{result.candidate.words} was passed over: {e.message}")
                continue
            path = self._best_path(result.candidate)
            return Best(
                file=str(path),
                recipe=str(self.rack.recipe_path(path.name)),
                report=str(report_path(path)),
                name=result.candidate.words,
                nbytes=report.artifact.nbytes,
                ratio=round(report.artifact.nbytes / self.float_nbytes, 4),
                verdict=verdicts[result.candidate.name],
            )
        if not verdicts and search.standing.failures:
            name, reason = next(iter(search.standing.failures.items()))
            raise QmError(f"nothing that was tried came out: {name}: {reason}", hint="Try it with qm quantize.")
        return None

    def _best_path(self, candidate: Candidate) -> Path:
        """Where the chosen model lies, wherever the folder was when it was made."""
        return self.rack.path(f"best{Path(candidate.name).suffix}")

    def _made(self, candidate: Candidate) -> Report:
        """The artifact by the ordinary runner, with audit and report; one that is there already is not made again."""
        place = self._best_path(candidate)
        recipe = self.rack.recipe_path(place.name)
        words = ["qm", "quantize", str(self.order.model), "--recipe", str(recipe)]
        words += ["--data", str(self.order.data)] if isinstance(self.order.data, str | Path) else []
        known = _report_of(place)
        if known is not None and known.recipe == candidate.recipe:
            return known
        self.rack.clear("best")
        candidate.recipe.write(recipe, force=True)
        request = requests.Request(
            model=self.order.model,
            recipe=candidate.recipe,
            data=self.order.data if isinstance(self.order.data, str | Path) else self.samples,
            to=place,
            force=True,
            command=shlex.join(words),
            load=self.order.load,
            page=self.order.page,
        )
        trains = candidate.cost is Cost.TRAINING
        run = Run(
            request, self.catalog, self.progress, divide=lambda samples: self.shares.split(samples, trains=trains)
        )
        return run.quantize()

    def _tuning(
        self, search: Search, verdicts: dict[str, Verdict], best: Best | None, *, finished: bool, seconds: float
    ) -> Tuning:
        standing = search.standing
        begun = set(standing.results) | set(standing.failures)
        untried = sum(c.name not in begun for c in standing.candidates)
        labelled = self.samples.labels is not None
        reached = best is not None and best.verdict.answer is Answer.NOT_WORSE
        helps: tuple[str, ...] = ()
        if best is not None and not reached:
            by_answers = self.order.goal.min_sqnr_db is None
            found = best.verdict
            helps = tuple(
                remedies(self.space, self.catalog, found, untried=untried, labelled=labelled, by_answers=by_answers)
            )
        return Tuning(
            created=now(),
            model=self.source,
            data=self.samples.source,
            target=self.order.target,
            goal=str(self.order.goal),
            reached=reached,
            finished=finished,
            best=best,
            front=tuple(self.point(result, search, verdicts) for result in search.points()),
            labelled=labelled,
            judged_on=len(self.shares.judging),
            trials=search.tried,
            remembered=search.known,
            untried=untried,
            seconds=round(seconds, 1),
            executor=search.executor.words,
            lost_workers=search.executor.lost,
            folder=str(self.rack.folder),
            failed=dict(standing.failures),
            left_out=dict(self.space.left_out),
            helps=helps,
            notes=tuple(self.notes),
        )

    def _tell(self, search: Search) -> None:
        if self.watch is None:
            return
        names = ", ".join(candidate.words for candidate, _ in search.pending.values())
        left = "" if search.deadline is None else f", {max(0.0, search.deadline - monotonic()):.0f} s left"
        failed = len(search.standing.failures)
        words = f"{search.tried + search.known} trials, {failed} failed{left}; trying {names}"
        self.watch(Sight(tuple(self.point(result, search, {}) for result in search.points()), words))

    def point(self, result: Result, search: Search, verdicts: Mapping[str, Verdict]) -> Point:
        """The result as the user sees it."""
        name = result.candidate.name
        job = search.job(result.candidate, result.rung)
        return Point.of(
            result,
            file=str(self.rack.path(name)),
            recipe=str(self.rack.recipe_path(name)),
            float_nbytes=self.float_nbytes,
            calibrated_on=0 if result.candidate.cost is Cost.NOTHING else len(job.calibration),
            verdict=verdicts.get(name),
        )


def _report_of(artifact: Path) -> Report | None:
    """The report of an artifact that is there and whole, None where it is not."""
    if not artifact.exists() or not report_path(artifact).exists():
        return None
    try:
        report = Report.read(report_path(artifact))
    except UsageError:
        return None
    return report if sha256(artifact) == report.artifact.sha256 else None
