"""A planner's bench: trials on the real runtime, remembered."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from qm.catalog import Catalog
from qm.data import open_data
from qm.journal import Journal
from qm.plugin import Batch, Dataset, Memo, Rule, Scheme, Stage
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


class Counted(Dataset):
    """Samples that count how often they are walked."""

    def __init__(self, samples: Dataset) -> None:
        self.samples, self.walks = samples, 0

    @property
    def labels(self) -> None:
        return None

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Batch]:
        self.walks += 1
        return iter(self.samples)


def test_samples_calibrate_once_however_many_plans_are_tried(bench):
    bench._calibration = counted = Counted(bench._calibration)
    recipe = RECIPE.with_rules(Rule(layers="*", scheme="w8a8"))
    for name in ("first", "second", "head"):
        for scheme in ("float", "w4"):
            bench.run(recipe.with_rules(Rule.exactly(name, scheme)))
    # The first plan leaves one layer in float: what that one reads is looked at when the second asks for it.
    assert counted.walks == 2


def test_a_trial_finds_the_same_after_others_as_alone(bench):
    recipe = RECIPE.with_rules(Rule(layers="*", scheme="w8a8"))
    bench.run(recipe.with_rules(Rule.exactly("head", "float")))
    after = bench.run(recipe)
    bench._memo, bench._journal = Memo.forgetful(), Journal(None, {})
    assert bench.run(recipe) == after
