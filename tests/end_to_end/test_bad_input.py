"""What a user gets wrong: one sentence, a hint, exit code 2, no traceback, no file left behind."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

import qm_toy


def refused(outcome, *words):
    outcome.check_refused(*words)


QUANTIZE = ("quantize", "net.toy", "-p", "toy.round")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("quantize", "no.toy", "-p", "toy.round"), "'no.toy' does not exist"),
        (("quantize", ".", "-p", "toy.round"), "no installed plugin loads the folder"),
        (("quantize", "data.npz", "-p", "toy.round"), "no installed plugin loads the file 'data.npz'"),
        (("quantize", "net.toy"), "no method is named"),
        (("quantize", "net.toy", "-p", "toy.ruond"), "Did you mean 'toy.round'"),
        (("quantize", "net.toy", "-p", "try.round"), "Did you mean 'toy.round'"),
        (("quantize", "net.toy", "-p", "toy.save"), "is an exporter, not a method"),
        (("quantize", "net.toy", "-p", "toy.protect"), "plans, and nothing quantizes after it"),
        (
            ("quantize", "net.toy", "-p", "toy.round", "-p", "toy.protect", "--data", "data.npz"),
            "stands after toy.round",
        ),
        (("quantize", "net.toy", "-p", "toy.protect", "-p", "toy.round"), "needs samples to try plans on"),
        ((*QUANTIZE, "--scheme", "w3"), "scheme 'w3' is not offered by toy.round"),
        ((*QUANTIZE, "--scheme", "wx"), "'wx' is not a scheme"),
        ((*QUANTIZE, "--scheme", "w8a8"), "needs samples to calibrate w8a8"),
        ((*QUANTIZE, "-o", "colour=red"), "has no option 'colour'"),
        ((*QUANTIZE, "-o", "colour"), "is not of the form NAME=VALUE"),
        (("quantize", "net.toy", "-o", "a=1", "-p", "toy.round"), "toy.load has no option 'a'"),
        (("quantize", "net.toy", "-o", "a=1", "-p", "toy.round"), "An option of a method stands after its -p."),
        (("inspect", "net.toy", "-o", "a=1"), "toy.load has no option 'a'"),
        ((*QUANTIZE, "--target", "x86-vni"), "Did you mean 'x86-vnni'"),
        ((*QUANTIZE, "--recipe", "no.toml"), "recipe 'no.toml' does not exist"),
        ((*QUANTIZE, "--seed", "-3"), "'seed'"),
        ((*QUANTIZE, "--samples", "0"), "'samples'"),
        ((*QUANTIZE, "--to", "nowhere/net.toy"), "the folder 'nowhere' does not exist"),
        ((*QUANTIZE, "--to", "net.toy"), "is the model itself"),
        ((*QUANTIZE, "--to", "data.npz"), "cannot be written as '.npz'"),
        ((*QUANTIZE, "--data", "no.npz"), "data set 'no.npz' does not exist"),
        ((*QUANTIZE, "--data", "data.npz", "--samples", "40"), "leave none of 40 to judge"),
        (("quantze", "net.toy"), "Did you mean 'quantize'"),
        (("benchmark", "no.toy"), "'no.toy' does not exist"),
        (("inspect", "no.toy"), "'no.toy' does not exist"),
        (("show", "toy.ruond"), "Did you mean 'toy.round'"),
        (("plan", "net.toy", "-p", "toy.round", "--to", "data.npz"), "'data.npz' exists"),
    ],
)
def test_a_wrong_request_is_refused(cli, words, said):
    refused(cli(*words), said)


def test_every_problem_is_listed_at_once(cli):
    outcome = cli("quantize", "no.toy", "-p", "toy.ruond", "--target", "mars")
    assert outcome.code == 2
    assert all(word in outcome.err for word in ("3 problems", "no.toy", "toy.ruond", "mars"))


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "random": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "text": lambda path: path.write_text("this is not a model\n"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("command", ["quantize", "inspect", "benchmark"])
def test_a_broken_model_is_refused(cli, kind, command):
    BROKEN[kind](Path("net.toy"))
    refused(cli(command, "net.toy", *(("-p", "toy.round") if command == "quantize" else ())), "net.toy")


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_data_set_is_refused(cli, kind):
    BROKEN[kind](Path("data.npz"))
    refused(cli(*QUANTIZE, "--data", "data.npz"), "data.npz")


def x(n=40):
    return np.random.default_rng(0).standard_normal((n, 16)).astype(np.float32)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": x()[:, :9]}, "9"),
        ({"x": np.where(np.arange(16) == 3, np.nan, x())}, "NaN"),
        ({"x": np.where(np.arange(16) == 3, np.inf, x())}, "inf"),
        ({"x": x(0)}, "no samples"),
        ({"x": x(1)}, "1 sample"),
        ({"x": x(), "y": np.zeros(39, np.int64)}, "39"),
        ({"x": x().astype(str)}, "x"),
        ({"a": x(), "b": x()}, "a"),
    ],
)
def test_samples_that_do_not_fit_are_refused(cli, arrays, said):
    np.savez("odd.npz", **arrays)
    outcome = cli(*QUANTIZE, "--data", "odd.npz")
    refused(outcome, said)


def test_nothing_is_overwritten_without_force(cli):
    assert cli(*QUANTIZE, "--to", "out.toy").code == 0
    before = Path("out.toy").read_bytes()
    refused(cli(*QUANTIZE, "--scheme", "w4", "--to", "out.toy"), "'out.toy' exists", "--force")
    assert Path("out.toy").read_bytes() == before
    assert cli(*QUANTIZE, "--scheme", "w4", "--to", "out.toy", "--force").code == 0
    assert Path("out.toy").read_bytes() != before


def test_a_quantized_model_is_not_quantized_again(cli):
    cli(*QUANTIZE, "--to", "out.toy")
    refused(cli("quantize", "out.toy", "-p", "toy.round"), "is quantized already", "Start from the float model")


def test_a_rule_that_matches_nothing_is_an_error(cli):
    Path("r.toml").write_text('stages = [{plugin = "toy.round"}]\nrules = [{layers = "conv*", scheme = "w8"}]\n')
    refused(cli("quantize", "net.toy", "--recipe", "r.toml"), "rule 'conv*' matches no layer", "first, second, head")


def test_tied_layers_that_disagree_are_an_error(cli):
    qm_toy.make("tied.toy", tied=True)
    Path("r.toml").write_text('stages = [{plugin = "toy.round"}]\nrules = [{layers = "third", scheme = "w4"}]\n')
    refused(cli("quantize", "tied.toy", "--recipe", "r.toml"), "'second' and 'third' share their weights")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_forbids_writing_is_named(cli):
    Path("locked").mkdir(mode=0o500)
    refused(cli(*QUANTIZE, "--to", "locked/out.toy"), "cannot be written")


def test_a_zip_that_is_no_model_is_refused(cli):
    with zipfile.ZipFile("net.toy", "w") as archive:
        archive.writestr("hello.txt", "hello")
    refused(cli(*QUANTIZE), "net.toy")


PLUGIN = """
from qm.plugin import Quantizer, hookimpl

