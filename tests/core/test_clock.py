"""The clock on real child processes. Times are never asserted; how they are taken and put together is."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from qm.clock import Grain, compare, measure, noise_floor
from qm.errors import PluginError
from qm.measurement import Bounds, Latency, Ratio, duration, least_samples
from qm.types import Artifact
from qm.worker import Worker

MIME = Path(__file__).parent / "mime"
X = {"x": np.zeros(4, np.float32)}


@pytest.fixture
def mime(tmp_path, monkeypatch):
    """A way to open a model that does what its text says, by a plugin installed for the test alone."""
    info = tmp_path / "mime-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mime\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qm.v1]\nmime = qm_mime\n")
    monkeypatch.syspath_prepend(str(MIME))
    monkeypatch.syspath_prepend(str(tmp_path))

    def mime(deed):
        path = tmp_path / f"{deed.replace(' ', '-')}.mime"
        path.write_text(deed)
        return partial(Worker, Artifact(path=path, format="mime"), benchmark="mime.run")

    return mime


def latency(us=100.0, **changed):
    values = {
        "runtime": "mime 1.0, 1 thread",
        "threads": 1,
        "cpu": "any",
        "latency_us": us,
        "low_us": us,
        "high_us": us,
        "percentiles_us": {},
        "rounds": 3,
        "blocks": 30,
        "runs": 10,
        "dropped": 3,
        "load_ms": 1.0,
        "peak_bytes": 0,
        "cpu_share": 1.0,
        "settled": True,
        "stopped_by": "time",
    }
    return Latency(**{**values, **changed})


def ratio(estimate, low, high, *, noise=0.01, stopped_by="time", cpu=None, cpu_share=1.0):
    return Ratio(
        before=latency(100.0 * estimate, cpu_share=cpu_share),
        after=latency(),
        ratio=estimate,
        low=low,
        high=high,
        over="blocks",
        cpu=cpu,
        noise_floor=noise,
        rounds=3,
        blocks=30,
        precision=0.02,
        time_s=60.0,
        stopped_by=stopped_by,
    )


def test_faster_is_said_with_its_interval_and_its_circumstances():
    assert ratio(1.24, 1.19, 1.30, noise=0.04).sentence() == (
        "1.24x faster (95 % interval 1.19 to 1.30, hot, 1 thread, 3 processes x 10 blocks, mime 1.0; "
        "A/A noise floor ±4.0 %)"
    )


def test_slower_is_said_the_other_way_round():
    assert ratio(0.5, 0.4, 0.8).sentence().startswith("2.00x slower (95 % interval 1.25 to 2.50")


def test_a_difference_below_the_noise_floor_is_not_told():
    said = ratio(1.02, 1.01, 1.03, noise=0.04).sentence()
    assert said.startswith("cannot tell: difference 2.0 % is below the noise floor 4.0 %")
    assert said.endswith("next: add --time 941s")


def test_an_interval_that_holds_1_is_not_told():
    said = ratio(1.02, 0.99, 1.05).sentence()
    assert said.startswith("cannot tell: 1.02x the speed, and the 95 % interval 0.99 to 1.05 holds 1")


def test_a_comparison_that_is_precise_enough_asks_for_more_precision_not_more_time():
    assert ratio(1.001, 0.99, 1.01, stopped_by="precision").sentence().endswith("next: add --precision 1%")


def test_a_busy_machine_is_told_with_the_ratio_of_processor_times():
    said = ratio(1.02, 0.9, 1.2, cpu=Bounds(ratio=1.1, low=1.09, high=1.12), cpu_share=0.4).sentence()
    assert "the machine is busy, by processor time 1.10x the speed (1.09 to 1.12)" in said


def test_a_warm_up_that_never_settled_is_told():
    assert "had not settled" in latency(settled=False).sentence()


@pytest.mark.parametrize(
    ("us", "text"),
    [(1.012, "1.01 µs"), (99.96, "100.0 µs"), (999.6, "1.00 ms"), (12_345.0, "12.3 ms"), (2e6, "2.00 s")],
)
def test_durations_have_the_unit_that_suits_them(us, text):
    assert duration(us) == text


@pytest.mark.parametrize(("percentile", "n"), [(0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299), (0.999, 2995)])
def test_a_percentile_needs_so_many_samples(percentile, n):
    assert least_samples(percentile) == n


def test_fast_runs_come_in_blocks_long_enough_for_the_clock():
    assert Grain.fitting(10e-6, 60) == Grain(2000, 3)
    assert Grain.fitting(5e-3, 60) == Grain(10, 3)


def test_slow_runs_come_in_smaller_blocks_rather_than_never():
    grain = Grain.fitting(1.0, 30)
    assert grain.runs + grain.drop <= 5 and grain.runs >= 1 and grain.drop >= 1


def test_a_comparison_takes_three_rounds_of_fresh_processes_even_without_time(mime):
    opened = []

    def counted(deed):
        opened.append(worker := mime(deed)())
        return worker

    found = compare(
        partial(counted, "spin 100"), partial(counted, "spin 200"), X, time_s=0.0, precision=1e-9, noise=0.1
    )
    assert (found.rounds, len(opened), found.stopped_by) == (3, 6, "time")
    assert found.blocks >= 6


def test_a_comparison_stops_when_the_interval_is_narrow_enough(mime):
    found = compare(mime("spin 1000"), mime("spin 1000"), X, time_s=5.0, precision=5.0, noise=0.0)
    assert (found.stopped_by, found.rounds) == ("precision", 3)
    assert math.log(found.high / found.low) / 2 <= math.log1p(5.0)


def test_every_process_is_closed_when_one_crashes(mime):
    opened = []

    def counted(deed):
        opened.append(worker := mime(deed)())
        return worker

    with pytest.raises(PluginError, match="died of SIGSEGV"):
        compare(partial(counted, "spin 10"), partial(counted, "crash"), X, time_s=1.0, noise=0.0)
    assert all(worker._process.poll() is not None for worker in opened)


def test_a_report_of_a_comparison_reads_back(mime):
    found = compare(mime("spin 1000"), mime("spin 2000"), X, time_s=1.0)
    assert Ratio.model_validate(json.loads(found.model_dump_json())) == found


def test_the_noise_floor_is_a_positive_share(mime):
    assert 0 < noise_floor(mime("spin 20000"), X, time_s=1.0) < math.inf


def test_processor_times_are_not_set_against_each_other_for_more_than_one_thread(mime):
    two = partial(mime("spin 1000"), threads=2)
    assert compare(two, two, X, time_s=0.0, noise=0.0).cpu is None


def test_one_artifact_is_measured_alone(mime):
    with mime("spin 1000")() as worker:
        found = measure(worker, X, time_s=0.5)
    assert found.low_us <= found.latency_us <= found.high_us
    assert (found.runtime, found.rounds) == ("mime 1.0, 1 thread", 1)


def test_only_percentiles_that_the_runs_can_carry_are_given(mime):
    with mime("double")() as worker:
        found = measure(worker, X, time_s=0.0)
    # Without time there are two blocks of two runs or so; with it, thousands.
    assert "p99.9" not in found.percentiles_us
    with mime("double")() as worker:
        found = measure(worker, X, time_s=1.0)
    assert list(found.percentiles_us) == ["p10", "p50", "p90", "p95", "p99", "p99.9"]
