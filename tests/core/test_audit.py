"""What the audit sees beside broken promises."""

from __future__ import annotations

import numpy as np
import pytest

import qm
from qm.audit import Audit, _check_slices
from qm.errors import UsageError
from qm.evaluation import evaluate, matched, predicted
from qm.plugin import LoadJob
from qm.report import Level
from qm_toy.store import load


def outputs(values):
    return [{"y": np.asarray([row], np.float32)} for row in values]


def test_a_slice_that_is_lost_is_seen_though_the_whole_looks_fine():
    rng = np.random.default_rng(0)
    boxes, scores = rng.uniform(0, 300, (50, 4)), rng.uniform(0, 1, (50, 1))
    before = np.hstack([boxes, scores])
    after = np.hstack([boxes + rng.normal(0, 1, boxes.shape), np.zeros_like(scores)])
    seen = Audit()
    _check_slices(seen, evaluate(zip(outputs(before), outputs(after), strict=True), None))
    (finding,) = seen.findings
    assert finding.level is Level.WARNING
    assert "1 of 5 slices along axis 1 are lost (first: 4)" in finding.seen


def test_slices_that_are_all_right_are_not_mentioned():
    values = np.random.default_rng(0).uniform(0, 300, (50, 5))
    seen = Audit()
    _check_slices(seen, evaluate(zip(outputs(values), outputs(values + 0.1), strict=True), None))
    assert seen.findings == []


def test_a_target_that_this_machine_cannot_show_is_noted(net, tmp_path):
    from qm.target import host

    other = "x86-vnni" if host().pair_saturates else "x86-avx2"
    report = qm.quantize(net, ["toy.round"], target=other, to=tmp_path / "out.toy")
    (finding,) = [f for f in report.findings if f.check == "target"]
    assert finding.level is Level.NOTE
    assert other in finding.seen


def test_data_that_look_like_raw_pixels_are_a_warning_with_a_way_out(net, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20, 16), dtype=np.uint8)
    report = qm.quantize(net, ["toy.round"], data=x, to=tmp_path / "out.toy")
    (finding,) = [f for f in report.findings if f.check == "data"]
    assert "look like raw pixels 0..255" in finding.seen
    assert "scale" in finding.next


def test_data_that_the_float_model_is_right_about_are_not_doubted(net, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20, 16), dtype=np.uint8)
    model = load(LoadJob(path=net))
    name = model.inputs()[0].name
    right = [next(iter(model.run({name: row[None].astype(np.float32)}).values())).argmax() for row in x]
    report = qm.quantize(net, ["toy.round"], data=(x, np.array(right)), to=tmp_path / "out.toy")
    assert not [f for f in report.findings if f.check == "data"]


def test_layers_are_seen_on_integer_kernels(net, tmp_path):
    report = qm.quantize(net, ["toy.round"], scheme="w8d8", to=tmp_path / "out.toy")
    assert [f.seen for f in report.findings if f.check == "kernels"] == ["3 of 3 layers were seen on integer kernels"]


def test_most_weights_left_in_float_by_a_rule_are_no_surprise(net, data, tmp_path):
    report = qm.quantize(net, ["toy.protect", "toy.round"], scheme="w4", data=data, to=tmp_path / "out.toy")
    (finding,) = [f for f in report.findings if f.check == "coverage"]
    assert finding.level is Level.OK


def test_outputs_are_matched_by_name_and_then_by_position():
    one, other = {"a": np.zeros(1), "b": np.ones(1)}, {"p": np.zeros(1), "q": np.ones(1)}
    assert list(matched(one, other)) == ["a", "b"]
    assert matched(one, {"b": np.ones(1), "a": np.zeros(1)})["b"] == 1


def test_a_label_beyond_the_models_classes_is_an_error():
    with pytest.raises(UsageError, match=r"label 12 does not fit the model's outputs: y \[1, 10\]"):
        predicted({"y": np.zeros((1, 10))}, 12)


def test_outputs_that_are_no_scores_have_no_prediction():
    assert predicted({"y": np.zeros((1, 4, 4, 2))}, None) is None
