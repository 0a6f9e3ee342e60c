"""What static quantization hands over for the report."""

from __future__ import annotations

import pytest

import qm
from qm.numerics import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_the_report_holds_the_worst_activations_with_their_ranges(digits, tmp_path, method):
    model, data = digits
    report = qm.quantize(model, [("onnx.ptq", {"ranges": method})], data=data, to=tmp_path / "out.onnx")
    assert report.activations
    for seen in report.activations:
        assert seen.low <= 0 <= seen.high
        assert len(seen.edges) == len(seen.counts) + 1
        assert sum(seen.counts) == pytest.approx(1, abs=1e-3)
    worst = [seen.sqnr_db for seen in report.activations]
    assert worst == sorted(worst)
    if method == "minmax":
        assert {seen.clipped for seen in report.activations} == {0}


@pytest.fixture
def digits(tmp_path):
    from importlib import resources

    for name in ("digits.onnx", "digits.npz"):
        (tmp_path / name).write_bytes(resources.files("qm.demo").joinpath(name).read_bytes())
    return tmp_path / "digits.onnx", tmp_path / "digits.npz"
