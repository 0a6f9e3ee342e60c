"""Load, plan, quantize, export, audit, report, on the toy framework."""

from __future__ import annotations

import json

import numpy as np
import pytest

import qm
from qm.errors import UsageError
from qm.report import Report, report_path


def test_a_model_is_quantized_and_reported(net, data, tmp_path):
    report = qm.quantize(net, ["toy.round"], data=data, to=tmp_path / "out.toy")
    assert report.accepted
    assert report.plan == {"first": "w8a8", "second": "w8a8", "head": "w8a8"}
    assert report.schemes == report.plan
    assert report.size.after == (tmp_path / "out.toy").stat().st_size < report.size.before
    assert report.quality.sqnr_db > 25
    assert report.quality.accuracy.samples == 40


def test_the_report_beside_the_artifact_says_the_same(net, data, tmp_path):
    report = qm.quantize(net, ["toy.round"], data=data, to=tmp_path / "out.toy")
    assert Report.read(report_path(tmp_path / "out.toy")) == report


def test_a_report_is_plain_json(net, tmp_path):
    qm.quantize(net, ["toy.round"], to=tmp_path / "out.toy")
    values = json.loads(report_path(tmp_path / "out.toy").read_text())
    assert values["recipe"]["stages"] == [{"plugin": "toy.round", "options": {}}]


def test_the_same_request_gives_the_same_bytes(net, data, tmp_path):
    for name in ("a.toy", "b.toy"):
        qm.quantize(net, ["toy.round"], data=data, to=tmp_path / name)
    assert (tmp_path / "a.toy").read_bytes() == (tmp_path / "b.toy").read_bytes()


def test_samples_that_calibrate_do_not_judge(net, data, tmp_path):
    used = qm.quantize(net, ["toy.round"], data=data, samples=30, to=tmp_path / "out.toy").data
    assert len(used.calibrated) == 30
    assert len(used.judged) == 50
    assert not set(used.calibrated) & set(used.judged)


def test_samples_on_which_a_planner_chose_do_not_judge_either(net, data, tmp_path):
    methods = ["toy.protect", "toy.round"]
    used = qm.quantize(net, methods, scheme="w4", data=data, to=tmp_path / "out.toy").data
    assert len(used.tried) == 20
    assert not set(used.tried) & set(used.judged)


def test_rules_reach_the_file(net, tmp_path):
    report = qm.quantize(net, ["toy.round"], rules=[qm.Rule(layers="head", scheme="float")], to=tmp_path / "out.toy")
    assert report.schemes == {"first": "w8d8", "second": "w8d8", "head": "float"}


def test_rules_may_be_written_as_schemes_by_layer(net, tmp_path):
    report = qm.quantize(net, ["toy.round"], rules={"head": "float"}, to=tmp_path / "out.toy")
    assert report.plan["head"] == "float"


def test_rules_that_are_something_else_are_named(net, tmp_path):
    for rules in ("head=float", ["head=float"], 3):
        with pytest.raises(UsageError, match="rules is .*, not a list of qm.plugin.Rule"):
            qm.quantize(net, ["toy.round"], rules=rules, to=tmp_path / "out.toy")


def test_a_planner_leaves_the_layer_with_the_outliers_in_float(net, data, tmp_path):
    report = qm.quantize(net, ["toy.protect", "toy.round"], scheme="w4", data=data, to=tmp_path / "out.toy")
    assert report.plan == {"first": "w4", "second": "float", "head": "w4"}


def test_the_recipe_of_a_planner_runs_again_without_it(net, data, tmp_path):
    recipe = qm.plan(net, ["toy.protect", "toy.round"], scheme="w4", data=data)
    planned = qm.quantize(net, ["toy.protect", "toy.round"], scheme="w4", data=data, to=tmp_path / "a.toy")
    again = qm.quantize(net, recipe=recipe, data=data, to=tmp_path / "b.toy")
    assert [stage.plugin for stage in recipe.stages] == ["toy.round"]
    assert again.plan == planned.plan
    assert (tmp_path / "a.toy").read_bytes() == (tmp_path / "b.toy").read_bytes()


def test_planning_leaves_nothing_behind(net, data, tmp_path):
    before = set(tmp_path.iterdir())
    qm.plan(net, ["toy.protect", "toy.round"], scheme="w4", data=data)
    assert set(tmp_path.iterdir()) == before


