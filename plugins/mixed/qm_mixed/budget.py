"""The best plan within limits: an integer programme over what each layer costs, then trials of what it says.

Errors do not quite add, so the plan that looks best is tried, what the sum got wrong is learnt, and so again. The plan
of ``mixed.greedy`` is among those tried: on the samples of the trials the answer is never worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from qm.plugin import FLOAT, PlanJob, Recipe, Trial, UsageError
from qm_mixed.attempt import attempted
from qm_mixed.cost import Choice, Costs, Measure, decibel, drop, measure, noise, say_counts, spoken
from qm_mixed.greedy import narrowest, path
from qm_mixed.latency import Times
from qm_mixed.latency import measure as measure_times
from qm_mixed.limit import byte_limit
from qm_mixed.option import BudgetOptions
from qm_mixed.programme import solve


def plan(job: PlanJob) -> Recipe:
    """The most accurate recipe within the limits of size, or the smallest within the goals of accuracy.

    Raises:
        UsageError: no limit or goal is given, or both kinds are; no plan meets them.
    """
    options: BudgetOptions = job.options
    sizes = [options.max_bytes, options.max_ratio, options.max_macs_bits, options.max_latency_us]
    goals = [options.min_sqnr_db, options.max_drop]
    has_limit, has_goal = any(n is not None for n in sizes), any(n is not None for n in goals)
    if has_limit and has_goal:
        raise UsageError(
            "a limit of size and a goal of accuracy are both given, and either may rule out the other",
            hint="Give max_bytes, max_ratio, max_macs_bits or max_latency_us alone for the most accurate plan, "
            "min_sqnr_db or max_drop alone for the smallest.",
        )
    if not has_limit and not has_goal:
        raise UsageError(
            "mixed.budget has no budget",
            hint="Give one: -o max_bytes=60000, -o max_ratio=0.25, -o max_latency_us=500 or -o max_drop=1.",
        )
    costs = measure(job, options.ladder)
    search = (_Accurate if has_limit else _Small)(job, costs)
    choice, _ = search.found()
    job.notes.say(f"of the plans tried, the best: {search.told(choice)} (as given: {search.told(costs.started)})")
    say_counts(job, choice, costs.groups)
    return costs.recipe_of(choice)


class _Search:
    """Plans tried, each once."""

    def __init__(self, job: PlanJob, costs: Costs) -> None:
        self.job, self.costs, self.options = job, costs, job.options
        self.tried: dict[Choice, Trial] = {costs.started: costs.start}
        self.refused: set[Choice] = set()

    def attempt(self, choice: Choice) -> Trial | None:
        """Try a plan, and learn from it; None where it is refused."""
        if choice not in self.tried and choice not in self.refused:
            trial = attempted(self.job, self.costs.recipe_of(choice))
            if trial is None:
                self.refused.add(choice)
            else:
                self.tried[choice] = trial
                self.costs = self.costs.learnt(choice, trial)
        return self.tried.get(choice)

    def told(self, choice: Choice) -> str:
        """A plan that was tried, in words."""
        return spoken(self.tried[choice])

    def barred(self) -> list[Choice]:
        """The plans that were refused; and the one that would quantize none of the groups, where there is one."""
        choice = tuple(FLOAT for _ in self.costs.by_group)
        return [*self.refused, *([choice] if all(FLOAT in options for options in self.costs.by_group) else [])]

    def rounds(self, words: str) -> Iterator[int]:
        count = self.options.trials
        yield from self.job.progress.track(range(count), words, total=count)


class _Accurate(_Search):
    """The least error within limits of size and time."""

    def __init__(self, job: PlanJob, costs: Costs) -> None:
        super().__init__(job, costs)
        self.times: Times | None = None
        self.timed: dict[Choice, float] = {}

    def attempt(self, choice: Choice) -> Trial | None:
        """Try a plan, time it where time is limited, and learn from both; None where it is refused."""
        trial = super().attempt(choice)
        if trial is not None and self.times is not None and choice not in self.timed:
            self.timed[choice] = self.job.bench.time(self.costs.recipe_of(choice)).latency_us
            self.times = self.times.learnt(choice, self.timed[choice])
        return trial

    def told(self, choice: Choice) -> str:
        """A plan that was tried, in words, with its time where it was timed."""
        timed = f", {self.timed[choice]:,.1f} us" if choice in self.timed else ""
        return super().told(choice) + timed

    def found(self) -> tuple[Choice, Trial]:
        limit = byte_limit(self.job.bench, self.options.max_bytes, self.options.max_ratio)
        self._check_possible(limit)
        if self.options.max_latency_us is not None:
            self._check_fast(self.options.max_latency_us)
        asked, is_greedy = limit, True
        for _ in self.rounds("trying plans"):
            choice = self._greedy(limit) if is_greedy else self._solved(asked)
            if choice is None:
                if not is_greedy:
                    break
                is_greedy = False
                continue
            trial = self.attempt(choice)
            is_greedy = is_greedy and trial is None
            if trial is not None and limit is not None and asked is not None and trial.nbytes > limit:
                asked -= trial.nbytes - limit  # Sizes do not quite add either: files have padding and tables.
        if limit is not None and not self._fitting(limit):
            self.attempt(narrowest(self.costs))
        fitting = self._fitting(limit)
        if not fitting:
            raise self._nothing_fits(limit)
        return min(fitting, key=lambda item: (noise(item[1]), item[1].nbytes))

    def _solved(self, limit: float | None) -> Choice | None:
        limits: list[tuple[Measure, float]] = []
        if limit is not None:
            limits.append((self.costs.part("nbytes"), limit - self.costs.start.nbytes))
        if self.options.max_macs_bits is not None:
            limits.append((self.costs.part("macs_bits"), self.options.max_macs_bits))
        if self.times is not None and self.options.max_latency_us is not None:
            limits.append((self.times.part, self.options.max_latency_us - self.times.start_us))
        return solve(self.costs, self.costs.part("noise"), limits, [*self.tried, *self.barred()])

    def _greedy(self, limit: float | None) -> Choice | None:
        within = (c for c in path(self.costs) if self._is_within(c, self.costs.nbytes(c), limit))
        return next((c for c in within if c not in self.refused), None)

    def _is_within(self, choice: Choice, nbytes: float, limit: float | None) -> bool:
        most, most_us = self.options.max_macs_bits, self.options.max_latency_us
        return (
            (limit is None or nbytes <= limit)
            and (most is None or self.costs.macs_bits(choice) <= most)
            and (most_us is None or self._latency_us(choice) <= most_us)
        )

    def _latency_us(self, choice: Choice) -> float:
        """As timed, or as the sum has it."""
        if choice in self.timed or self.times is None:
            return self.timed[choice]
        return self.times.latency_us(choice)

    def _fitting(self, limit: float | None) -> list[tuple[Choice, Trial]]:
        return [(c, t) for c, t in self.tried.items() if self._is_within(c, t.nbytes, limit)]

    def _nothing_fits(self, limit: float | None) -> UsageError:
        """What to say where each limit can be met, and no plan that was tried meets all."""
        if limit is not None and not self.refused and not any(t.nbytes <= limit for t in self.tried.values()):
            return _too_small(f"{limit:,.0f} bytes", f"{min(t.nbytes for t in self.tried.values()):,}")
        return UsageError(
            f"none of the {len(self.tried)} plans tried is within all limits"
            + (f", and {len(self.refused)} more were refused" if self.refused else "")
            + ": the nearest has "
            + self.told(min(self.tried, key=lambda c: (self.timed.get(c, 0.0), self.tried[c].nbytes))),
            hint="Raise a limit, or have more plans tried with -o trials=.",
        )

    def _check_fast(self, most_us: float) -> None:
        """Raise UsageError where even the fastest plan takes too long."""
        self.times = measure_times(self.job, self.costs)
        self.timed[self.costs.started] = self.times.start_us
        fastest = solve(self.costs, self.times.part, [], self.barred())
        if fastest is not None and self.times.latency_us(fastest) > most_us:
            is_made = self.attempt(fastest) is not None
            least = min(self.timed.values())
            if is_made and least > most_us:
                raise _too_small(f"{most_us:g} us", f"{least:,.1f} us", "fastest")
        for choice in list(self.tried):  # Those tried before the clock was there.
            self.attempt(choice)

    def _check_possible(self, limit: float | None) -> None:
        """Raise UsageError where even the narrowest plan is too much."""
        most = self.options.max_macs_bits
        if most is not None:
            least = sum(min(g.macs_bits(s) for s in g.choices) for g in self.costs.groups)
            if least > most:
                raise _too_small(f"{most:g} MACs x bits", f"{least:g}")
        if limit is not None and self.costs.nbytes(narrowest(self.costs)) > limit:
            trial = self.attempt(narrowest(self.costs))
            if trial is not None and trial.nbytes > limit:
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
                [*(c for c, t in self.tried.items() if not self._is_met(t)), *self.barred()],
            )
            trial = None if choice is None else self.attempt(choice)
            if choice is not None and trial is None:
                continue  # It was refused: the next one with as little error.
            if trial is None or self._is_met(trial):
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
        choice = solve(self.costs, self.costs.part("noise"), [], self.barred())
        if choice is not None:
            self.attempt(choice)
        if not self._meeting():
            nearest = min(self.tried.values(), key=noise)
            raise UsageError(
                f"no plan is so accurate: the best of those tried has {decibel(noise(nearest)):.1f} dB"
                + ("" if nearest.agreement is None else f" and changes {drop(nearest):.1f} % of the answers"),
                hint="Lower the goal, or name better schemes with -o ladder=.",
            )


def _too_small(limit: str, least: str, which: str = "smallest") -> UsageError:
    return UsageError(
        f"no plan fits {limit}: the {which} takes {least}",
        hint="Raise the limit, or name narrower schemes with -o ladder=.",
    )
