"""Plugins are found by metadata, loaded one at a time, and blamed by name."""

from __future__ import annotations

import pytest

from qm.catalog import Catalog
from qm.errors import PluginError, UsageError
from qm.manager import Manager
from qm.plugin import LoadJob, Model, Quantizer, Recipe, Step

GOOD = """
from qm.plugin import Quantizer, hookimpl

@hookimpl
def qm_cards():
    yield Quantizer(name="half", summary="halves", impl="nowhere:half", takes={"toy"}, schemes={"w4"}, default="w4")
"""


def test_an_installed_plugin_is_listed_without_being_imported(publish):
    publish("acme", "raise RuntimeError('imported')", version="2.1")
    assert [str(o) for o in Manager().offers() if o.name == "acme"] == ["qm-acme 2.1"]


def test_a_broken_plugin_does_not_break_its_neighbours(publish):
    publish("bad", "import no_such_framework")
    publish("acme", GOOD)
    catalog = Catalog()
    assert "acme.half" in [f.plugin for f in catalog.all(Quantizer)]
    assert "bad" in catalog.broken


def test_a_plugin_that_cannot_be_imported_is_blamed_by_name_when_it_is_called(publish):
    publish("bad", "import no_such_framework")
    with pytest.raises(PluginError, match="plugin 'bad': importing .* failed: ModuleNotFoundError"):
        Manager().cards("bad")


def test_two_distributions_that_claim_one_name_are_both_named(publish):
    publish("acme", GOOD)
    publish("acme", GOOD, distribution="other-acme", version="3.0")
    with pytest.raises(
        UsageError, match=r"claimed by (qm-acme 1.0 and by other-acme 3.0|other-acme 3.0 and by qm-acme)"
    ):
        Manager().cards("acme")


def test_a_clash_hurts_only_those_who_call_it(publish):
    publish("acme", GOOD)
    publish("acme", GOOD, distribution="other-acme")
    publish("good", GOOD)
    assert Catalog().find("good.half", Quantizer).plugin == "good.half"


def test_a_misspelt_hook_is_an_error_that_names_the_plugin(publish):
    publish("acme", "from qm.plugin import hookimpl\n@hookimpl\ndef qm_card():\n    return []\n")
    with pytest.raises(PluginError, match="'acme'.*qm_card"):
        Manager().cards("acme")


def test_something_that_is_no_card_is_refused(publish):
    publish("acme", "from qm.plugin import hookimpl\n@hookimpl\ndef qm_cards():\n    return ['half']\n")
    with pytest.raises(PluginError, match="gave str, which is not a card"):
        Manager().cards("acme")


def test_two_cards_of_one_name_are_refused(publish):
    publish("acme", GOOD.replace("yield", "for _ in range(2): yield"))
    with pytest.raises(PluginError, match="two quantizers named 'half'"):
        Manager().cards("acme")


def test_a_blocked_plugin_is_as_good_as_not_installed(publish, monkeypatch):
    publish("acme", GOOD)
    monkeypatch.setenv("QM_BLOCK", "acme, other")
    assert "acme" not in Manager().names()


def test_a_step_that_raises_carries_the_plugins_name(tmp_path):
    step = Step("acme.half", LoadJob(path=tmp_path), lambda: 1 / 0)
    with pytest.raises(PluginError, match=r"plugin 'acme.half': load failed: ZeroDivisionError: division by zero"):
        Manager().perform("load", step, Model)


def test_a_step_that_returns_the_wrong_type_is_the_plugins_fault(tmp_path):
    step = Step("acme.half", LoadJob(path=tmp_path), lambda: "a model")
    with pytest.raises(PluginError, match="'acme.half': load returned str, not Model"):
        Manager().perform("load", step, Model)


def test_a_plugin_that_wraps_a_verb_sees_every_step_of_it(publish, monkeypatch):
    publish(
        "watch",
        """
        from qm.plugin import hookimpl
        seen = []

        @hookimpl(wrapper=True)
        def qm_plan(step):
            seen.append(step.plugin)
            return (yield)
        """,
    )
    monkeypatch.setenv("QM_WITH", "watch")
    Manager().perform("plan", Step("a.b", None, Recipe), Recipe)
    import plugin_qm_watch

    assert plugin_qm_watch.seen == ["a.b"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onnx.pqt", "there is no method 'onnx.pqt'.*Did you mean 'onnx.ptq'"),
        ("onxn.ptq", "there is no method 'onxn.ptq'.*Did you mean 'onnx.ptq'"),
        ("onnx", "'onnx' names a plugin, not one of its methods.*Name one of: onnx.ptq"),
        ("ptq", "'ptq' names a plugin, not one of its methods.*Did you mean 'onnx.ptq'"),
        ("onnx.load", "onnx.load is a loader, not a method"),
    ],
)
def test_an_unknown_method_is_met_with_a_guess(name, message):
    with pytest.raises(UsageError, match="(?s)" + message):
        Catalog().method(name)


def test_an_unknown_option_is_met_with_a_guess():
    with pytest.raises(UsageError, match="(?s)onnx.ptq has no option 'range'.*Did you mean 'ranges'"):
        Catalog().find("onnx.ptq", Quantizer).options({"range": "mse"})


def test_a_wrong_option_value_is_named():
    with pytest.raises(UsageError, match="onnx.ptq option 'ranges': .*, not 'magic'"):
        Catalog().find("onnx.ptq", Quantizer).options({"ranges": "magic"})
