"""What is known of each candidate, who beats whom, and who goes on to the next rung.

Source: Li et al., "A system for massively parallel hyperparameter tuning", 2020, algorithm 2 (asynchronous successive
halving), with ranks by Pareto fronts in place of one loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from qm.tuning.goal import Goal
from qm.tuning.job import Measured
from qm.tuning.share import ETA
from qm.tuning.space import Candidate


@dataclass(frozen=True, kw_only=True)
class Result:
    """A candidate as it was measured last, on its highest rung; ``place`` is its place in the space."""

    candidate: Candidate
    place: int
    rung: int
    measured: Measured

    def beats(self, other: Result) -> bool:
        """Whether it was measured at least as well, and is at least as small, as exact and as often right.

        Of two that are alike in all, the one that comes first in the space wins.
        """
        if self is other or self.rung < other.rung:
            return False
        mine, theirs = _figures(self.measured), _figures(other.measured)
        if not all(a <= b for a, b in zip(mine, theirs, strict=True)):
            return False
        return mine != theirs or self.rung > other.rung or self.place < other.place


def _figures(measured: Measured) -> tuple[float, float, float]:
    return measured.nbytes, -measured.sqnr_db, measured.drop


@dataclass
class Standing:
    """The results so far. ``float_nbytes`` is the size that an artifact must stay below."""

    candidates: Sequence[Candidate]
    rungs: int
    goal: Goal
    float_nbytes: int
    results: dict[str, dict[int, Measured]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, candidate: Candidate, rung: int, measured: Measured) -> None:
        """Take in a trial."""
        self.results.setdefault(candidate.name, {})[rung] = measured

    def is_known(self, candidate: Candidate, rung: int) -> bool:
        """Whether the trial is over."""
        return candidate.name in self.failures or rung in self.results.get(candidate.name, {})

    def latest(self) -> list[Result]:
        """Each candidate that did not fail and is smaller than the float model, on its highest rung."""
        found = []
        for place, candidate in enumerate(self.candidates):
            known = self.results.get(candidate.name)
            if known and candidate.name not in self.failures:
                rung = max(known)
                found.append(Result(candidate=candidate, place=place, rung=rung, measured=known[rung]))
        return [r for r in found if r.measured.nbytes < self.float_nbytes]

    def front(self) -> list[Result]:
        """Those that no other beats, the largest first."""
        return sorted(_unbeaten(self.latest()), key=lambda r: (-r.measured.nbytes, r.place))

    def chain(self) -> list[Result]:
        """The most promising, then whatever is smaller and nearly as promising, down to the smallest."""
        chain: list[Result] = []
        for result in sorted(self.latest(), key=lambda r: (self.goal.promise(r.measured), r.measured.nbytes, r.place)):
            if not chain or result.measured.nbytes < chain[-1].measured.nbytes:
                chain.append(result)
        return chain

    def promotable(self, rung: int) -> list[Candidate]:
        """The best third of those measured on a rung, the best first."""
        ranked = self.ranked(rung)
        return [result.candidate for result in ranked[: len(ranked) // ETA]]

    def ranked(self, rung: int) -> list[Result]:
        """Those measured on a rung, by front after front; within one, by promise and size."""
        left = [
            Result(candidate=c, place=place, rung=rung, measured=known[rung])
            for place, c in enumerate(self.candidates)
            if rung in (known := self.results.get(c.name, {}))
        ]
        ranked: list[Result] = []
        while left:
            layer = _unbeaten(left)
            ranked += sorted(layer, key=lambda r: (self.goal.promise(r.measured), r.measured.nbytes, r.place))
            left = [r for r in left if r not in layer]
        return ranked

    def rank_of_base(self, candidate: Candidate) -> float:
        """Where the same method with no option told stands on the lowest rung; infinity where it does not yet."""
        names = [result.candidate.name for result in self.ranked(0)]
        return names.index(candidate.base) if candidate.base in names else math.inf


def _unbeaten(results: Iterable[Result]) -> list[Result]:
    every = list(results)
    return [r for r in every if not any(other.beats(r) for other in every)]
