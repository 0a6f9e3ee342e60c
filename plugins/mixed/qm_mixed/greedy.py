"""Layer by layer, the most bytes for the least error: the baseline that mixed.budget is compared with."""

from __future__ import annotations

from qm.plugin import PlanJob, Recipe, UsageError
from qm_mixed.attempt import attempted
from qm_mixed.cost import Choice, Costs, measure, say_counts, spoken
from qm_mixed.limit import byte_limit


def plan(job: PlanJob) -> Recipe:
    """The recipe, narrowed step by step until the file is within its size.

    Raises:
        UsageError: no size is given, or none of the plans is so small.
    """
    limit = byte_limit(job.bench, job.options.max_bytes, job.options.max_ratio)
    if limit is None:
        raise UsageError("mixed.greedy has no size to meet", hint="Give one: -o max_bytes= or -o max_ratio=.")
    costs = measure(job, job.options.ladder)
    for choice in path(costs):
        if costs.nbytes(choice) > limit:
            continue
        trial = attempted(job, costs.recipe_of(choice))
        if trial is not None and trial.nbytes <= limit:
            job.notes.say(f"greedy plan: {spoken(trial)}")
            say_counts(job, choice, costs.groups)
            return costs.recipe_of(choice)
    smallest = attempted(job, costs.recipe_of(narrowest(costs)))
    least = "those that might are refused" if smallest is None else f"the smallest takes {smallest.nbytes:,}"
    raise UsageError(
        f"no plan fits {limit:,.0f} bytes: {least}",
        hint="Raise the limit, or name narrower schemes with -o ladder=.",
    )


def path(costs: Costs) -> list[Choice]:
    """The plans on the way from the recipe's own to the narrowest, one group a step, the cheapest step first."""
    choice = costs.started
    made = [choice]
    while True:
        steps = [
            (i, scheme, cost)
            for i, options in enumerate(costs.by_group)
            for scheme, cost in options.items()
            if cost.nbytes < options[choice[i]].nbytes
        ]
        if not steps:
            return made
        i, scheme, _ = min(steps, key=lambda step: _price(costs, choice, step[0], step[2].noise, step[2].nbytes))
        choice = (*choice[:i], scheme, *choice[i + 1 :])
        made.append(choice)


def narrowest(costs: Costs) -> Choice:
    """The plan of the fewest bytes."""
    return tuple(min(options, key=lambda s: (options[s].nbytes, options[s].noise)) for options in costs.by_group)


def _price(costs: Costs, choice: Choice, i: int, noise: float, nbytes: float) -> float:
    """Error for each byte saved."""
    now = costs.by_group[i][choice[i]]
    return (noise - now.noise) / (now.nbytes - nbytes)
