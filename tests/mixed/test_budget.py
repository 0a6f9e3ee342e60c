"""The best plan within a budget, on the toy framework, against all plans there are."""

from __future__ import annotations

from itertools import product

import pytest

from qm.errors import UsageError
from qm.plugin import Recipe, Rule
from qm_mixed import budget, greedy
from qm_mixed.option import BudgetOptions, GreedyOptions

pytest_plugins = ["qm.testing"]

W8 = Recipe(scheme="w8")
NAMES = ("first", "second", "head")


def every_plan(job, schemes=("w4", "w8")):
    """Every trial there is, by the schemes of the three layers."""
    made = {}
    for choice in product(schemes, repeat=3):
        rules = [Rule.exactly(name, scheme) for name, scheme in zip(NAMES, choice, strict=True)]
        made[choice] = job.bench.run(W8.with_rules(*rules))
    return made


def planned(job, recipe):
    plan = job.bench.plan(recipe)
    return tuple(str(plan[name]) for name in NAMES)


@pytest.mark.parametrize("limit", [6836, 7000, 7200, 7700, 8900, 9300, 9716])
def test_within_a_size_no_other_plan_is_more_accurate(bench, limit):
    job = bench(W8, BudgetOptions(max_bytes=limit, ladder="w4,w8"))
    every = every_plan(job)
    best = max((t for t in every.values() if t.nbytes <= limit), key=lambda t: t.sqnr_db)
    assert every[planned(job, budget.plan(job))].sqnr_db == best.sqnr_db


@pytest.mark.parametrize("goal", [13.0, 14.0, 15.0, 20.0, 39.0])
def test_within_a_loss_no_other_plan_is_smaller(bench, goal):
    job = bench(W8, BudgetOptions(min_sqnr_db=goal, ladder="w4,w8"))
    every = every_plan(job)
    least = min(t.nbytes for t in every.values() if t.sqnr_db >= goal)
    assert every[planned(job, budget.plan(job))].nbytes == least


def test_answers_may_change_no_more_than_said(bench):
    job = bench(W8, BudgetOptions(max_drop=0, ladder="w4,w8"))
    trial = every_plan(job)[planned(job, budget.plan(job))]
    assert trial.agreement == 1.0
    assert trial.nbytes < job.bench.run(W8).nbytes


def test_a_share_of_the_float_size_is_a_size(bench):
    job = bench(W8, BudgetOptions(max_ratio=0.32))
    assert job.bench.run(budget.plan(job)).nbytes <= 0.32 * job.bench.float_nbytes


def test_bit_operations_can_be_limited_beside_the_size(bench):
    # All three at 8 bits take 5760 MACs x 8 x 32 bits.
    job = bench(W8, BudgetOptions(max_macs_bits=1_000_000, ladder="w4,w8"))
    plan = job.bench.plan(budget.plan(job))
    total = sum(layer.macs * plan[layer.name].weight_bits * 32 for layer in job.bench.layers)
    assert total <= 1_000_000 < sum(layer.macs * 8 * 32 for layer in job.bench.layers)


def test_the_greedy_plan_is_never_better(bench):
    for limit in (7000, 7700, 8900, 9300):
        job = bench(W8, BudgetOptions(max_bytes=limit))
        own = job.bench.run(budget.plan(job)).sqnr_db
        job = bench(W8, GreedyOptions(max_bytes=limit))
        assert own >= job.bench.run(greedy.plan(job)).sqnr_db


def test_a_limit_above_the_given_size_gives_a_better_plan_that_still_quantizes(bench):
    job = bench(W8, BudgetOptions(max_bytes=30_000))
    recipe = budget.plan(job)
    assert job.bench.run(recipe).sqnr_db > job.bench.run(W8).sqnr_db
    assert job.bench.plan(recipe).quantized()


def test_layers_that_share_a_weight_move_together(bench):
    job = bench(W8, BudgetOptions(max_bytes=7500, ladder="w4,w8"), tied=True)
    plan = job.bench.plan(budget.plan(job))
    assert plan["second"] == plan["third"]


def test_a_layer_that_a_rule_leaves_in_float_stays_there(bench):
    given = W8.with_rules(Rule.exactly("head", "float"))
    job = bench(given, BudgetOptions(max_bytes=9000))
    assert job.bench.plan(budget.plan(job))["head"].is_float


def test_a_limit_below_the_smallest_plan_says_the_smallest(bench):
    for planner, options in ((budget, BudgetOptions(max_bytes=100)), (greedy, GreedyOptions(max_bytes=100))):
        with pytest.raises(UsageError, match=r"no plan fits 100 bytes: the smallest takes 6,836"):
            planner.plan(bench(W8, options))


def test_bit_operations_below_the_fewest_say_the_fewest(bench):
    with pytest.raises(UsageError, match=r"no plan fits 1000 MACs x bits: the smallest takes 737280"):
        budget.plan(bench(W8, BudgetOptions(max_macs_bits=1000)))


def test_a_goal_beyond_the_best_plan_says_the_best(bench):
    with pytest.raises(UsageError, match=r"no plan is so accurate: the best of those tried has 49\.9 dB"):
        budget.plan(bench(W8, BudgetOptions(min_sqnr_db=90)))


def test_a_limit_and_a_goal_contradict_each_other(bench):
    with pytest.raises(UsageError, match="a limit of size and a goal of accuracy are both given"):
        budget.plan(bench(W8, BudgetOptions(max_bytes=7000, max_drop=1)))


@pytest.mark.parametrize(("planner", "options"), [(budget, BudgetOptions()), (greedy, GreedyOptions())])
def test_no_budget_is_said_before_any_trial(bench, planner, options):
    with pytest.raises(UsageError, match="has no (budget|size to meet)") as caught:
        planner.plan(bench(W8, options))
    assert "max_bytes" in caught.value.hint


def test_a_ladder_with_a_scheme_that_nobody_offers_is_refused(bench):
    with pytest.raises(UsageError, match="the ladder has 'w3', which no method after the planner offers") as caught:
        budget.plan(bench(W8, BudgetOptions(max_bytes=7000, ladder="w8,w3")))
    assert "w4" in caught.value.hint
