"""What is asked of an artifact, and what its report allows to say about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from qm import verdict
from qm.check.subject import Subject
from qm.errors import UsageError
from qm.interval import Interval, Z
from qm.measurement import circumstances
from qm.report import Quality
from qm.strict import Strict

ALIKE = 0.999999
"""Outputs are identical where there is no SQNR and the cosine, as reports round it, is this at least."""


class Answer(StrEnum):
    """What can be said of a goal."""

    MET = "met"
    MISSED = "missed"
    CANNOT_TELL = "cannot tell"
    NO_FIGURE = "no figure"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound on one figure; ``text`` is the bound as the user wrote it."""

    name: str
    bound: float
    text: str

    def __str__(self) -> str:
        return f"--{self.name} {self.text}"


class Judged(Strict):
    """A goal with the figure it was held against, in the bound's unit, and the next thing to do about it.

    ``low`` and ``high`` end the 95 % interval of a figure that has one.
    """

    goal: str
    answer: Answer
    seen: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    next: str = ""


def judge(goal: Goal, subject: Subject) -> Judged:
    """Hold one goal against a report."""
    try:
        found = JUDGES[goal.name](goal, subject)
    except UsageError as e:
        return Judged(goal=str(goal), answer=Answer.NO_FIGURE, seen=e.message, next=e.hint)
    return found.model_copy(update={"next": ""}) if found.answer is Answer.MET else found


def _drop(goal: Goal, subject: Subject) -> Judged:
    """The loss of top-1 accuracy, by its paired interval."""
    found = _quality(goal, subject, "accuracy").accuracy
    if found is None:
        raise _lacking(goal, subject, "accuracy", "Give labelled samples")
    said = verdict.verdict(Interval(found.difference, found.low, found.high), goal.bound)
    cannot = said is verdict.Answer.CANNOT_TELL
    flips = (found.lost + found.gained) / found.samples
    needed = verdict.needed_samples(found.difference, flips, goal.bound) if cannot else None
    told = found.model_copy(update={"margin": goal.bound, "answer": said, "needed": needed})
    return Judged(
        goal=str(goal),
        answer={
            verdict.Answer.NOT_WORSE: Answer.MET,
            verdict.Answer.WORSE: Answer.MISSED,
            verdict.Answer.CANNOT_TELL: Answer.CANNOT_TELL,
        }[said],
        seen=told.sentence(),
        value=-found.difference,
        low=-found.high,
        high=-found.low,
        next=_more_samples(subject, needed) if cannot else _explain(subject),
    )


def _agreement(goal: Goal, subject: Subject) -> Judged:
    """How often the top-1 answers are the same, by Wilson's interval."""
    found = _quality(goal, subject, "agreement").agreement
    if found is None:
        raise UsageError(
            f"{str(goal)!r} asks for agreement, and the outputs of {subject.artifact.path!r} are no scores of classes",
            hint="Take --min-sqnr.",
        )
    cannot = found.low < goal.bound <= found.high
    needed = samples_for_share(found.share, goal.bound) if cannot else None
    return Judged(
        goal=str(goal),
        answer=Answer.CANNOT_TELL if cannot else Answer.MET if found.low >= goal.bound else Answer.MISSED,
        seen=found.sentence(),
        value=found.share,
        low=found.low,
        high=found.high,
        next=_more_samples(subject, needed) if cannot else _explain(subject),
    )


def _sqnr(goal: Goal, subject: Subject) -> Judged:
    """The SQNR of the worst output. It comes without an interval."""
    quality = subject.quality
    if quality is None:
        raise _lacking(goal, subject, "SQNR", "Give samples")
    value = quality.sqnr_db
    where = f"{quality.n} made-up inputs" if quality.synthetic else f"{quality.n} samples"
    if value is None and (quality.cosine is None or quality.cosine < ALIKE):
        raise UsageError(
            f"{str(goal)!r} asks for an SQNR, and the outputs of {subject.artifact.path!r} cannot be compared",
            hint=_explain(subject),
        )
    return Judged(
        goal=str(goal),
        answer=Answer.MET if value is None or value >= goal.bound else Answer.MISSED,
        seen=f"identical outputs on {where}" if value is None else f"{value:.1f} dB SQNR on {where}",
        value=value,
        next=_explain(subject),
    )


