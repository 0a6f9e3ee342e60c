"""What the schemes of layers do to the time of a run: profiles of a few whole plans, then the clock on those tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from qm.plugin import PlanJob, Scheme, Speed, Unsupported
from qm_mixed.cost import Choice, Costs
from qm_mixed.group import Group


@dataclass(frozen=True)
class Times:
    """Microseconds that change where one group gets a scheme and the rest stay, against ``start_us`` of the recipe."""

    start_us: float
    by_group: tuple[Mapping[Scheme, float], ...]

    def part(self, i: int, scheme: Scheme) -> float:
        """What one group, by its place, adds at one scheme."""
        return self.by_group[i][scheme]

    def latency_us(self, choice: Choice) -> float:
        """Time of a run, as the sum has it."""
        return self.start_us + sum(self.part(i, s) for i, s in enumerate(choice))

    def learnt(self, choice: Choice, latency_us: float) -> Times:
        """The times, once a plan was timed: what the sum got wrong is laid on what changes, in proportion."""
        missed = latency_us - self.latency_us(choice)
        sizes = [abs(self.part(i, s)) for i, s in enumerate(choice)]
        total = sum(sizes)
        if not total:
            return self
        moved = (
            {**parts, s: parts[s] + missed * size / total}
            for parts, s, size in zip(self.by_group, choice, sizes, strict=True)
        )
        return replace(self, by_group=tuple(moved))


def measure(job: PlanJob, costs: Costs) -> Times:
    """Time the recipe, and for each other scheme a plan in which all groups have it that may.

    The difference of a group's own kernels is from the profiles; what is left of the difference of the whole, such as
    casts between kernels, is laid on the groups by their multiply-accumulates, and all of it where the runtime does not
    tell the time of its operations.
    """
    if job.bench.target.name != "host":
        job.notes.say(f"times are those of this machine, not of {job.bench.target.name}")
    start = job.bench.time(job.recipe)
    parts: list[dict[Scheme, float]] = [dict.fromkeys(options, 0.0) for options in costs.by_group]
    plans = list(_plans(costs))
    for scheme, places in job.progress.track(plans, "timing schemes", total=len(plans)):
        for i, part in _parts(job, costs, start, scheme, places).items():
            parts[i][scheme] = part
    return Times(start.latency_us, tuple(parts))


def _parts(job: PlanJob, costs: Costs, start: Speed, scheme: Scheme, places: tuple[int, ...]) -> dict[int, float]:
    """What each of those groups adds at the scheme; where they are refused together, each half is timed for itself."""
    changed = {i: costs.groups[i] for i in places}
    choice = tuple(scheme if i in changed else g.start for i, g in enumerate(costs.groups))
    try:
        speed = job.bench.time(costs.recipe_of(choice))
    except Unsupported:
        if len(places) == 1:
            raise  # It was tried before, for its error.
        half = len(places) // 2
        halves = (_parts(job, costs, start, scheme, some) for some in (places[:half], places[half:]))
        return {i: part for parts in halves for i, part in parts.items()}
    return _shared(changed, start, speed)


def _plans(costs: Costs) -> Iterator[tuple[Scheme, tuple[int, ...]]]:
    """Which groups get a scheme in each plan: all that may; two halves where that would leave nothing quantized."""
    schemes = sorted({s for options in costs.by_group for s in options}, key=str)
    for scheme in schemes:
        able = [i for i, g in enumerate(costs.groups) if scheme in costs.by_group[i] and scheme != g.start]
        whole = scheme.is_float and len(able) == len(costs.groups)
        for some in (able[::2], able[1::2]) if whole else (able,):
            if some and not (whole and len(some) == len(costs.groups)):
                yield scheme, tuple(some)


def _shared(changed: Mapping[int, Group], start: Speed, speed: Speed) -> dict[int, float]:
    """The difference of two times, by group."""
    own = {
        i: sum(speed.layers_us.get(n, 0.0) - start.layers_us.get(n, 0.0) for n in group.names)
        for i, group in changed.items()
    }
    rest = speed.latency_us - start.latency_us - sum(own.values())
    macs = {i: sum(layer.macs for layer in group.layers) for i, group in changed.items()}
    total = sum(macs.values())
    return {i: own[i] + rest * (macs[i] / total if total else 1 / len(changed)) for i in changed}
