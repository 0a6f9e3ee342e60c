import json

import pytest

import qm_toy
from qm.cli.inspect import inspect

MUTE = """
from qm.plugin import Loader, Model, hookimpl

class Mute(Model):
    format = "mute"
    native = None
    def inputs(self): return []
    def outputs(self): return []
    def nbytes(self): return 1

@hookimpl
def qm_cards():
    yield Loader(name="load", summary="s", impl=lambda job: Mute(), suffixes={".mute"}, gives="mute")
"""


@pytest.fixture
def net(site):
    return qm_toy.make(site / "net.toy")


def test_every_layer_is_listed_with_kind_weights_macs_and_scheme(qm, net):
    lines = [line.split() for line in qm("inspect", net).stdout.splitlines()]
    assert ["first", "Dense", "1,024", "1,024", "float"] in lines
    assert ["3", "layers", "5,760", "5,760"] in lines
    assert ["3", "in", "float"] in lines


def test_inputs_and_outputs_are_told(qm, net):
    text = qm("inspect", net).stdout
    assert "input   x float32 [?, 16]" in text
    assert "output  y float32 [?, 10]" in text


def test_the_json_tells_the_same(qm, net):
    told = json.loads(qm("inspect", net, "--json").stdout)
    assert [layer["name"] for layer in told["layers"]] == ["first", "second", "head"]
    assert told["totals"] == {"weights": 5760, "macs": 5760}
    assert told["schemes"] == {"float": 3}
    assert told["inputs"] == [{"name": "x", "shape": [None, 16], "dtype": "float32"}]
    assert told["nbytes"] == net.stat().st_size


def test_the_scheme_is_that_of_the_file_not_of_its_name(qm, net):
    made = net.with_name("net.float.toy")
    assert qm("quantize", net, "-p", "toy.round", "--scheme", "w4", "--to", made).returncode == 0
    assert json.loads(qm("inspect", made, "--json").stdout)["schemes"] == {"w4": 3}


def test_weights_that_layers_share_count_once(site):
    tied = inspect(qm_toy.make(site / "tied.toy", tied=True))
    assert tied.totals()["weights"] < sum(layer.weights for layer in tied.layers)


def test_a_file_that_is_not_there_is_one_sentence(qm):
    result = qm("inspect", "nowhere.toy")
    assert result.returncode == 2
    assert result.stderr.startswith("error: model 'nowhere.toy' does not exist\n")


def test_a_suffix_that_no_plugin_knows_is_met_with_those_known(qm, site):
    (site / "net.xyz").write_text("?")
    result = qm("inspect", "net.xyz")
    assert result.returncode == 2
    assert ".toy" in result.stderr


def test_a_framework_that_lists_no_layers_is_said_to(qm, install, site):
    install("mute", plugins={"mute": "qm_mute"}, files={"qm_mute.py": MUTE})
    (site / "a.mute").write_text("1")
    result = qm("inspect", "a.mute")
    assert "mute.load does not list layers." in result.stdout
    assert result.returncode == 0
