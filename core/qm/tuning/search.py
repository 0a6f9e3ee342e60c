"""The search: what to try next, and what is kept of it. Nothing that is finished is ever tried again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from qm.errors import QmError
from qm.journal import Journal
from qm.tuning.executor import Executor
from qm.tuning.job import Done, Measured, TrialJob
from qm.tuning.rack import Rack
from qm.tuning.share import Shares
from qm.tuning.space import Candidate, Cost
from qm.tuning.standing import Result, Standing

FAILED = "failed"


@dataclass
class Search:
    """One search. ``deadline`` is on the monotonic clock; ``tried`` counts the trials of this run."""

    standing: Standing
    shares: Shares
    journal: Journal
    rack: Rack
    executor: Executor
    deadline: float | None = None
    watch: Callable[[Search], None] | None = None
    tried: int = 0
    known: int = 0
    pending: dict[str, tuple[Candidate, int]] = field(default_factory=dict)

    def recall(self) -> None:
        """Take in what the journal remembers; a file that should be there and is not is made again."""
        for candidate in self.standing.candidates:
            for rung in range(self.shares.rungs):
                entry = self.journal.get(self.job(candidate, rung).key)
                if entry is None:
                    continue
                self.known += 1
                if FAILED in entry:
                    self.standing.failures[candidate.name] = entry[FAILED]
                else:
                    self.standing.add(candidate, rung, Measured.read(entry))
        for result in self.standing.front():
            if result.rung == self.shares.rungs - 1 and not self.rack.has(result.candidate.name):
                del self.standing.results[result.candidate.name][result.rung]
        self._tidy()

    def run(self) -> bool:
        """Try until nothing is left or time is up; whether nothing is left."""
        while True:
            self._fill()
            if not self.pending:
                return self._next() is None
            done = self.executor.wait(self._left_s())
            if done is None:
                return False
            self._take(done)
            self._tell()

    def judged(self, candidate: Candidate) -> Measured | QmError:
        """What the candidate is on the samples that judge, made with all that calibrate."""
        job = self.judge_job(candidate)
        entry = self.journal.get(job.key)
        if entry is None:
            self.pending[job.key] = (candidate, self.shares.rungs)
            self._tell()
            self.executor.submit(job)
            done = self.executor.wait(None)
            del self.pending[job.key]
            assert done is not None
            self.tried += 1
            if done.folder is not None:
                shutil.rmtree(done.folder, ignore_errors=True)
            entry = _entry(done)
            self.journal.add(job.key, entry)
        else:
            self.known += 1
        return QmError(entry[FAILED]) if FAILED in entry else Measured.read(entry)

    def job(self, candidate: Candidate, rung: int) -> TrialJob:
        """The trial of a candidate on a rung."""
        trains = candidate.cost is Cost.TRAINING
        return _job(candidate, self.shares.calibrating(rung, trains=trains), self.shares.tried(rung), "tried")

    def judge_job(self, candidate: Candidate) -> TrialJob:
        """The trial that the verdict rests on."""
        trains = candidate.cost is Cost.TRAINING
        calibration = self.shares.calibrating(self.shares.rungs - 1, trains=trains)
        return _job(candidate, calibration, self.shares.judging, "judged")

    def points(self) -> list[Result]:
        """The front as far as its files are there."""
        return [result for result in self.standing.front() if self.rack.has(result.candidate.name)]

    def _fill(self) -> None:
        """Hand out trials while a worker is free and time is left."""
        while len(self.pending) < self.executor.slots and self._left_s() != 0.0:
            chosen = self._next()
            if chosen is None:
                return
            candidate, rung = chosen
            job = self.job(candidate, rung)
            self.pending[job.key] = chosen
            self.executor.submit(job)
            self._tell()

    def _next(self) -> tuple[Candidate, int] | None:
        """Promote whoever may go up, else begin something new; a kind of method begins when the cheaper one is done."""
        for trains in (False, True):
            mine = [c for c in self.standing.candidates if (c.cost is Cost.TRAINING) is trains]
            chosen = next(self._promotions(mine), None) or self._fresh(mine) or self._unfinished(mine)
            if chosen is not None:
                return chosen
            if any(candidate in mine for candidate, _ in self.pending.values()):
                return None
        return None

    def _promotions(self, mine: list[Candidate]) -> Iterator[tuple[Candidate, int]]:
        for rung in reversed(range(self.shares.rungs - 1)):
            for candidate in self.standing.promotable(rung):
                if candidate in mine and self._is_open(candidate, rung + 1):
                    yield candidate, rung + 1

    def _fresh(self, mine: list[Candidate]) -> tuple[Candidate, int] | None:
        """What was not begun yet: first the methods as they are, then the options of those that do best."""
        begun = {candidate.name for candidate, _ in self.pending.values()} | set(self.standing.results)
        left = [c for c in mine if c.name not in begun and c.name not in self.standing.failures]
        plain = [c for c in left if not c.options]
        if plain:
            return plain[0], 0
        varied = [c for c in left if c.base not in self.standing.failures]
        return (min(varied, key=self.standing.rank_of_base), 0) if varied else None

    def _unfinished(self, mine: list[Candidate]) -> tuple[Candidate, int] | None:
        """A point of the front that was not measured on the highest rung."""
        top = self.shares.rungs - 1
        for result in self.standing.front():
            if result.candidate in mine and result.rung < top and self._is_open(result.candidate, result.rung + 1):
                return result.candidate, result.rung + 1
        return None

    def _is_open(self, candidate: Candidate, rung: int) -> bool:
        return not self.standing.is_known(candidate, rung) and (candidate, rung) not in self.pending.values()

    def _take(self, done: Done) -> None:
        """The file first, then the journal, then what it replaces: a kill at any moment loses nothing finished."""
        candidate, rung = self.pending.pop(done.job.key)
        self.tried += 1
        if done.measured is None:
            assert done.error is not None
            self.standing.failures[candidate.name] = done.error.message
        else:
            self.standing.goal.check(done.measured)
            self.standing.add(candidate, rung, done.measured)
            if done.folder is not None:
                if candidate.name in {r.candidate.name for r in self.standing.front()}:
                    self.rack.put(candidate.name, done.folder, candidate.recipe)
                shutil.rmtree(done.folder, ignore_errors=True)
        self.journal.add(done.job.key, _entry(done))
        self._tidy()

    def _tidy(self) -> None:
        names = {c.name for c in self.standing.candidates}
        self.rack.keep({r.candidate.name for r in self.standing.front()}, names)

    def _tell(self) -> None:
        if self.watch is not None:
            self.watch(self)

    def _left_s(self) -> float | None:
        """Seconds left; None for any number, as until there is something to hand over."""
        if self.deadline is None or not self.standing.results:
            return None
        return max(0.0, self.deadline - monotonic())


def _job(candidate: Candidate, calibration: tuple[int, ...], judging: tuple[int, ...], verb: str) -> TrialJob:
    return TrialJob(
        key=f"{candidate.name} made with {len(calibration)} samples, {verb} on {len(judging)}",
        name=candidate.name,
        recipe=candidate.recipe,
        calibration=calibration,
        judging=judging,
    )


def _entry(done: Done) -> dict[str, Any]:
    """What the journal keeps."""
    if done.measured is not None:
        return done.measured.entry()
    assert done.error is not None
    return {FAILED: done.error.message}
