"""The best plan within limits: an integer programme over what each layer costs, then trials of what it says.

Errors do not quite add, so the plan that looks best is tried, what the sum got wrong is learnt, and so again. The plan
of ``mixed.greedy`` is among those tried: on the samples of the trials the answer is never worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from qm.plugin import FLOAT, PlanJob, Recipe, Trial, UsageError
from qm_mixed.cost import Choice, Costs, Measure, decibel, drop, measure, noise, say_counts, spoken
from qm_mixed.greedy import narrowest, path
from qm_mixed.limit import byte_limit
from qm_mixed.option import BudgetOptions
from qm_mixed.programme import solve


def plan(job: PlanJob) -> Recipe:
    """The most accurate recipe within the limits of size, or the smallest within the goals of accuracy.

    Raises:
        UsageError: no limit or goal is given, or both kinds are; no plan meets them.
    """
    options: BudgetOptions = job.options
    sizes = [options.max_bytes, options.max_ratio, options.max_macs_bits]
    goals = [options.min_sqnr_db, options.max_drop]
    has_limit, has_goal = any(n is not None for n in sizes), any(n is not None for n in goals)
    if has_limit and has_goal:
        raise UsageError(
            "a limit of size and a goal of accuracy are both given, and either may rule out the other",
            hint="Give max_bytes, max_ratio or max_macs_bits alone for the most accurate plan, min_sqnr_db or max_drop "
            "alone for the smallest.",
        )
    if not has_limit and not has_goal:
        raise UsageError(
            "mixed.budget has no budget", hint="Give one: -o max_bytes=60000, -o max_ratio=0.25 or -o max_drop=1."
        )
    costs = measure(job, options.ladder)
    choice, trial = (_Accurate if has_limit else _Small)(job, costs).found()
    job.notes.say(f"of the plans tried, the best: {spoken(trial)} (as given: {spoken(costs.start)})")
    say_counts(job, choice, costs.groups)
    return costs.recipe_of(choice)


class _Search:
    """Plans tried, each once."""

    def __init__(self, job: PlanJob, costs: Costs) -> None:
        self.job, self.costs, self.options = job, costs, job.options
        self.tried: dict[Choice, Trial] = {costs.started: costs.start}

    def attempt(self, choice: Choice) -> Trial:
        """Try a plan, and learn from it."""
        if choice not in self.tried:
            self.tried[choice] = self.job.bench.run(self.costs.recipe_of(choice))
            self.costs = self.costs.learnt(choice, self.tried[choice])
        return self.tried[choice]

    def nothing(self) -> list[Choice]:
        """The plan that would quantize none of the groups, where there is one: it is no plan."""
        choice = tuple(FLOAT for _ in self.costs.by_group)
        return [choice] if all(FLOAT in options for options in self.costs.by_group) else []

    def rounds(self, words: str) -> Iterator[int]:
        count = self.options.trials
        yield from self.job.progress.track(range(count), words, total=count)


class _Accurate(_Search):
    """The least error within limits of size."""

    def found(self) -> tuple[Choice, Trial]:
        limit = byte_limit(self.job.bench, self.options.max_bytes, self.options.max_ratio)
        self._check_possible(limit)
        asked = limit
        for number in self.rounds("trying plans"):
            choice = self._greedy(limit) if number == 1 else self._solved(asked)
            if choice is None:
                if number == 1:
                    continue
                break
            trial = self.attempt(choice)
            if limit is not None and asked is not None and trial.nbytes > limit:
                asked -= trial.nbytes - limit  # Sizes do not quite add either: files have padding and tables.
        if limit is not None and not self._fitting(limit):
            self.attempt(narrowest(self.costs))
        fitting = self._fitting(limit)
        if not fitting:
            least = min(t.nbytes for t in self.tried.values())
            raise _too_small(f"{limit:,.0f} bytes", f"{least:,}")
        return min(fitting, key=lambda item: (noise(item[1]), item[1].nbytes))

    def _solved(self, limit: float | None) -> Choice | None:
        limits: list[tuple[Measure, float]] = []
        if limit is not None:
            limits.append((self.costs.part("nbytes"), limit - self.costs.start.nbytes))
        if self.options.max_macs_bits is not None:
            limits.append((self.costs.part("macs_bits"), self.options.max_macs_bits))
        return solve(self.costs, self.costs.part("noise"), limits, [*self.tried, *self.nothing()])

    def _greedy(self, limit: float | None) -> Choice | None:
        return next((c for c in path(self.costs) if self._is_within(c, self.costs.nbytes(c), limit)), None)

    def _is_within(self, choice: Choice, nbytes: float, limit: float | None) -> bool:
        most = self.options.max_macs_bits
        return (limit is None or nbytes <= limit) and (most is None or self.costs.macs_bits(choice) <= most)

    def _fitting(self, limit: float | None) -> list[tuple[Choice, Trial]]:
        return [(c, t) for c, t in self.tried.items() if self._is_within(c, t.nbytes, limit)]

    def _check_possible(self, limit: float | None) -> None:
        """Raise UsageError where even the narrowest plan is too much."""
        most = self.options.max_macs_bits
        if most is not None:
            least = sum(min(g.macs_bits(s) for s in g.choices) for g in self.costs.groups)
            if least > most:
                raise _too_small(f"{most:g} MACs x bits", f"{least:g}")
        if limit is not None and self.costs.nbytes(narrowest(self.costs)) > limit:
            trial = self.attempt(narrowest(self.costs))
            if trial.nbytes > limit:
                raise _too_small(f"{limit:,.0f} bytes", f"{trial.nbytes:,}")


class _Small(_Search):
    """The fewest bytes within goals of accuracy, by bisection of the error that the sums may have."""

    def found(self) -> tuple[Choice, Trial]:
        self._check_reachable()
        low, high = math.log(max(self._floor(), 1e-20)), math.log(max(self.costs.noise(narrowest(self.costs)), 1e-20))
        middle = self._first(low, high)
        for _ in self.rounds("trying plans"):
            choice = solve(
                self.costs,
                self.costs.part("nbytes"),
                [(self.costs.part("noise"), math.exp(middle) - noise(self.costs.start))],
                [*(c for c, t in self.tried.items() if not self._is_met(t)), *self.nothing()],
            )
            if choice is None or self._is_met(self.attempt(choice)):
                low = middle
            else:
                high = middle
            middle = (low + high) / 2
            if high - low < 1e-3:
                break
        return min(self._meeting(), key=lambda item: (item[1].nbytes, noise(item[1])))

    def _first(self, low: float, high: float) -> float:
        """Where to begin: the goal itself where it is one of error, else between the ends."""
        goal = self.options.min_sqnr_db
        middle = (low + high) / 2 if goal is None else -goal * math.log(10) / 10
        return min(max(middle, low), high)

    def _floor(self) -> float:
        best = tuple(min(options, key=lambda s: options[s].noise) for options in self.costs.by_group)
        return self.costs.noise(best)

    def _is_met(self, trial: Trial) -> bool:
        least, most = self.options.min_sqnr_db, self.options.max_drop
        return (least is None or trial.sqnr_db >= least) and (most is None or drop(trial) <= most)

    def _meeting(self) -> list[tuple[Choice, Trial]]:
        return [(c, t) for c, t in self.tried.items() if self._is_met(t)]

    def _check_reachable(self) -> None:
        """Raise UsageError where no plan is so accurate, as far as trials tell."""
        if self._meeting():
            return
        choice = solve(self.costs, self.costs.part("noise"), [], self.nothing())
        if choice is not None:
            self.attempt(choice)
        if not self._meeting():
            nearest = min(self.tried.values(), key=noise)
            raise UsageError(
                f"no plan is so accurate: the best of those tried has {decibel(noise(nearest)):.1f} dB"
                + ("" if nearest.agreement is None else f" and changes {drop(nearest):.1f} % of the answers"),
                hint="Lower the goal, or name better schemes with -o ladder=.",
            )


def _too_small(limit: str, least: str) -> UsageError:
    return UsageError(
        f"no plan fits {limit}: the smallest takes {least}",
        hint="Raise the limit, or name narrower schemes with -o ladder=.",
    )
