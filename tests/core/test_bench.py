"""One artifact, alone or against a baseline, and what of it is reported."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

import qm
from qm import clock
from qm.bench import BenchmarkReport
from qm.contender import gzip_nbytes
from qm.data import open_data
from qm.errors import UsageError
from qm.eviction import Eviction, last_level_bytes
from qm.types import Artifact
from qm.worker import Worker


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """One round and few blocks: what is tested here is not how well things are timed."""
    monkeypatch.setattr(clock, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(clock, "LEAST_TIMING_S", 0.0)


@pytest.fixture
def small(net, data, tmp_path):
    """The toy model in 8 bits, made with 30 of the samples."""
    qm.quantize(net, ["toy.round"], data=data, samples=30, to=tmp_path / "small.toy")
    return tmp_path / "small.toy"


def test_an_artifact_is_held_against_its_baseline(net, small, data):
    report = qm.benchmark(small, baseline=net, data=data, time_s=0.1)
    assert report.artifact.path == str(small) and report.baseline.path == str(net)
    assert report.gzip_nbytes < report.baseline_gzip_nbytes
    assert report.speed.before.load_ms > 0 and report.speed.after.peak_bytes >= 0
    assert report.quality.accuracy.margin == 0.01 and report.quality.accuracy.answer is not None
    assert report.samples == len(report.quality.outcomes.index) == 50
    assert report.latency is None and report.accuracy is None
    assert report.cache == "hot" and report.cpu
    assert BenchmarkReport.model_validate(json.loads(report.json_text())) == report


def test_an_artifact_alone_has_a_latency_and_an_accuracy_with_its_interval(net, data):
    report = qm.benchmark(net, data=data, time_s=0.1)
    assert report.latency is not None and report.speed is None and report.quality is None
    assert report.accuracy.share == 1.0 and report.accuracy.low < 1.0
    assert "without a --baseline" in report.notes[-1]


def test_without_data_inputs_are_made_up_and_it_is_said(net):
    report = qm.benchmark(net, baseline=net, time_s=0.1)
    assert report.samples == 0 and report.quality.synthetic
    assert any("made-up inputs" in note for note in report.notes)


def test_what_fails_is_raised(net, tmp_path):
    (tmp_path / "broken.toy").write_bytes(b"not a model")
    with pytest.raises(UsageError, match=r"broken\.toy"):
        qm.benchmark(tmp_path / "broken.toy", baseline=net, time_s=0.1)


def test_a_metric_of_the_users_own_is_reported_of_both(net, small, data):
    def top(outputs, label):
        return outputs["y"].argmax() == label

    report = qm.benchmark(small, baseline=net, data=data, metric=top, max_drop=0.9, time_s=0.1)
    assert (report.metric.name, report.metric.before, report.metric.answer) == ("top", 1.0, "not worse")
    assert len(report.quality.outcomes.metric_after) == 50


def test_data_of_which_nothing_is_left_to_judge_on_are_refused(net, small, data, tmp_path):
    used = json.loads(Path(f"{small}.report.json").read_text())
    inputs = qm.load(net).inputs()
    used["data"]["seen"] = list(open_data(str(data), inputs).digests)
    Path(f"{small}.report.json").write_text(json.dumps(used))
    with pytest.raises(UsageError, match="every sample of the data was used"):
        qm.benchmark(small, baseline=net, data=data, time_s=0.1)


def test_the_gzip_size_is_that_of_the_files_compressed(tmp_path):
    content = b"a" * 100_000
    (tmp_path / "m.toy").write_bytes(content)
    found = gzip_nbytes(Artifact(path=tmp_path / "m.toy", format="toy"))
    squeezed = zlib.compressobj(wbits=31)
    assert found == len(squeezed.compress(content) + squeezed.flush()) < 1000


def test_the_gzip_size_counts_external_data(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "m.onnx").write_bytes(b"a")
    (tmp_path / "m.onnx.data").write_bytes(rng.bytes(5000))
    assert gzip_nbytes(Artifact(path=tmp_path / "m.onnx", format="onnx")) > 5000


def test_a_cold_cache_is_asked_for_and_said(net):
    report = qm.benchmark(net, cache="cold", time_s=0.1)
    assert report.cache == report.latency.cache == "cold"
    assert "cold, 1 thread" in report.latency.sentence()


def test_the_time_to_empty_the_caches_is_on_neither_clock(net):
    with Worker(Artifact(path=net, format="toy"), benchmark="toy.run", cache="cold") as worker:
        timed = worker.timed({"x": np.zeros((1, 16), np.float32)}, runs=10, drop=1)
        assert worker.evict_s > 0
        # The buffer takes milliseconds to write, a run of the toy takes microseconds.
        assert np.median(timed.seconds) < worker.evict_s


def test_the_buffer_that_empties_the_caches_is_not_the_models_memory(net):
    with Worker(Artifact(path=net, format="toy"), benchmark="toy.run", cache="cold") as worker:
        worker.timed({"x": np.zeros((1, 16), np.float32)}, runs=2, drop=0)
        assert worker.peak_bytes() < Eviction().nbytes


def test_the_buffer_is_twice_the_largest_cache_that_the_system_tells_of(tmp_path):
    for level, text in enumerate(["32K", "1M", "garbage", "48K"]):
        (tmp_path / f"index{level}").mkdir()
        (tmp_path / f"index{level}" / "size").write_text(text + "\n")
    assert last_level_bytes(tmp_path) == 1 << 20
    assert last_level_bytes(tmp_path / "nowhere") > 0
