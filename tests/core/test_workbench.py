"""A planner's bench: trials on the real runtime, remembered."""

from __future__ import annotations

import numpy as np
import pytest

from qm.catalog import Catalog
from qm.data import open_data
from qm.journal import Journal
from qm.plugin import Rule, Scheme, Stage
from qm.recipe import Recipe
from qm.route import find_route
from qm.step import load_model
from qm.workbench import Workbench

RECIPE = Recipe(stages=(Stage(plugin="toy.round"),), scheme="w4")


@pytest.fixture
def bench(net, data, tmp_path):
    catalog = Catalog()
    route = find_route(net, RECIPE, catalog, to=tmp_path / "out.toy", has_data=True)
    model = load_model(catalog.manager, route.loader, net)
    samples = open_data(str(data), model.inputs())
    return Workbench(
        catalog=catalog,
        route=route,
        model=model,
        calibration=samples.subset(range(40)),
        judging=samples.subset(range(40, 60)),
        journal=Journal(tmp_path / "trials", {}),
    )


def test_a_bench_shows_layers_and_offers(bench):
    assert [layer.name for layer in bench.layers] == ["first", "second", "head"]
    assert {str(s) for s in bench.offers(bench.layers[0])} == {"w4", "w8", "w8a8", "w8d8"}


def test_a_recipe_is_worked_out_with_the_layers_in_float(bench):
    plan = bench.plan(RECIPE.with_rules(Rule.exactly("head", "float")))
    assert {name: str(s) for name, s in plan.layers.items()} == {"first": "w4", "second": "w4", "head": "float"}


def test_more_bits_cost_more_bytes_and_less_error(bench):
    few = bench.run(RECIPE)
    many = bench.run(RECIPE.with_rules(Rule(layers="*", scheme="w8")))
    assert many.nbytes > few.nbytes
    assert many.sqnr_db > few.sqnr_db + 15


def test_a_trial_is_remembered_whatever_its_rules_are_called(bench, tmp_path):
    first = bench.run(RECIPE)
    again = bench.run(RECIPE.with_rules(Rule.exactly("head", Scheme.parse("w4"))))
    assert again.sqnr_db == first.sqnr_db
    assert len((tmp_path / "trials").read_text().splitlines()) == 2


def test_a_trial_measures_what_the_artifact_really_does(bench):
    assert np.isfinite(bench.run(RECIPE).sqnr_db)
    assert bench.run(RECIPE).nbytes < bench.float_nbytes
