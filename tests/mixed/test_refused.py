"""A runtime that refuses some plans when it is handed them: the others are planned with."""

from __future__ import annotations

from itertools import product

import pytest

from qm.errors import UsageError
from qm.plugin import Recipe, Rule, Speed, Unsupported
from qm_mixed import budget, cost, greedy, latency, pareto, worst
from qm_mixed.option import BudgetOptions, GreedyOptions, ParetoOptions, SensitivityOptions

pytest_plugins = ["qm.testing"]

W8 = Recipe(scheme="w8")
NAMES = ("first", "second", "head")
LADDER = "w4,w8"


def planned(job, recipe):
    plan = job.bench.plan(recipe)
    return tuple(str(plan[name]) for name in NAMES)


def picky(job, refuses):
    """The job on a runtime that refuses what ``refuses(first, second, head)`` says; the plans it was handed."""
    run, handed = job.bench.run, []

    def tried(recipe):
        handed.append(planned(job, recipe))
        if refuses(*handed[-1]):
            raise Unsupported(f"there is no kernel for {' '.join(handed[-1])}", hint="Take another scheme.")
        return run(recipe)

    job.bench.run = tried
    return handed


def best(job, limit, refuses):
    """The least error of all plans within the limit that are not refused, in dB."""
    trials = []
    for choice in product(("w4", "w8"), repeat=3):
        if not refuses(*choice):
            rules = [Rule.exactly(name, scheme) for name, scheme in zip(NAMES, choice, strict=True)]
            trials.append(job.bench.run(W8.with_rules(*rules)))
    return max(t.sqnr_db for t in trials if t.nbytes <= limit)


def no_narrow_head(_first, _second, head):
    return head == "w4"


def no_narrow_pair(first, second, _head):
    return first == second == "w4"


@pytest.mark.parametrize("limit", [7400, 7700, 8900, 9300])
@pytest.mark.parametrize("refuses", [no_narrow_head, no_narrow_pair])
def test_the_best_of_the_plans_that_are_not_refused_is_found(bench, limit, refuses):
    job = bench(W8, BudgetOptions(max_bytes=limit, ladder=LADDER))
    picky(job, refuses)
    trial = job.bench.run(budget.plan(job))
    assert (trial.nbytes <= limit, trial.sqnr_db) == (True, best(job, limit, refuses))


def test_the_smallest_of_the_plans_that_are_not_refused_is_found(bench):
    job = bench(W8, BudgetOptions(min_sqnr_db=13, ladder=LADDER))
    picky(job, no_narrow_pair)
    chosen = job.bench.run(budget.plan(job))
    assert chosen.sqnr_db >= 13
    assert chosen.nbytes < job.bench.run(W8).nbytes


def test_no_refused_plan_is_tried_again(bench):
    job = bench(W8, BudgetOptions(max_bytes=7700, ladder=LADDER))
    handed = picky(job, no_narrow_pair)
    budget.plan(job)
    refused = [plan for plan in handed if no_narrow_pair(*plan)]
    assert refused
    assert len(refused) == len(set(refused))


def test_what_is_left_out_is_said_once_a_scheme(bench):
    job = bench(W8, BudgetOptions(max_bytes=9500, ladder=LADDER))
    picky(job, lambda first, second, _head: "w4" in (first, second))
    budget.plan(job)
    assert [note for note in job.notes if "left out" in note] == [
        "w4 is left out for 2 layers, such as 'first': there is no kernel for w4 w8 w8"
    ]


def test_a_refused_plan_is_said(bench):
    job = bench(W8, BudgetOptions(max_bytes=7700, ladder=LADDER))
    picky(job, no_narrow_pair)
    budget.plan(job)
    assert any(
        n.startswith("a plan was refused, and others are tried: there is no kernel for w4 w4") for n in job.notes
    )


def test_the_greedy_way_goes_past_what_is_refused(bench):
    job = bench(W8, GreedyOptions(max_bytes=8000, ladder=LADDER))
    picky(job, no_narrow_head)
    recipe = greedy.plan(job)
    assert job.bench.plan(recipe)["head"] == job.bench.plan(W8)["head"]
    assert job.bench.run(recipe).nbytes <= 8000


def test_the_greedy_way_says_that_what_is_small_enough_is_refused(bench):
    job = bench(W8, GreedyOptions(max_bytes=6836, ladder=LADDER))
    picky(job, no_narrow_pair)
    with pytest.raises(UsageError, match="no plan fits 6,836 bytes: those that might are refused"):
        greedy.plan(job)


def test_a_size_that_only_refused_plans_meet_is_no_plan_at_all(bench):
    job = bench(W8, BudgetOptions(max_bytes=6836, ladder=LADDER))
    picky(job, no_narrow_pair)
    with pytest.raises(UsageError, match=r"none of the \d plans tried is within all limits, and \d more were refused"):
        budget.plan(job)


def test_the_front_has_no_refused_plan(bench):
    job = bench(W8, ParetoOptions(points=6, ladder=LADDER))
    picky(job, no_narrow_pair)
    assert not no_narrow_pair(*planned(job, pareto.plan(job)))
    assert sum("of the front" in note for note in job.notes) > 1


def test_the_table_of_single_layers_lacks_what_is_refused(bench):
    job = bench(W8, SensitivityOptions(ladder=LADDER, count=0))
    picky(job, no_narrow_head)
    worst.plan(job)
    (chart,) = job.charts
    assert chart.names == NAMES
    first, second, head = chart.series["w4"]
    assert head is None
    assert None not in (first, second)


def test_where_every_other_scheme_is_refused_the_reason_is_said(bench):
    job = bench(W8, BudgetOptions(max_bytes=7700, ladder=LADDER))
    picky(job, lambda *schemes: "w4" in schemes)
    said = "every other scheme of every layer is refused, such as w4 for 'first': there is no kernel for w4 w8 w8"
    with pytest.raises(UsageError, match=said) as caught:
        budget.plan(job)
    assert caught.value.hint == "Take another scheme."


def test_the_recipe_itself_refused_is_the_users_to_change(bench):
    job = bench(W8, BudgetOptions(max_bytes=7700, ladder=LADDER))
    picky(job, lambda *schemes: schemes == ("w8", "w8", "w8"))
    with pytest.raises(Unsupported, match="there is no kernel for w8 w8 w8"):
        budget.plan(job)


def test_schemes_that_are_refused_together_are_timed_in_parts(bench):
    job = bench(W8, BudgetOptions())
    timed = []

    def time(recipe):
        plan = job.bench.plan(recipe)
        if no_narrow_pair(*planned(job, recipe)):
            raise Unsupported("there is no kernel for both")
        timed.append(planned(job, recipe))
        layers = {layer.name: float(layer.macs * plan[layer.name].weight_bits) for layer in job.bench.layers}
        return Speed(latency_us=sum(layers.values()), layers_us=layers)

    job.bench.time = time
    times = latency.measure(job, cost.measure(job, LADDER))
    assert timed == [("w8", "w8", "w8"), ("w4", "w8", "w8"), ("w8", "w4", "w4")]
    narrow = tuple(min(options, key=str) for options in times.by_group)
    assert times.latency_us(narrow) == sum(layer.macs * 4 for layer in job.bench.layers)
