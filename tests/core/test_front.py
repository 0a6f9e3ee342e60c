"""The Pareto front: who cannot be told from better stays on it."""

import pytest

from qm.contest import Entry
from qm.front import by_speed, front
from qm.measurement import Latency, Ratio
from qm.report import File, Outcomes, Quality

LATENCY = Latency(
    runtime="any", threads=1, cpu="any", latency_us=1, low_us=1, high_us=1, percentiles_us={}, rounds=3, blocks=30,
    runs=10, dropped=3, load_ms=1, peak_bytes=0, cpu_share=1, settled=True, stopped_by="time",
)  # fmt: skip


def speed(ratio, low, high, noise=0.01):
    return Ratio(
        before=LATENCY, after=LATENCY, ratio=ratio, low=low, high=high, over="blocks", noise_floor=noise, rounds=3,
        blocks=30, precision=0.02, time_s=60, stopped_by="time",
    )  # fmt: skip


def entry(name, nbytes, right, *, ratio=None, of=100):
    """A model that is right on the first so many of a hundred samples."""
    outcomes = Outcomes(
        index=tuple(range(of)), label=(1,) * of, before=(1,) * of, after=(1,) * right + (0,) * (of - right)
    )
    return Entry(
        name=name,
        file=File(path=name, format="toy", nbytes=nbytes, sha256=""),
        latency=LATENCY,
        speed=ratio,
        quality=Quality(n=of, sqnr_db=None, outcomes=outcomes),
    )


def test_a_model_that_is_worse_in_every_respect_is_off_the_front():
    first, second = entry("first", 100, 90), entry("second", 200, 50, ratio=speed(0.5, 0.4, 0.6))
    assert front([first, second], synthetic=False) == (
        {"first": None, "second": "first"},
        ("size", "speed", "accuracy"),
    )


@pytest.mark.parametrize(
    "second",
    [
        entry("second", 200, 89, ratio=speed(0.5, 0.4, 0.6)),
        entry("second", 200, 50, ratio=speed(0.99, 0.97, 1.01)),
        entry("second", 200, 50, ratio=speed(0.97, 0.96, 0.98, noise=0.1)),
        entry("second", 50, 50, ratio=speed(0.5, 0.4, 0.6)),
    ],
    ids=["accuracy cannot be told", "speed cannot be told", "below the noise floor", "smaller"],
)
def test_what_cannot_be_told_keeps_a_model_on_the_front(second):
    beaten, _ = front([entry("first", 100, 90), second], synthetic=False)
    assert beaten == {"first": None, "second": None}


def test_a_size_that_is_exactly_even_does_not_save_a_model():
    second = entry("second", 100, 50, ratio=speed(0.5, 0.4, 0.6))
    assert front([entry("first", 100, 90), second], synthetic=False)[0]["second"] == "first"


def test_identical_models_are_both_on_the_front():
    beaten, _ = front([entry("a", 100, 90), entry("b", 100, 90, ratio=speed(1, 0.99, 1.01))], synthetic=False)
    assert beaten == {"a": None, "b": None}


def test_models_that_are_both_timed_against_a_third_are_told_apart_where_their_intervals_are():
    fast, slow = entry("fast", 1, 1, ratio=speed(2.0, 1.9, 2.1)), entry("slow", 1, 1, ratio=speed(1.5, 1.4, 1.6))
    close = entry("close", 1, 1, ratio=speed(1.9, 1.8, 2.0))
    assert by_speed(fast, slow) == "better"
    assert by_speed(slow, fast) == by_speed(fast, close) == "cannot tell"


def test_accuracy_on_made_up_inputs_is_no_respect():
    second = entry("second", 200, 50, ratio=speed(0.5, 0.4, 0.6))
    assert front([entry("first", 100, 90), second], synthetic=True)[1] == ("size", "speed")
