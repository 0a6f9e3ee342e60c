"""What a page says of one report, in figures and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qm.report import Level, Quality, Report
from qm.verdict import Answer


@dataclass(frozen=True)
class Point:
    """A value between its bounds, where it has such, and how it is written."""

    value: float
    low: float
    high: float
    text: str

    def stands(self, other: Point) -> int | None:
        """1 where it is more than another beyond both intervals, 0 where both are exact and even; None: cannot tell."""
        if self.low > other.high:
            return 1
        exact = self.low == self.high and other.low == other.high
        return 0 if exact and self.value == other.value else None

    @classmethod
    def exact(cls, value: float, text: str) -> Point:
        """A value without doubt."""
        return cls(value, value, value, text)


@dataclass(frozen=True)
class Entry:
    """One report and the name it goes by on the page."""

    name: str
    report: Report

    def size(self) -> Point:
        """The share of the original's bytes."""
        size = self.report.size
        return Point.exact(100 * size.ratio, f"{nbytes(size.after)}, {100 * size.ratio:.0f} %")

    def speed(self) -> Point | None:
        """How many times as fast as the original."""
        speed = self.report.speed
        if speed is None:
            return None
        return Point(speed.ratio, speed.low, speed.high, f"{speed.ratio:.2f}x ({speed.low:.2f} to {speed.high:.2f})")

    def worth(self, measure: str) -> Point | None:
        """How right it is: the value of the measure, None where it is not known."""
        quality = self.report.quality
        if quality is None:
            return None
        if measure == ACCURACY and (a := quality.accuracy) is not None:
            low, value, high = (100 * x for x in (a.low, a.difference, a.high))
            return Point(value, low, high, f"{signed(value)} ({signed(low)} to {signed(high)})")
        if measure == AGREEMENT and (g := quality.agreement) is not None:
            low, value, high = (100 * x for x in (g.low, g.share, g.high))
            return Point(value, low, high, f"{value:.1f} % ({low:.1f} to {high:.1f})")
        if measure == SQNR and quality.sqnr_db is not None:
            return Point.exact(quality.sqnr_db, f"{decibels(quality.sqnr_db)} dB")
        return None


ACCURACY, AGREEMENT, SQNR = "accuracy", "agreement", "sqnr"
ORIGINAL = {ACCURACY: 0.0, AGREEMENT: 100.0}
"""What the original has of each measure."""
AXIS = {ACCURACY: "top-1, change in points", AGREEMENT: "top-1 as the original, %", SQNR: "SQNR to the original, dB"}
TITLE = {ACCURACY: "Accuracy", AGREEMENT: "Agreement", SQNR: "Agreement"}


def entries(reports: Sequence[Report]) -> list[Entry]:
    """The reports by the names of their artifacts, which are counted where two are the same."""
    names = [Path(r.artifact.path).name for r in reports]
    twice = {n for n in names if names.count(n) > 1}
    return [
        Entry(f"{name} ({i + 1})" if name in twice else name, report)
        for i, (name, report) in enumerate(zip(names, reports, strict=True))
    ]


def measure_of(chosen: Sequence[Entry]) -> str | None:
    """The most telling measure of rightness that all of them have."""
    return next((m for m in AXIS if chosen and all(e.worth(m) is not None for e in chosen)), None)


def headline(entry: Entry) -> str:
    """The verdict in one sentence."""
    report = entry.report
    if not report.accepted:
        broken = next((f for f in report.findings if f.level is Level.BROKEN), None)
        return f"{entry.name} was rejected" + (f": {broken.seen}." if broken else ".")
    parts = [_size_words(report), _speed_words(report), _quality_words(report.quality)]
    told = [part for part in parts if part]
    return f"{entry.name} {', '.join(told[:-1])}{' and ' if told[:-1] else ''}{told[-1]}."


def _size_words(report: Report) -> str:
    ratio = report.size.ratio
    if ratio < 1:
        return f"is {1 / ratio:.1f} times smaller"
    return "is as large as the original" if ratio == 1 else f"is {ratio:.2f} times as large"


def _speed_words(report: Report) -> str:
    speed = report.speed
    if speed is None:
        return ""
    if speed.answer == "cannot tell":
        return "runs at a speed that cannot be told from the original's yet"
    times = speed.ratio if speed.answer == "faster" else 1 / speed.ratio
    return f"runs {times:.2f} times {'as fast' if speed.answer == 'faster' else 'slower'}"


def _quality_words(quality: Quality | None) -> str:
    if quality is None or quality.synthetic:
        return "was not judged on real samples"
    accuracy, agreement = quality.accuracy, quality.agreement
    if accuracy is not None:
        d, low, high = (signed(100 * x) for x in (accuracy.difference, accuracy.low, accuracy.high))
        facts = f"({d} points, 95 % interval {low} to {high}, {accuracy.samples} samples)"
        if accuracy.answer is None or accuracy.margin is None:
            return f"changes top-1 accuracy by {d} points (95 % interval {low} to {high}, {accuracy.samples} samples)"
        allowed = f"{100 * accuracy.margin:g} points"
        if accuracy.answer is Answer.CANNOT_TELL:
            return f"may or may not lose more than {allowed} of accuracy {facts}"
        loses = "loses" if accuracy.answer is Answer.WORSE else "does not lose"
        return f"{loses} more than {allowed} of accuracy {facts}"
    if agreement is not None:
        return f"gives the original's answer for {100 * agreement.share:.1f} % of {agreement.samples} samples"
    if quality.sqnr_db is not None:
        return f"keeps its outputs at {decibels(quality.sqnr_db)} dB SQNR to the original's"
    return "has outputs that could not be compared with the original's in dB"


def nbytes(count: int) -> str:
    """Bytes for people, in units of 1,000."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.3g} {unit}"
    return f"{count} bytes"


def signed(value: float) -> str:
    """A number with its sign, a true minus among them."""
    return f"{value:+.1f}".replace("-", "−")


def decibels(value: float) -> str:
    """A level to one digit, with a true minus where it is below zero."""
    return f"{value:.1f}".replace("-", "−")
