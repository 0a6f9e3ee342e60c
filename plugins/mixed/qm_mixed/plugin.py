"""What this plugin offers: planners for whatever quantizes after them."""

from __future__ import annotations

from collections.abc import Iterator

from qm.plugin import Can, Card, Planner, hookimpl
from qm_mixed.option import BudgetOptions, GreedyOptions, ParetoOptions, SensitivityOptions

LAYERS = frozenset({Can.LAYERS})
SOLVER = ("scipy",)


@hookimpl
def qm_cards() -> Iterator[Card]:
    yield Planner(
        name="sensitivity",
        summary="what each layer costs at each scheme, one at a time; the worst get a better one",
        impl="qm_mixed.worst:plan",
        options=SensitivityOptions,
        needs=LAYERS,
    )
    yield Planner(
        name="budget",
        summary="the most accurate plan within a size, or the smallest within a loss, as an integer programme",
        impl="qm_mixed.budget:plan",
        options=BudgetOptions,
        requires=SOLVER,
        extra="mixed",
        needs=LAYERS,
    )
    yield Planner(
        name="greedy",
        summary="layer by layer, the most bytes for the least error, until a size is met: the simple baseline",
        impl="qm_mixed.greedy:plan",
        options=GreedyOptions,
        needs=LAYERS,
    )
    yield Planner(
        name="pareto",
        summary="the front of size and error, as one recipe a point; the plan at its bend is taken",
        impl="qm_mixed.pareto:plan",
        options=ParetoOptions,
        requires=SOLVER,
        extra="mixed",
        needs=LAYERS,
    )