def _size(goal: Goal, subject: Subject) -> Judged:
    nbytes = subject.artifact.nbytes
    return Judged(
        goal=str(goal),
        answer=Answer.MET if nbytes <= goal.bound else Answer.MISSED,
        seen=f"{nbytes:,} bytes",
        value=nbytes,
        next=_narrower(subject),
    )


def _ratio(goal: Goal, subject: Subject) -> Judged:
    if subject.original is None:
        raise _lacking(goal, subject, "size of the original", "Give a --baseline")
    before, after = subject.original.nbytes, subject.artifact.nbytes
    return Judged(
        goal=str(goal),
        answer=Answer.MET if after <= goal.bound * before else Answer.MISSED,
        seen=f"{after / before:.3f} of the original's {before:,} bytes",
        value=after / before,
        next=_narrower(subject),
    )


def _speedup(goal: Goal, subject: Subject) -> Judged:
    """Speed over the original's: the interval must clear the bound, and the ratio must by more than the noise floor."""
    speed = subject.speed
    if speed is None:
        raise UsageError(
            f"{str(goal)!r} asks for a speed, and {str(subject.report)!r} has none",
            hint=f"Quantize with --benchmark, or measure it: {_measure(subject)}",
        )
    against = {name: getattr(speed, name) / goal.bound for name in ("ratio", "low", "high")}
    held = speed.model_copy(update=against)
    longer = f"Measure longer: {_measure(subject, *held.remedy().split())}"
    return Judged(
        goal=str(goal),
        answer={"faster": Answer.MET, "slower": Answer.MISSED, "cannot tell": Answer.CANNOT_TELL}[held.answer],
        seen=f"{speed.ratio:.2f} times the original's speed (95 % interval {speed.low:.2f} to {speed.high:.2f}, "
        f"noise floor ±{100 * speed.noise_floor:.1f} %, {circumstances(speed.after)})",
        value=speed.ratio,
        low=speed.low,
        high=speed.high,
        next=longer if held.answer == "cannot tell" else _explain(subject),
    )


JUDGES: dict[str, Callable[[Goal, Subject], Judged]] = {
    "max-drop": _drop,
    "max-size": _size,
    "max-ratio": _ratio,
    "min-speedup": _speedup,
    "min-sqnr": _sqnr,
    "min-agreement": _agreement,
}


def samples_for_share(share: float, bound: float) -> int | None:
    """Samples that would tell a share from a bound in 4 of 5 cases; None for very many.

    Source: Fleiss, "Statistical Methods for Rates and Proportions", 1981, section 1.4, for the score test of one
    proportion, which Wilson's interval inverts.
    """
    distance = abs(share - bound)
    spread = Z * math.sqrt(bound * (1 - bound)) + verdict.POWER_Z * math.sqrt(share * (1 - share))
    if distance == 0 or spread**2 > verdict.MANY * distance**2:
        return None
    return math.ceil((spread / distance) ** 2)


def _quality(goal: Goal, subject: Subject, figure: str) -> Quality:
    """The figures on real samples."""
    if subject.quality is None or subject.quality.synthetic:
        raise _lacking(goal, subject, figure, "Give labelled samples" if figure == "accuracy" else "Give samples")
    return subject.quality


def _lacking(goal: Goal, subject: Subject, figure: str, wanted: str) -> UsageError:
    made_up = " but on made-up inputs" if subject.quality is not None and subject.quality.synthetic else ""
    return UsageError(
        f"{str(goal)!r} asks for {figure}, and {str(subject.report)!r} has none{made_up}",
        hint=f"{wanted}: quantize with --data D, or run {_measure(subject, data='D')}",
    )


def _more_samples(subject: Subject, needed: int | None) -> str:
    many = "far more" if needed is None else f"about {needed:,}"
    return f"Judge on {many} samples: {_measure(subject, data='D')}"


def _measure(subject: Subject, *more: str, data: str | None = None) -> str:
    return f"{subject.command('benchmark', *more, '--json', data=data)} > bench.json, then qm check bench.json."


def _explain(subject: Subject) -> str:
    return f"Find out why: {subject.command('explain')}"


def _narrower(subject: Subject) -> str:
    return f"See what is still stored wide: qm inspect {subject.artifact.path}"
