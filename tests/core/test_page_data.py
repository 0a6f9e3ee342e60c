"""What a report records so that a page can show it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import qm
from qm.judgement import quality_of
from qm.numerics import sqnr_db
from qm.report import KEPT_OPERATIONS, KEPT_SPREADS, Profile, Report, Spread
from qm.types import Activation, OpTime


@pytest.fixture
def report(net, data, tmp_path):
    return qm.quantize(net, ["toy.round"], scheme="w8", data=data, samples=30, to=tmp_path / "out.toy")


def test_the_error_of_each_layer_is_that_of_its_output_against_the_float_models(report, net, data, tmp_path):
    before, after = qm.load(net), qm.load(tmp_path / "out.toy")
    x = np.load(data)["x"][list(report.data.judged[:8])]
    batch = {"x": x.astype(np.float32)}
    names = ["first", "second", "head"]
    one, other = before.run(batch, watch=names), after.run(batch, watch=names)
    assert [e.layer for e in report.error_by_layer] == names
    for error in report.error_by_layer:
        assert error.sqnr_db == pytest.approx(float(sqnr_db(one[error.layer], other[error.layer])), abs=0.01)


def test_a_layer_that_is_identical_has_no_error(net, data, tmp_path):
    rules = [qm.Rule.exactly("first", "float")]
    report = qm.quantize(net, ["toy.round"], scheme="w8", rules=rules, data=data, to=tmp_path / "out.toy")
    assert [e.sqnr_db is None for e in report.error_by_layer] == [True, False, False]


def test_the_outcome_of_each_sample_is_kept_under_its_index_in_the_whole_set(report, data):
    outcomes, labels = report.quality.outcomes, np.load(data)["y"]
    assert outcomes.index == report.data.judged
    assert list(outcomes.label) == labels[list(outcomes.index)].tolist()
    right = np.mean(np.equal(outcomes.after, outcomes.label))
    assert right == pytest.approx(report.quality.accuracy.after)
    assert len(outcomes.sqnr_db) == len(outcomes.index)


def test_the_benchmark_brings_the_profile_of_the_original_too(net, data, tmp_path):
    report = qm.quantize(net, ["toy.round"], data=data, benchmark=True, time_s=1, to=tmp_path / "out.toy")
    assert [op.layer for op in report.profile_before.operations] == [op.layer for op in report.profile_after.operations]
    assert {op.integer for op in report.profile_before.operations} == {False}
    assert {op.integer for op in report.profile_after.operations} == {True}


def test_without_a_benchmark_the_original_is_not_timed(report):
    assert report.profile_before is None
    assert report.profile_after is not None


def test_a_profile_keeps_the_slowest_operations_and_the_sum_of_the_others():
    ops = [OpTime(name=str(i), kind="k", latency_us=float(i)) for i in range(KEPT_OPERATIONS + 3)]
    profile = Profile.of(ops)
    assert [op.name for op in profile.operations] == [str(i) for i in range(3, KEPT_OPERATIONS + 3)]
    assert profile.rest_us == 0 + 1 + 2
    assert profile.total_us == sum(range(KEPT_OPERATIONS + 3))


def test_nothing_timed_is_no_profile():
    assert Profile.of([]) is None


def spread(sqnr_db):
    return Activation(
        tensor="t", layer=str(sqnr_db), bits=8, low=-1.0, high=1.0,
        edges=(-1.0, 1 / 3, 2.0), counts=(3.0, 1.0), sqnr_db=sqnr_db, clipped=1 / 3,
    )  # fmt: skip


def test_only_the_activations_with_the_largest_error_are_kept():
    kept = Spread.worst([spread(v) for v in (30.0, math.nan, 10.0, math.inf, 20.0, 5.0, 40.0, 15.0)])
    assert [s.layer for s in kept] == ["5.0", "10.0", "15.0", "20.0", "30.0", "40.0"]
    assert len(kept) == KEPT_SPREADS


def test_counts_of_an_activation_are_shares_and_numbers_are_short():
    (kept,) = Spread.worst([spread(10.0)])
    assert kept.counts == (0.75, 0.25)
    assert kept.edges == (-1.0, 0.33333, 2.0)


def test_a_report_with_all_of_it_is_read_back_the_same(report, tmp_path):
    full = report.model_copy(update={"activations": Spread.worst([spread(10.0), spread(math.inf)])})
    full.write(tmp_path / "full.report.json")
    assert Report.read(tmp_path / "full.report.json") == full


def test_a_report_from_before_is_still_read(report, tmp_path):
    old = json.loads(report.json_text())
    for field in ("error_by_layer", "profile_before", "profile_after", "activations"):
        del old[field]
    del old["quality"]["outcomes"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert Report.read(tmp_path / "old.json").error_by_layer == ()


def test_outputs_that_are_no_scores_have_an_sqnr_by_sample_and_no_classes():
    from qm.evaluation import evaluate

    rng = np.random.default_rng(0)
    before = [{"y": rng.normal(size=(1, 4, 4, 2)).astype(np.float32)} for _ in range(3)]
    after = [{"y": b["y"] * np.float32(1.1)} for b in before]
    outcomes = quality_of(evaluate(zip(before, after, strict=True), None), indices=[7, 8, 9]).outcomes
    assert outcomes.index == (7, 8, 9)
    assert outcomes.before == outcomes.label == ()
    # A tenth too much is a noise of a hundredth of the power.
    assert outcomes.sqnr_db == pytest.approx((20.0, 20.0, 20.0), abs=0.01)


def test_watching_is_left_out_where_the_artifact_cannot_be_watched(net, data, tmp_path, publish):
    publish(
        "acme",
        """
        from qm.errors import Unsupported
        from qm.plugin import Quantizer, hookimpl, Loader
        import qm_toy.model

        @hookimpl
        def qm_load(step):
            model = step.call()
            plain = model.run
            def run(batch, watch=()):
                if watch:
                    raise Unsupported("layers are hidden")
                return plain(batch)
            model.run = run
            return model

        @hookimpl
        def qm_cards():
            return ()
        """,
    )
    from qm.catalog import Catalog
    from qm.recipe import Recipe, Stage
    from qm.request import Request
    from qm.runner import Run

    catalog = Catalog()
    catalog.manager.activate(("acme",))
    request = Request(model=net, recipe=Recipe(stages=(Stage(plugin="toy.round"),)), data=data, to=tmp_path / "o.toy")
    report = Run(request, catalog).quantize()
    assert report.accepted
    assert report.error_by_layer == ()
