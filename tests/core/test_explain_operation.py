"""Two profiles lined up, and what they say of slowness."""

from __future__ import annotations

import pytest

from qm.diagnosis.cause import lost_float
from qm.diagnosis.operation import is_border, lined_up
from qm.diagnosis.slowness import slower
from qm.plugin import OpTime, Scheme

BEFORE = [
    OpTime(name="a", kind="Conv", latency_us=100, layer="a", integer=False),
    OpTime(name="b", kind="Conv", latency_us=50, layer="b", integer=False),
]
AFTER = [
    OpTime(name="q", kind="QuantizeLinear", latency_us=30),
    OpTime(name="a", kind="QLinearConv", latency_us=80, layer="a", integer=True),
    OpTime(name="d", kind="DequantizeLinear", latency_us=10),
    OpTime(name="b", kind="Conv", latency_us=60, layer="b", integer=False),
    OpTime(name="p", kind="Softmax", latency_us=20),
]
INT8 = {name: Scheme.parse("w8a8") for name in "ab"}


@pytest.mark.parametrize("kind", ["QuantizeLinear", "DequantizeLinear", "QUANTIZE", "dynamic_quantize_per_tensor"])
def test_operations_that_only_quantize_or_dequantize_are_borders(kind: str) -> None:
    assert is_border(OpTime(name="x", kind=kind, latency_us=1))


@pytest.mark.parametrize(("kind", "integer"), [("DynamicQuantizeMatMul", True), ("Conv", False), ("Add", None)])
def test_operations_that_compute_are_not(kind, integer):
    assert not is_border(OpTime(name="x", kind=kind, latency_us=1, integer=integer))


def test_times_are_lined_up_by_layer() -> None:
    rows = {row.layer: (row.before_us, row.after_us, row.integer) for row in lined_up(BEFORE, AFTER).layers}
    assert rows == {"a": (100, 80, True), "b": (50, 60, False)}


def test_the_share_of_borders_is_of_all_the_time_of_the_artifact() -> None:
    timing = lined_up(BEFORE, AFTER)
    assert (timing.borders, timing.border_us, timing.border_share) == (2, 40, 0.2)


def test_a_quantized_layer_on_a_float_kernel_is_named() -> None:
    found = slower(lined_up(BEFORE, AFTER), None, INT8, saturates=False)
    named = next(cause for cause in found if cause.name == "float kernels")
    assert named.layers == ("b",)
    assert "50 us before, 60 us after" in named.sentence


def test_causes_of_slowness_stand_by_the_time_that_they_take() -> None:
    names = [cause.name for cause in slower(lined_up(BEFORE, AFTER), None, INT8, saturates=True)]
    assert names == ["integer kernels", "float kernels", "borders"]


def test_a_layer_that_was_meant_to_stay_in_float_is_no_cause() -> None:
    found = slower(lined_up(BEFORE, AFTER), None, {"a": INT8["a"], "b": Scheme()}, saturates=False)
    assert "float kernels" not in [cause.name for cause in found]


def test_weights_that_are_unpacked_at_each_run_are_a_cause() -> None:
    after = [OpTime(name=n, kind="Dense", latency_us=200, layer=n, integer=False) for n in "ab"]
    found = slower(lined_up(BEFORE, after), None, {name: Scheme.parse("w4") for name in "ab"}, saturates=False)
    assert [cause.name for cause in found] == ["unpacked weights"]


def test_a_float_layer_of_which_the_runtime_makes_integers_is_named() -> None:
    found = lost_float(lined_up(BEFORE, AFTER), {"a": Scheme(), "b": Scheme()})
    assert found is not None and found.layers == ("a",)


def test_layers_that_are_what_they_should_be_lose_nothing() -> None:
    assert lost_float(lined_up(BEFORE, AFTER), {"a": INT8["a"], "b": Scheme()}) is None


def test_nothing_is_said_without_a_profile() -> None:
    assert slower(None, None, INT8, saturates=False) == ()
