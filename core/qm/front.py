"""The Pareto front of a comparison: the models that no other one beats beyond doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qm.contest import Entry
from qm.metric import paired_mean
from qm.report import Outcomes
from qm.verdict import NO_CLASS, paired_difference

Standing = Literal["better", "even", "cannot tell"]
"""How one model stands to another in one respect; ``even`` is for exact figures only."""
Criterion = Callable[[Entry, Entry], Standing]


def front(entries: Sequence[Entry], *, synthetic: bool) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """By name of each model that did not fail, the model that beats it, None on the front; and in which respects.

    One beats another where it is better in some respect beyond the interval, and in all others too, or exactly even:
    whatever cannot be told keeps a model on the front.
    """
    running = [e for e in entries if e.failed is None]
    named = criteria(running, synthetic=synthetic)
    beaten: dict[str, str | None] = {}
    for entry in running:
        better = (other for other in running if other is not entry and _beats(other, entry, list(named.values())))
        beaten[entry.name] = next((other.name for other in better), None)
    return beaten, tuple(named)


def criteria(entries: Sequence[Entry], *, synthetic: bool) -> dict[str, Criterion]:
    """The respects in which all entries can be compared, by name."""
    found: dict[str, Criterion] = {}
    if all(e.file is not None for e in entries):
        found["size"] = by_size
    if entries and all(e.latency is not None for e in entries):
        found["speed"] = by_speed
    outcomes = [e.quality.outcomes if e.quality is not None else None for e in entries]
    if synthetic or not all(outcomes):
        return found
    if all(e.metric is not None for e in entries):
        found["metric"] = _by_outcomes(by_metric)
    elif all(o is not None and o.label and o.after for o in outcomes):
        found["accuracy"] = _by_outcomes(by_accuracy)
    elif all(o is not None and o.after for o in outcomes):
        found["agreement"] = _by_outcomes(by_agreement)
    elif all(o is not None and o.sqnr_db for o in outcomes):
        found["SQNR"] = _by_outcomes(by_sqnr)
    return found


def by_size(a: Entry, b: Entry) -> Standing:
    """Bytes on disk, which are exact."""
    if a.file is None or b.file is None:
        return "cannot tell"
    return "better" if a.file.nbytes < b.file.nbytes else "even" if a.file.nbytes == b.file.nbytes else "cannot tell"


def by_speed(a: Entry, b: Entry) -> Standing:
    """Both are timed against one model: that one has no ratio."""
    if a.speed is None:
        return "better" if b.speed is not None and b.speed.answer == "slower" else "cannot tell"
    if b.speed is None:
        return "better" if a.speed.answer == "faster" else "cannot tell"
    apart = a.speed.low > b.speed.high
    beyond_noise = a.speed.ratio > b.speed.ratio * (1 + a.speed.noise_floor)
    return "better" if apart and beyond_noise else "cannot tell"


def by_accuracy(a: Outcomes, b: Outcomes) -> Standing:
    """Samples that one gets right and the other does not."""
    return _by_hits(_right(a), _right(b))


def by_agreement(a: Outcomes, b: Outcomes) -> Standing:
    """Samples on which one answers as the first model, and the other does not."""
    return _by_hits(_agreeing(a), _agreeing(b))


def by_metric(a: Outcomes, b: Outcomes) -> Standing:
    """The user's metric, sample by sample."""
    return _by_values(np.array(a.metric_after), np.array(b.metric_after))


def by_sqnr(a: Outcomes, b: Outcomes) -> Standing:
    """Decibels, sample by sample; nothing is better than the first model, whose noise is none."""
    if not any(value is not None for value in a.sqnr_db):
        return "better" if any(value is not None for value in b.sqnr_db) else "cannot tell"
    pairs = [(x, y) for x, y in zip(a.sqnr_db, b.sqnr_db, strict=True) if x is not None and y is not None]
    return _by_values(*np.array(pairs, float).T) if len(pairs) == len(a.sqnr_db) else "cannot tell"


def _beats(a: Entry, b: Entry, respects: Sequence[Criterion]) -> bool:
    standings = [respect(a, b) for respect in respects]
    return "better" in standings and "cannot tell" not in standings


def _by_outcomes(compare: Callable[[Outcomes, Outcomes], Standing]) -> Criterion:
    def criterion(a: Entry, b: Entry) -> Standing:
        one = a.quality.outcomes if a.quality is not None else None
        other = b.quality.outcomes if b.quality is not None else None
        return "cannot tell" if one is None or other is None else compare(one, other)

    return criterion


def _by_hits(a: Sequence[bool], b: Sequence[bool]) -> Standing:
    gained = sum(x and not y for x, y in zip(a, b, strict=True))
    lost = sum(y and not x for x, y in zip(a, b, strict=True))
    return "better" if paired_difference(lost, gained, len(a)).low > 0 else "cannot tell"


def _by_values(a: NDArray[np.float64], b: NDArray[np.float64]) -> Standing:
    scale = float(max(np.abs(a).max(), np.abs(b).max()))
    return "better" if paired_mean(a - b, scale=scale, seed=0).low > 0 else "cannot tell"


def _right(outcomes: Outcomes) -> list[bool]:
    return [p == label != NO_CLASS for p, label in zip(outcomes.after, outcomes.label, strict=True)]


def _agreeing(outcomes: Outcomes) -> list[bool]:
    return [a == b != NO_CLASS for a, b in zip(outcomes.after, outcomes.before, strict=True)]
