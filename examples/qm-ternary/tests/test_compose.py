"""acme.ternary in the pipe, as a user runs it."""

import itertools

import pytest

import qm
import qm_toy


@pytest.fixture
def folder(tmp_path):
    qm_toy.make(tmp_path / "model.toy")
    qm_toy.make_data(tmp_path / "data.npz", samples=200)
    return tmp_path


def test_it_needs_no_data(folder):
    report = qm.quantize(folder / "model.toy", ["acme.ternary"], to=folder / "small.toy")
    assert report.accepted
    assert set(report.schemes.values()) == {"w2"}


def test_the_toys_planner_plans_for_it(folder):
    report = qm.quantize(
        folder / "model.toy", ["toy.protect", "acme.ternary"], data=folder / "data.npz", to=folder / "small.toy"
    )
    assert report.accepted
    assert report.schemes == {"first": "w2", "second": "float", "head": "w2"}
    assert report.plan == report.schemes


def test_its_recipe_runs_again_without_the_planner(folder):
    recipe = qm.plan(folder / "model.toy", ["toy.protect", "acme.ternary"], data=folder / "data.npz")
    assert [stage.plugin for stage in recipe.stages] == ["acme.ternary"]
    report = qm.quantize(folder / "model.toy", recipe=recipe, to=folder / "small.toy")
    assert report.schemes == {"first": "w2", "second": "float", "head": "w2"}


def test_the_planner_of_mixed_precision_finds_the_best_plan_for_it(folder):
    pytest.importorskip("scipy")
    model, data = folder / "model.toy", folder / "data.npz"
    every = {}
    for choice in itertools.product(("w2", "float"), repeat=3):
        if set(choice) != {"float"}:
            rules = [qm.Rule.exactly(name, s) for name, s in zip(("first", "second", "head"), choice, strict=True)]
            every[choice] = qm.quantize(
                model, ["acme.ternary"], rules=rules, data=data, to=folder / "one.toy", force=True
            )
    limit = (every["w2", "w2", "w2"].size.after + every["float", "float", "w2"].size.after) // 2
    planner = ("mixed.budget", {"max_bytes": limit})
    report = qm.quantize(model, [planner, "acme.ternary"], data=data, to=folder / "small.toy")
    best = max((r for r in every.values() if r.size.after <= limit), key=lambda r: r.quality.sqnr_db)
    assert report.size.after <= limit
    assert report.schemes == best.schemes
    assert set(report.schemes.values()) == {"w2", "float"}


def test_it_shares_the_layers_with_another_quantizer(folder):
    report = qm.quantize(
        folder / "model.toy",
        ["acme.ternary", "toy.round"],
        rules=[qm.Rule.exactly("second", "w8")],
        to=folder / "small.toy",
    )
    assert report.schemes["second"] == "w8"
    assert report.schemes["first"] == "w2"


def test_a_misspelt_option_says_what_was_meant(folder):
    with pytest.raises(qm.UsageError) as caught:
        qm.quantize(folder / "model.toy", [("acme.ternary", {"treshold": 1})], to=folder / "small.toy")
    assert "acme.ternary has no option 'treshold'" in str(caught.value)
    assert "Did you mean 'threshold'?" in str(caught.value)
