"""A model may come from a function as well as from a file."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

import qm
import qm_toy
from qm import source
from qm.catalog import Catalog
from qm.errors import RouteError, UsageError
from qm.manager import Manager
from qm.report import Report, report_path

PLUGIN = """
    import hashlib

    from qm.plugin import Can, Field, Loader, LoadJob, Options, function, hookimpl
    from qm_toy.model import ToyModel
    from qm_toy.store import load as read

    class Told(Options):
        copies: int = Field(default=1, ge=1)

    class Made(ToyModel):
        def digest(self):
            return hashlib.sha256(repr([l.weight.values().tolist() for l in self.native]).encode()).hexdigest()

    def load(job):
        path = function.call(function.find(str(job.path)), str(job.path))
        job.notes.say(f"made {job.options.copies} of {path.name}")
        return Made(read(LoadJob(path=path)).native)

    @hookimpl
    def qm_cards():
        can = {Can.LAYERS, Can.RUN, Can.ACTIVATIONS, Can.SCHEMES}
        yield Loader(name="factory", summary="", impl=load, options=Told, suffixes={":"}, gives="toy", can=can)
"""


@pytest.fixture
def nets(publish, tmp_path, monkeypatch):
    """A plugin that takes functions, and the module ``toynets`` in the current folder with the function ``small``."""
    import sys

    publish("made", PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "toynets", raising=False)
    qm_toy.make(tmp_path / "hidden.toy")
    code = """
    from pathlib import Path

    def small():
        return Path(__file__).with_name("hidden.toy")
    """
    (tmp_path / "toynets.py").write_text(textwrap.dedent(code), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["nets:net", "a.b.nets:net", "nets:Zoo.small", "_n:_f"])
def test_a_module_and_a_function_are_told_from_a_path(name):
    assert source.is_function(Path(name))
    assert source.suffix(Path(name)) == ":"


@pytest.mark.parametrize("name", ["net.onnx", "nets:", ":net", "a/b:net", "nets:net.1", "9nets:net", "C:/net.onnx"])
def test_what_is_no_such_name_is_a_path(name):
    assert not source.is_function(Path(name))


def test_a_file_of_that_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nets:net").write_text("")
    assert not source.is_function(Path("nets:net"))


def test_files_made_of_a_function_are_called_after_it():
    assert source.stem(Path("a.b.nets:net")) == "net"
    assert source.stem(Path("folder/net.v2.onnx")) == "net.v2"


def test_a_function_leads_to_the_loader_that_takes_functions(nets):
    assert Catalog().loader(Path("toynets:small")).plugin == "made.factory"
    assert [layer.name for layer in qm.load("toynets:small").layers()] == ["first", "second", "head"]


def test_without_such_a_loader_the_function_is_named():
    with pytest.raises(UsageError, match="no installed plugin loads the function 'toynets:small'"):
        Catalog(Manager(block={"torch"})).loader(Path("toynets:small"))


def test_a_function_is_quantized_into_a_file_of_its_name(nets):
    report = qm.quantize("toynets:small", ["toy.round"], load={"copies": 2})
    assert report.artifact.path == "small.w8d8.toy"
    assert Path("small.w8d8.toy").is_file()
    assert report.decisions[0] == "made 2 of hidden.toy"


def test_the_report_knows_the_model_by_what_it_holds(nets):
    report = qm.quantize("toynets:small", ["toy.round"])
    model = qm.load("toynets:small")
    assert report.model.path == "toynets:small"
    assert (report.model.sha256, report.model.nbytes) == (model.digest(), model.nbytes())
    assert Report.read(report_path(Path("small.w8d8.toy"))).model == report.model


def test_the_command_in_the_report_has_the_options_of_the_loader(nets):
    report = qm.quantize("toynets:small", ["toy.round"], load={"copies": 2})
    assert report.command == "qm quantize toynets:small -ocopies=2 -p toy.round"
    assert "made.factory (copies=2)" in report.route[0]


def test_options_of_the_loader_are_checked_with_all_else(nets):
    with pytest.raises(RouteError) as caught:
        qm.quantize("toynets:small", ["toy.ruond"], load={"copies": 0, "colour": "red"})
    said = [p.message for p in caught.value.problems]
    assert "there is no method 'toy.ruond'" in said and "made.factory has no option 'colour'" in said


def test_a_planner_remembers_trials_of_a_function(nets):
    data = qm_toy.make_data(nets / "data.npz", samples=80)
    recipe = qm.plan("toynets:small", ["toy.protect", "toy.round"], data=data)
    assert {rule.layers for rule in recipe.rules} == {"first", "second", "head"}


def test_a_function_is_a_baseline_and_a_contender(nets):
    qm.quantize("toynets:small", ["toy.round"])
    report = qm.benchmark("small.w8d8.toy", baseline="toynets:small", time_s=2)
    assert report.baseline is not None and report.baseline.path == "toynets:small"
    assert report.speed is not None
    contest = qm.compare(["toynets:small", "small.w8d8.toy"], time_s=2)
    assert [entry.failed for entry in contest.entries] == [None, None]


def test_an_artifact_is_explained_against_a_function(nets):
    qm.quantize("toynets:small", ["toy.round"])
    explanation = qm.explain("small.w8d8.toy", "toynets:small", tries=False, times=False)
    assert not any("another file" in note for note in explanation.notes)
