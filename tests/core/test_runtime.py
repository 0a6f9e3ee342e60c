"""Which runtime a model is run by: the artifact's own where it is compared with one, or else its format's first."""

from __future__ import annotations

import pytest

import qm
from qm import clock

PLUGIN = """
from qm.plugin import Benchmark, Exporter, ExportJob, Loader, NotReady, hookimpl
from qm_toy.model import ToyModel
from qm_toy.session import ToySession
from qm_toy.store import load as load_toy, save

class ClayModel(ToyModel):
    format = "clay"

class Kiln(ToySession):
    runtime = "kiln 1.0"

def load(job):
    return remade(load_toy(job), ClayModel)

def remade(model, kind):
    made = kind.__new__(kind)
    made.__dict__.update(model.__dict__)
    return made

def to_toy(job):
    return save(ExportJob(model=remade(job.model, ToyModel), path=job.path))

def to_brick(job):
    made = to_toy(job)
    return type(made)(path=made.path, format="brick")

def run_brick(job):
    return Kiln(load_toy(job.artifact))

def cold():
    raise NotReady("the kiln is cold", hint="Heat it.")

@hookimpl
def qm_cards():
    yield Loader(name="load", summary="s", impl=load, suffixes={{".clay"}}, gives="clay")
    yield Exporter(name="burn", summary="s", impl=to_brick, takes={{"clay"}}, gives="brick", suffix=".brick", {burn})
    yield Exporter(name="fire", summary="s", impl=to_toy, takes={{"clay"}}, gives="toy", suffix=".toy", {fire})
    yield Benchmark(name="run-brick", summary="s", impl=run_brick, takes={{"brick"}})
"""


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """One round and few blocks: what is tested here is not how well things are timed."""
    monkeypatch.setattr(clock, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(clock, "LEAST_TIMING_S", 0.0)


@pytest.fixture
def clay(publish, net):
    """A model that can be run as .brick, which comes first, and as .toy; words for the cards of those who write it."""

    def make(*, burn="", fire=""):
        publish("acme", PLUGIN.format(burn=burn, fire=fire))
        place = net.with_suffix(".clay")
        place.write_bytes(net.read_bytes())
        return place

    return make


def test_a_baseline_is_run_by_the_runtime_of_the_artifact(clay, net, data):
    report = qm.benchmark(net, baseline=clay(), data=data, time_s=0.1)
    assert report.speed.before.runtime == report.speed.after.runtime
    assert report.speed.before.runtime.startswith("numpy")
    assert any(n.startswith("net.clay was exported to .toy for this, so that both run by numpy") for n in report.notes)


def test_a_baseline_that_cannot_be_had_there_is_run_by_its_own_and_it_is_said(clay, net, data):
    source = clay(fire="requires=('no-such-framework',)")
    report = qm.benchmark(net, baseline=source, data=data, time_s=0.1)
    assert report.speed.before.runtime == "kiln 1.0" and report.speed.after.runtime.startswith("numpy")
    assert any("different runtimes, kiln 1.0 and numpy" in n and "acme.fire needs no-such" in n for n in report.notes)


def test_a_baseline_that_nobody_writes_in_the_artifacts_format_is_run_by_its_own_and_it_is_said(clay, net, data):
    report = qm.benchmark(clay(), baseline=net, data=data, time_s=0.1)
    assert report.speed.before.runtime.startswith("numpy") and report.speed.after.runtime == "kiln 1.0"
    assert any(note.endswith("no installed plugin writes toy models as brick") for note in report.notes)


def test_models_that_are_compared_keep_their_own_runtimes(clay, net, data):
    contest = qm.compare([clay(), net], data=data, time_s=0.1)
    assert contest.entries[1].speed.before.runtime == "kiln 1.0"
    assert not any("runtime" in note for note in contest.notes)


def test_where_the_first_way_to_run_a_model_is_not_ready_the_next_is_taken(clay, data):
    report = qm.benchmark(clay(burn="ready=cold"), data=data, time_s=0.1)
    assert report.latency.runtime.startswith("numpy")


def test_where_no_way_to_run_a_model_is_ready_it_is_said(clay, data):
    with pytest.raises(qm.errors.UsageError, match="the kiln is cold"):
        qm.benchmark(clay(burn="ready=cold", fire="ready=cold"), data=data, time_s=0.1)
