"""What layers cost, and the front of size and error."""

from __future__ import annotations

import csv
import itertools

import pytest

from qm.errors import UsageError
from qm.plugin import FLOAT, Recipe, Rule, Scheme
from qm_mixed import cost, group, pareto, worst
from qm_mixed.option import ParetoOptions, SensitivityOptions

pytest_plugins = ["qm.testing"]

W4, W8 = Recipe(scheme="w4"), Recipe(scheme="w8")


def test_the_worst_layer_gets_the_better_scheme(bench):
    job = bench(W4, SensitivityOptions(ladder="w4,w8"))
    assert worst.plan(job) == W4.with_rules(Rule.exactly("second", "w8"))


def test_as_many_as_are_asked_for_get_it(bench):
    job = bench(W4, SensitivityOptions(ladder="w4,w8", count=2))
    assert {rule.layers for rule in worst.plan(job).rules} == {"second", "head"}


def test_none_may_be_asked_for(bench):
    assert worst.plan(bench(W4, SensitivityOptions(count=0))) == W4


def test_the_table_has_every_layer_at_every_scheme(bench, isolated):
    job = bench(W4, SensitivityOptions(table="table.csv"))
    worst.plan(job)
    with open("table.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert [(r["layer"], r["scheme"]) for r in rows] == [
        (name, scheme) for name in ("first", "second", "head") for scheme in ("w4", "w8", "float")
    ]
    alone = job.bench.run(W4.with_rules(Rule.exactly("second", "w8")))
    row = next(r for r in rows if (r["layer"], r["scheme"]) == ("second", "w8"))
    assert float(row["sqnr_db"]) == pytest.approx(alone.sqnr_db, abs=1e-4)
    assert int(row["nbytes"]) == alone.nbytes


def test_the_table_must_be_a_csv_file(bench):
    with pytest.raises(UsageError, match=r"the table 'table\.xls' is no \.csv file"):
        worst.plan(bench(W4, SensitivityOptions(table="table.xls")))


def test_protecting_all_in_float_would_leave_nothing(bench):
    with pytest.raises(UsageError, match="would leave nothing to quantize"):
        worst.plan(bench(W4, SensitivityOptions(ladder="w4,float", count=3)))


def test_the_report_tells_what_each_layer_gains(bench):
    job = bench(W4, SensitivityOptions(ladder="w4,w8"))
    worst.plan(job)
    assert job.notes[0].startswith("second in w8 instead of w4: +5.3")


def test_the_ladder_is_what_shares_the_activations_and_float(bench):
    job = bench(Recipe(scheme="w8d8"), SensitivityOptions())
    found = group.groups(job.bench, job.recipe, "")
    assert {str(s) for g in found for s in g.choices} == {"w8d8", "float"}


def test_costs_of_one_change_are_exact_and_of_several_are_learnt(bench):
    job = bench(W8, SensitivityOptions(ladder="w4,w8"))
    costs = cost.measure(job, "w4,w8")
    one = (Scheme.parse("w8"), Scheme.parse("w4"), Scheme.parse("w8"))
    assert costs.noise(one) == pytest.approx(cost.noise(job.bench.run(costs.recipe_of(one))))
    all_narrow = tuple(Scheme.parse("w4") for _ in range(3))
    trial = job.bench.run(costs.recipe_of(all_narrow))
    learnt = costs.learnt(all_narrow, trial)
    assert learnt.noise(all_narrow) == pytest.approx(cost.noise(trial))
    assert costs.noise(all_narrow) != pytest.approx(cost.noise(trial))
    assert learnt.noise(costs.started) == costs.noise(costs.started)


def test_every_layer_costs_one_trial_a_scheme(bench):
    job = bench(W8, SensitivityOptions())
    runs = []
    run = job.bench.run
    job.bench.run = lambda recipe: (runs.append(recipe), run(recipe))[1]
    cost.measure(job, "")
    assert len(runs) == 1 + 3 * 2


def test_no_point_of_the_front_is_beaten_and_each_has_its_file(bench, isolated):
    job = bench(W8, ParetoOptions(folder="front", points=5))
    pareto.plan(job)
    files = sorted((isolated.folder / "front").iterdir())
    trials = [job.bench.run(Recipe.read(path)) for path in files]
    assert len(trials) >= 3
    assert all(a.nbytes > b.nbytes and a.sqnr_db > b.sqnr_db for a, b in itertools.pairwise(trials))


def test_the_bend_is_farthest_from_the_line_between_the_ends(bench):
    job = bench(W8, ParetoOptions())
    trial = job.bench.run(W8)
    points = [type(trial)(recipe=W8, nbytes=size, sqnr_db=db) for size, db in ((1000, 40.0), (500, 38.0), (400, 20.0))]
    assert pareto.bend(points) == 1


def test_a_folder_that_cannot_be_made_is_said(bench, isolated):
    (isolated.folder / "front").write_text("a file")
    with pytest.raises(UsageError, match="the folder 'front' cannot be made"):
        pareto.plan(bench(W8, ParetoOptions(folder="front")))


def test_no_choice_for_any_layer_is_said(bench):
    with pytest.raises(UsageError, match="there is no layer with a choice of schemes"):
        group.groups(bench(W8, SensitivityOptions()).bench, W8, "w8")
    assert FLOAT.is_float


def test_the_report_gets_a_picture_of_what_each_layer_costs(bench):
    job = bench(W4, SensitivityOptions(ladder="w4,w8"))
    worst.plan(job)
    (chart,) = job.charts
    assert chart.names == ("first", "second", "head")
    assert list(chart.series) == ["w8"]
    alone, start = job.bench.run(W4.with_rules(Rule.exactly("second", "w8"))), job.bench.run(W4)
    assert chart.series["w8"][1] == pytest.approx(alone.sqnr_db - start.sqnr_db, abs=1e-3)


def test_a_picture_says_nothing_of_a_scheme_that_a_layer_cannot_have(bench):
    job = bench(W4.with_rules(Rule.exactly("head", "w8")), SensitivityOptions(ladder="w4,w8"))
    worst.plan(job)
    (chart,) = job.charts
    assert [[value is None for value in chart.series[s]] for s in ("w4", "w8")] == [
        [True, True, False],
        [False, False, True],
    ]
