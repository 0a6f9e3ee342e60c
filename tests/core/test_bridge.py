"""A model in a format that a method does not take is brought to one that it takes, where somebody can do that."""

from __future__ import annotations

import pytest

import qm
from qm.catalog import Catalog
from qm.errors import PluginError, RouteError
from qm.recipe import Recipe, Stage
from qm.route import find_route

CLAY = """
from pathlib import Path
import numpy as np
from qm.plugin import Artifact, Benchmark, Can, Exporter, Loader, Quantizer, hookimpl
import qm_toy
from qm_toy.model import ToyModel
from qm_toy.store import load as load_toy

class ClayModel(ToyModel):
    format = "clay"

CHANGE = {change}

def load(job):
    return remade(load_toy(job), ClayModel)

def remade(model, kind, factor=1.0):
    made = kind.__new__(kind)
    made.__dict__.update(model.__dict__)
    return made

def to_toy(job):
    from qm.plugin import ExportJob
    from qm_toy.store import save
    model = remade(job.model, ToyModel)
    if CHANGE:
        from qm_toy import make
        model = load_toy(type("J", (), dict(path=make(Path(job.path).with_name("other.toy"), seed=9)))())
    return save(ExportJob(model=model, path=job.path))

@hookimpl
def qm_cards():
    yield Loader(name="load", summary="s", impl=load, suffixes={{".clay"}}, gives="clay",
                 can={{Can.LAYERS, Can.RUN, Can.SCHEMES}})
    yield Exporter(name="fire", summary="s", impl=to_toy, takes={{"clay"}}, gives="toy", suffix=".toy",
                   float_only=True, requires={requires})
    yield Quantizer(name="press", summary="s", impl="no:where", takes={{"clay"}}, schemes={{"w8"}}, default="w8")
"""


@pytest.fixture
def clay(publish, net):
    """A toy model under a suffix of another plugin, whose exporter writes toy files."""

    def make(*, change: bool = False, requires: tuple[str, ...] = ()):
        publish("acme", CLAY.format(change=change, requires=requires))
        return net.rename(net.with_suffix(".clay"))

    return make


def route(source, method, **more):
    return find_route(source, Recipe(stages=(Stage(plugin=method),)), Catalog(), has_data=True, **{"to": None, **more})


def test_the_route_leads_over_what_converts(clay):
    found = route(clay(), "toy.round")
    assert found.bridge is not None
    assert (found.bridge.exporter.plugin, found.bridge.loader.plugin) == ("acme.fire", "toy.load")
    assert found.lines()[1] == "convert    to toy with acme.fire, load that with toy.load"
    assert found.to.name == "net.w8a8.toy"


def test_a_method_that_takes_the_format_itself_needs_no_bridge(net):
    assert route(net, "toy.round").bridge is None


def test_the_run_goes_over_the_bridge(clay, data, tmp_path):
    report = qm.quantize(clay(), ["toy.round"], data=data, to=tmp_path / "made.toy")
    assert report.accepted
    assert (report.model.format, report.artifact.format) == ("clay", "toy")


def test_what_is_written_on_the_way_is_taken_away(clay, data, tmp_path, monkeypatch):
    import gc
    import tempfile

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    qm.quantize(clay(), ["toy.round"], data=data, to=tmp_path / "made.toy")
    gc.collect()
    assert list(folder.iterdir()) == []


def test_a_converter_that_changes_the_model_is_caught(clay, data, tmp_path):
    with pytest.raises(PluginError, match="acme.fire.*does not answer as the model does"):
        qm.quantize(clay(change=True), ["toy.round"], data=data, to=tmp_path / "made.toy")


def test_a_converter_that_is_not_ready_says_what_to_install(clay):
    with pytest.raises(RouteError, match="acme.fire needs no-such-framework"):
        route(clay(requires=("no-such-framework",)), "toy.round")


def test_a_converter_of_float_models_ends_no_route(clay):
    source = clay()
    with pytest.raises(RouteError, match="(?s)acme.fire writes float models only.*toy.round"):
        route(source, "acme.press", to=source.with_suffix(".toy"))