def test_arrays_serve_as_data(net, tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    report = qm.quantize(net, ["toy.round"], data={"x": x}, to=tmp_path / "out.toy")
    assert report.quality.accuracy is None
    assert report.quality.agreement.samples == 10


def test_without_data_the_report_says_that_inputs_are_made_up(net, tmp_path):
    report = qm.quantize(net, ["toy.round"], to=tmp_path / "out.toy")
    assert report.quality.synthetic
    assert any("made-up inputs" in f.seen for f in report.findings)


def test_a_benchmark_gives_a_ratio_with_an_interval(net, tmp_path):
    speed = qm.quantize(net, ["toy.round"], to=tmp_path / "out.toy", benchmark=True, time_s=2).speed
    assert speed.low <= speed.ratio <= speed.high
    assert speed.rounds >= 3


def test_a_benchmark_leaves_out_the_samples_that_made_the_artifact(net, data, tmp_path):
    qm.quantize(net, ["toy.round"], data=data, samples=30, to=tmp_path / "out.toy")
    found = qm.benchmark(tmp_path / "out.toy", baseline=net, data=data, time_s=1)
    assert found.samples == 50
    assert any("left out 30 samples" in note for note in found.notes)


BREAKING = """
import qm_toy.model
from dataclasses import replace
from qm.plugin import Quantizer, hookimpl
from qm_toy.round import quantize as rounded

def impl(job):
    model = rounded(job.__class__(**{{**job.__dict__, "options": Options()}}))
    layers = list(model.native)
    {spoil}
    return qm_toy.model.ToyModel(layers)

class Options:
    clip = 1.0

@hookimpl
def qm_cards():
    yield Quantizer(name="q", summary="s", impl=impl, takes={{"toy"}}, schemes={{"w8d8"}}, default="w8d8")
"""

SPOILS = {
    "layers[1] = job.model.native[1]": "1 of 3 layers: asked for w8d8, is in float",
    "layers[2] = replace(layers[2], bias=layers[2].bias * float('nan'))": "an output has NaN or infinity",
    "layers[2] = replace(layers[2], bias=layers[2].bias + 1000)": "dB SQNR to the float model",
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_broken_promise_fails_the_audit_and_the_file_is_kept_as_rejected(net, data, tmp_path, publish, spoil):
    publish("acme", BREAKING.format(spoil=spoil))
    before = set(tmp_path.iterdir())
    with pytest.raises(qm.AuditFailed) as caught:
        qm.quantize(net, ["acme.q"], data=data, to=tmp_path / "out.toy")
    assert SPOILS[spoil] in caught.value.message
    assert caught.value.exit_code == 3
    left = {p.name for p in set(tmp_path.iterdir()) - before}
    assert left == {"out.toy.rejected", "out.toy.rejected.report.json"}
    report = Report.read(tmp_path / "out.toy.rejected.report.json")
    assert not report.accepted


def test_a_file_that_got_bigger_is_not_called_smaller(net, tmp_path):
    # A model so small that scales and names outweigh what the integers save.
    from qm.plugin import ExportJob
    from qm_toy.model import Dense, ToyModel
    from qm_toy.store import save
    from qm_toy.weight import Float

    one = Float(array=np.ones((1, 1), np.float32))
    layer = Dense(name="only", tensor="only", weight=one, bias=np.zeros(1, np.float32))
    save(ExportJob(model=ToyModel([layer]), path=tmp_path / "tiny.toy"))
    report = qm.quantize(tmp_path / "tiny.toy", ["toy.round"], to=tmp_path / "out.toy")
    (size,) = [f for f in report.findings if f.check == "size"]
    assert report.size.after >= report.size.before
    assert size.seen.startswith("not smaller")
    assert size.level == "warning"


def test_samples_that_made_the_artifact_are_known_again_in_another_file(net, data, tmp_path):
    qm.quantize(net, ["toy.round"], data=data, samples=30, to=tmp_path / "out.toy")
    with np.load(data) as arrays:
        kept = {name: values[::-1][:60] for name, values in arrays.items()}
    np.savez(tmp_path / "other.npz", **kept)
    found = qm.benchmark(tmp_path / "out.toy", baseline=net, data=tmp_path / "other.npz", time_s=1)
    used = qm.Report.read(tmp_path / "out.toy.report.json").data.calibrated
    assert found.samples == 60 - sum(index >= 20 for index in used)
