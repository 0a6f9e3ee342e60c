"""What each group costs at each scheme: measured one at a time on the real runtime, put together by adding.

Errors of layers are taken as independent, so that their powers add; what is added is checked by a trial afterwards.
Source: Zhou et al., "Adaptive quantization for deep neural network", 2018, section 3 (additive noise of layers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qm.plugin import PlanJob, Recipe, Rule, Scheme, Trial, Unsupported, UsageError
from qm_mixed.attempt import leave_out
from qm_mixed.group import Group, groups

Measure = Callable[[int, Scheme], float]
Choice = tuple[Scheme, ...]
"""One scheme a group, in the order of the groups."""


@dataclass(frozen=True)
class Cost:
    """What changes where one group gets a scheme and the rest stay: bytes of the file, power of the error."""

    nbytes: float
    noise: float
    trial: Trial


@dataclass(frozen=True)
class Costs:
    """The costs of every group at every scheme, against those of the recipe that was given."""

    recipe: Recipe
    start: Trial
    groups: tuple[Group, ...]
    by_group: tuple[Mapping[Scheme, Cost], ...]

    def nbytes(self, choice: Choice) -> float:
        """Bytes of the file, as the sum has it."""
        return self.start.nbytes + sum(c[s].nbytes for c, s in zip(self.by_group, choice, strict=True))

    def noise(self, choice: Choice) -> float:
        """Power of the error over that of the answers, as the sum has it; never below nothing."""
        total = noise(self.start) + sum(c[s].noise for c, s in zip(self.by_group, choice, strict=True))
        return max(total, 0.0)

    def macs_bits(self, choice: Choice) -> float:
        """Multiply-accumulates times bits, of these groups alone."""
        return sum(g.macs_bits(s) for g, s in zip(self.groups, choice, strict=True))

    def part(self, what: Literal["nbytes", "noise", "macs_bits"]) -> Measure:
        """What one group, by its place, adds at one scheme."""
        if what == "macs_bits":
            return lambda i, scheme: self.groups[i].macs_bits(scheme)
        return lambda i, scheme: float(getattr(self.by_group[i][scheme], what))

    @property
    def started(self) -> Choice:
        """The schemes of the recipe that was given."""
        return tuple(g.start for g in self.groups)

    def recipe_of(self, choice: Choice) -> Recipe:
        """The recipe with a rule for every layer whose scheme is not the one it had."""
        changed = ((g, s) for g, s in zip(self.groups, choice, strict=True) if s != g.start)
        return self.recipe.with_rules(*(rule for g, s in changed for rule in rules(g, s)))

    def learnt(self, choice: Choice, trial: Trial) -> Costs:
        """The costs, once a plan of many changes was tried: what the sum got wrong is laid on those that changed.

        Each takes a part in proportion to its own power, the least change that makes the sum right.
        """
        missed = noise(trial) - self.noise(choice)
        shares = [abs(c[s].noise) for c, s in zip(self.by_group, choice, strict=True)]
        total = sum(shares)
        if not total or not math.isfinite(missed):
            return self
        moved = []
        for costs, scheme, share in zip(self.by_group, choice, shares, strict=True):
            old = costs[scheme]
            moved.append({**costs, scheme: Cost(old.nbytes, old.noise + missed * share / total, old.trial)})
        return Costs(self.recipe, self.start, self.groups, tuple(moved))


def measure(job: PlanJob, ladder: str) -> Costs:
    """Try every group at every scheme of its ladder, the rest as the recipe has them; what is refused is left out.

    Raises:
        UsageError: there is nothing to choose.
        Unsupported: the recipe itself is refused.
    """
    found = groups(job.bench, job.recipe, ladder)
    start = job.bench.run(job.recipe)
    pairs = [(g, s) for g in found for s in g.choices if s != g.start]
    tried: dict[tuple[Group, Scheme], Cost] = {}
    refused: dict[tuple[Group, Scheme], Unsupported] = {}
    for group, scheme in job.progress.track(pairs, "trying layers", total=len(pairs)):
        try:
            trial = job.bench.run(job.recipe.with_rules(*rules(group, scheme)))
        except Unsupported as e:
            refused[group, scheme] = e
            continue
        if math.isfinite(noise(trial)):
            tried[group, scheme] = Cost(trial.nbytes - start.nbytes, noise(trial) - noise(start), trial)
    leave_out(job, refused, tried)
    same = Cost(0.0, 0.0, start)
    by_group = tuple({s: tried.get((g, s), same) for s in g.choices if s == g.start or (g, s) in tried} for g in found)
    return Costs(job.recipe, start, found, by_group)


def noise(trial: Trial) -> float:
    """Power of the error over that of the answers: one in ten at 10 dB."""
    return math.inf if math.isnan(trial.sqnr_db) else 10 ** (-trial.sqnr_db / 10)


def decibel(power: float) -> float:
    """The SQNR of that power of the error, in dB."""
    return math.inf if power <= 0 else -10 * math.log10(power)


def rules(group: Group, scheme: Scheme) -> list[Rule]:
    """One rule a layer of the group."""
    return [Rule.exactly(name, scheme) for name in group.names]


def spoken(trial: Trial) -> str:
    """A trial in words."""
    agreed = "" if trial.agreement is None else f", {trial.agreement:.1%} of the answers as float"
    return f"{trial.nbytes:,} bytes, {trial.sqnr_db:.1f} dB{agreed}"


def drop(trial: Trial) -> float:
    """Percent of top-1 answers that are not those of the float model.

    Raises:
        UsageError: the model's answers are no classes.
    """
    if trial.agreement is None:
        raise UsageError(
            "max_drop speaks of top-1 answers, and this model's outputs are no classes",
            hint="Take -o min_sqnr_db= instead.",
        )
    return 100 * (1 - trial.agreement)


def say_counts(job: PlanJob, choice: Choice, found: Sequence[Group]) -> None:
    """Tell how many layers got what."""
    counts: dict[str, int] = {}
    for group, scheme in zip(found, choice, strict=True):
        counts[str(scheme)] = counts.get(str(scheme), 0) + len(group.layers)
    job.notes.say("planned " + ", ".join(f"{n} layer{'s'[: n > 1]} in {s}" for s, n in sorted(counts.items())))