def impl(job):
    {body}

@hookimpl
def qm_cards():
    yield Quantizer(name="q", summary="s", impl=impl, takes={{"toy"}}, schemes={{"w8"}}, default="w8")
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('boom')", "plugin 'acme.q': quantize failed: ValueError: boom"),
        ("return 'a model'", "plugin 'acme.q': quantize returned str, not Model"),
        ("return None", "plugin 'acme.q': quantize returned NoneType, not Model"),
        ("return job.model", "plugin 'acme.q': it gave back the model it was handed"),
    ],
)
def test_a_plugin_that_fails_is_blamed_by_name(cli, publish, body, said):
    publish("acme", PLUGIN.format(body=body))
    outcome = cli("quantize", "net.toy", "-p", "acme.q")
    assert outcome.code == 4
    assert said in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.left == set()


def test_a_plugin_that_cannot_be_imported_hurts_only_those_who_call_it(cli, publish):
    publish("acme", "import no_such_framework")
    outcome = cli("quantize", "net.toy", "-p", "acme.q")
    assert outcome.code == 4
    assert "plugin 'acme': importing" in outcome.err
    assert cli(*QUANTIZE).code == 0


def test_a_traceback_is_shown_when_asked_for(cli, publish):
    publish("acme", PLUGIN.format(body="raise ValueError('boom')"))
    assert "Traceback" in cli("quantize", "net.toy", "-p", "acme.q", "--traceback").err
