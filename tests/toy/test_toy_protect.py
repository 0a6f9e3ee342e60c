"""Protecting the layers that lose most."""

import pytest

import qm_toy
from qm.errors import UsageError
from qm.plugin import PlanJob, Planner, Recipe, Rule
from qm.testing import Lab, contract_bench
from qm_toy.plugin import ProtectOptions
from qm_toy.protect import plan

pytestmark = pytest.mark.usefixtures("isolated")
pytest_plugins = ["qm.testing"]


@pytest.fixture
def protect(tmp_path):
    def protected(recipe, *, tied=False, **options):
        class Subject:
            method = "toy.protect"
            kind = Planner
            options = {}  # noqa: RUF012

            def model(self, folder):
                return qm_toy.make(folder / "model.toy", tied=tied)

            def samples(self):
                return None

        lab = Lab(Subject(), tmp_path)
        bench = contract_bench(lab, "toy.round", recipe)
        job = PlanJob(recipe=recipe, bench=bench, options=ProtectOptions(**options))
        return plan(job), bench, job.notes

    return protected


W4 = Recipe(scheme="w4")


def test_the_layer_with_outliers_is_left_in_float(protect):
    answer, _, _ = protect(W4)
    assert answer == W4.with_rules(Rule.exactly("second", "float"))


def test_protection_brings_the_answers_nearer_to_float(protect):
    answer, bench, _ = protect(W4)
    assert bench.run(answer).sqnr_db > bench.run(W4).sqnr_db + 3


def test_the_count_says_how_many_layers_are_protected(protect):
    answer, bench, _ = protect(W4, count=2)
    assert len(bench.plan(answer).quantized()) == 1


def test_a_better_scheme_may_be_named(protect):
    answer, bench, _ = protect(W4, scheme="w8")
    assert str(bench.plan(answer)["second"]) == "w8"


def test_layers_that_share_a_weight_are_protected_together(protect):
    answer, bench, _ = protect(W4, tied=True)
    assert set(bench.plan(answer).quantized()) == {"first", "head"}


def test_layers_in_float_already_are_not_tried(protect):
    answer, bench, _ = protect(W4.with_rules(Rule.exactly("second", "float")))
    assert len(bench.plan(answer).quantized()) == 1


def test_the_report_says_what_was_gained(protect):
    _, _, notes = protect(W4)
    assert len(notes) == 1
    assert notes[0].startswith("second in float: +")


def test_protecting_every_layer_is_a_usage_error(protect):
    with pytest.raises(UsageError, match="leaving 3 layers in float would leave nothing to quantize") as caught:
        protect(W4, count=3)
    assert caught.value.hint == "Ask for fewer: -o count=2."


def test_a_scheme_that_nobody_offers_is_a_usage_error(protect):
    with pytest.raises(UsageError, match="no quantized layer can be protected in 'w5'"):
        protect(W4, scheme="w5")
