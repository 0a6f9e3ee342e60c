"""All goals on all reports, and the one error that the whole ends in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from qm.check.goal import Answer, Goal, Judged, judge
from qm.check.subject import Subject
from qm.errors import AuditFailed, GoalMissed, QmError, UsageError
from qm.report import File, Finding, Level
from qm.strict import Strict


class Problem(Strict):
    """Why a report could not be held against anything."""

    seen: str
    next: str = ""


class Checked(Strict):
    """What came of one report. ``accepted`` is None where no audit was made."""

    report: str
    artifact: File | None = None
    accepted: bool | None = None
    goals: tuple[Judged, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    problem: Problem | None = None

    @property
    def name(self) -> str:
        """The artifact's path, or the report's where that is all there is."""
        return self.artifact.path if self.artifact is not None else self.report

    def failures(self, *, allow_unsure: bool) -> Iterator[QmError]:
        """What is wrong, each as the error that it is."""
        if self.problem is not None:
            yield UsageError(self.problem.seen, hint=self.problem.next)
        if self.accepted is False:
            broken = next((f for f in self.findings if f.level is Level.BROKEN), None)
            why = f": {broken.seen}" + (f" ({broken.layer})" if broken.layer else "") if broken else ""
            yield AuditFailed(
                f"{self.name!r} was not accepted by its audit{why}",
                hint=(broken.next if broken else "") or "Quantize again, with another method or scheme.",
            )
        for goal in self.goals:
            if goal.answer is Answer.NO_FIGURE:
                yield UsageError(goal.seen, hint=goal.next)
            elif goal.answer is Answer.MISSED:
                yield GoalMissed(f"{self.name!r} misses {goal.goal!r}: {goal.seen}", hint=goal.next)
            elif goal.answer is Answer.CANNOT_TELL and not allow_unsure:
                yield GoalMissed(f"{self.name!r} is not known to meet {goal.goal!r}: {goal.seen}", hint=goal.next)


def check(report: str | Path, goals: Sequence[Goal]) -> Checked:
    """Hold a report against every goal. Nothing is raised: what stands in the way is part of the outcome."""
    try:
        subject = Subject.read(Path(report))
        notes = subject.check_hash()
    except UsageError as e:
        return Checked(report=str(report), problem=Problem(seen=e.message, next=e.hint))
    if subject.accepted is None:
        notes.append("it was measured, not audited")
    return Checked(
        report=str(report),
        artifact=subject.artifact,
        accepted=subject.accepted,
        goals=tuple(judge(goal, subject) for goal in goals),
        findings=subject.findings,
        notes=tuple(notes),
    )


def failure(outcomes: Sequence[Checked], *, allow_unsure: bool = False) -> QmError | None:
    """The gravest of all failures, by exit code, the first of its kind; None where all is met."""
    found = [error for outcome in outcomes for error in outcome.failures(allow_unsure=allow_unsure)]
    if not found:
        return None
    gravest = max(found, key=lambda error: error.exit_code)
    others = len(found) - 1
    if others:
        gravest.message += f" (and {others} more {'failure' if others == 1 else 'failures'})"
    return gravest
