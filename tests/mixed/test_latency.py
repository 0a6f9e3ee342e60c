"""Plans within a time: exact on a device whose times are known, and once by the clock."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

from qm.errors import UsageError
from qm.plugin import Recipe, Rule, Speed
from qm_mixed import budget, cost, latency
from qm_mixed.option import BudgetOptions

pytest_plugins = ["qm.testing"]

W8 = Recipe(scheme="w8")
NAMES = ("first", "second", "head")
BESIDE_US = 5.0


def device(job, *, profiles=True, casts_us=0.0):
    """The job on a device that takes a nanosecond for each multiply-accumulate and bit of its weight.

    Where neighbours have other schemes, it takes ``casts_us`` more.
    """
    timed = []

    def time(recipe):
        timed.append(recipe)
        plan = job.bench.plan(recipe)
        layers = {layer.name: 1e-3 * layer.macs * plan[layer.name].weight_bits for layer in job.bench.layers}
        casts = sum(plan[a] != plan[b] for a, b in pairwise(NAMES))
        total = BESIDE_US + sum(layers.values()) + casts_us * casts
        return Speed(latency_us=total, layers_us=layers if profiles else {})

    job.bench.time = time
    return timed


def planned(job, recipe):
    plan = job.bench.plan(recipe)
    return tuple(str(plan[name]) for name in NAMES)


@pytest.mark.parametrize("profiles", [True, False], ids=["profiled", "as a whole"])
@pytest.mark.parametrize("casts_us", [0.0, 3.0])
@pytest.mark.parametrize("limit_us", [30.0, 35.0, 40.0, 45.0])
def test_within_a_time_no_other_plan_is_more_accurate(bench, limit_us, casts_us, profiles):
    job = bench(W8, BudgetOptions(max_latency_us=limit_us, ladder="w4,w8"))
    device(job, casts_us=casts_us, profiles=profiles)
    every = {}
    for choice in product(("w4", "w8"), repeat=3):
        recipe = W8.with_rules(*(Rule.exactly(n, s) for n, s in zip(NAMES, choice, strict=True)))
        every[choice] = job.bench.run(recipe), job.bench.time(recipe).latency_us
    best = max((t for t, us in every.values() if us <= limit_us), key=lambda t: t.sqnr_db)
    trial, latency_us = every[planned(job, budget.plan(job))]
    assert latency_us <= limit_us
    assert trial.sqnr_db == best.sqnr_db


def test_a_size_and_a_time_are_both_kept(bench):
    job = bench(W8, BudgetOptions(max_latency_us=40.0, max_bytes=7700, ladder="w4,w8"))
    device(job)
    recipe = budget.plan(job)
    assert job.bench.time(recipe).latency_us <= 40.0
    assert job.bench.run(recipe).nbytes <= 7700


def test_the_report_tells_the_time(bench):
    job = bench(W8, BudgetOptions(max_latency_us=40.0, ladder="w4,w8"))
    device(job)
    latency_us = job.bench.time(budget.plan(job)).latency_us
    said = next(note for note in job.notes if note.startswith("of the plans tried, the best"))
    assert f"{latency_us:,.1f} us (as given:" in said


def test_each_scheme_costs_one_timing_beside_the_first(bench):
    job = bench(W8, BudgetOptions(max_latency_us=40.0, ladder="w4,w8"))
    timed = device(job)
    times = latency.measure(job, cost.measure(job, "w4,w8"))
    assert [planned(job, recipe) for recipe in timed] == [("w8",) * 3, ("w4",) * 3]
    assert times.latency_us(tuple(min(options, key=str) for options in times.by_group)) == pytest.approx(
        job.bench.time(timed[1]).latency_us
    )


def test_float_is_timed_in_halves_where_nothing_else_would_be_quantized(bench):
    job = bench(W8, BudgetOptions(max_latency_us=40.0, ladder="float,w8"))
    timed = device(job)
    latency.measure(job, cost.measure(job, "float,w8"))
    assert [planned(job, recipe) for recipe in timed[1:]] == [("float", "w8", "float"), ("w8", "float", "w8")]


def test_a_time_below_the_fastest_plan_says_the_fastest(bench):
    job = bench(W8, BudgetOptions(max_latency_us=10.0, ladder="w4,w8"))
    device(job)
    # 5,760 multiply-accumulates at 4 bits, and what the device takes beside.
    with pytest.raises(UsageError, match=r"no plan fits 10 us: the fastest takes 28\.0 us"):
        budget.plan(job)


def test_a_time_for_another_device_is_said_to_be_that_of_this_machine(bench):
    job = bench(W8, BudgetOptions(max_latency_us=40.0, ladder="w4,w8"))
    device(job)
    budget.plan(job)
    assert "times are those of this machine, not of x86-avx2" in job.notes


def test_what_the_clock_says_is_remembered_and_counts_each_layer(bench):
    job = bench(W8, BudgetOptions())
    speed = job.bench.time(W8)
    assert set(speed.layers_us) == set(NAMES)
    assert speed.latency_us > 0
    assert job.bench.time(W8) == speed
    other = job.bench.time(Recipe(scheme="w4"))
    # Both are the same work in NumPy, timed in turns: ten times as long is no noise.
    assert other.latency_us == pytest.approx(speed.latency_us, rel=9)
