"""A recipe worked out for one model."""

from __future__ import annotations

import pytest

from qm.catalog import Found
from qm.errors import UsageError
from qm.layout import left_out, merged, work_out
from qm.plugin import Layer, Options, Quantizer
from qm.recipe import Recipe, Rule
from qm.route import QuantizeLeg
from qm.scheme import Scheme

LAYERS = [
    Layer(name="conv", kind="Conv", weights=10),
    Layer(name="fc[0]", kind="MatMul", weights=20),
    Layer(name="fc[1]", kind="MatMul", weights=20, tied="shared"),
    Layer(name="embed", kind="Gather", weights=20, tied="shared"),
]


def leg(name: str, schemes: set[str], default: str, kinds: set[str] = frozenset()) -> QuantizeLeg:
    card = Quantizer(
        name=name, summary="", impl="no:where", takes={"x"}, schemes=schemes, default=default, layer_kinds=kinds
    )
    return QuantizeLeg(found=Found("acme", card), options=Options(), default=Scheme.parse(default))


ALL = leg("all", {"w8a8", "w4"}, "w8a8")
FC = leg("fc", {"w4g32"}, "w4g32", {"MatMul"})


def texts(plan):
    return {name: str(scheme) for name, scheme in plan.layers.items()}


def test_without_rules_every_layer_gets_the_default():
    (plan,) = work_out(Recipe(), LAYERS, [ALL])
    assert texts(plan) == dict.fromkeys(["conv", "fc[0]", "fc[1]", "embed"], "w8a8")


def test_a_later_rule_wins():
    rules = (Rule(layers="fc*", scheme="w4"), Rule.exactly("fc[0]", "float"))
    (plan,) = work_out(Recipe(rules=rules), LAYERS[:2], [ALL])
    assert texts(plan) == {"conv": "w8a8"}


def test_the_first_stage_that_quantizes_a_kind_gets_the_layer():
    fc, rest = work_out(Recipe(), LAYERS[:2], [FC, ALL])
    assert texts(fc) == {"fc[0]": "w4g32"}
    assert texts(rest) == {"conv": "w8a8"}
    assert texts(merged([fc, rest], LAYERS[:2])) == {"conv": "w8a8", "fc[0]": "w4g32"}


def test_tied_layers_that_defaults_alone_would_part_stay_in_float():
    (plan,) = work_out(Recipe(), LAYERS, [FC])
    assert texts(plan) == {"fc[0]": "w4g32"}


def test_tied_layers_that_a_rule_parts_are_an_error():
    with pytest.raises(UsageError, match=r"'fc\[1\]' and 'embed' share their weights, and are given w4 and w8a8"):
        work_out(Recipe(rules=(Rule.exactly("fc[1]", "w4"),)), LAYERS, [ALL])


def test_a_rule_that_matches_nothing_is_an_error():
    with pytest.raises(UsageError, match=r"(?s)rule 'dense\*' matches no layer.*conv, fc\[0\]"):
        work_out(Recipe(rules=(Rule(layers="dense*", scheme="w4"),)), LAYERS, [ALL])


def test_all_rules_that_match_nothing_are_named_at_once():
    rules = (Rule.exactly("alien", "w4"), Rule.exactly("conv", "w8a8"), Rule.exactly("foreign", "w4"))
    with pytest.raises(UsageError, match=r"^rules 'alien', 'foreign' match no layer"):
        work_out(Recipe(rules=rules), LAYERS, [ALL])


def test_a_rule_for_a_kind_that_no_stage_quantizes_is_an_error():
    with pytest.raises(UsageError, match="asks for w4g32, which no stage offers for Conv layers"):
        work_out(Recipe(rules=(Rule(layers="conv", scheme="w4g32"),)), LAYERS, [FC])


def test_a_model_without_a_layer_to_quantize_is_an_error():
    with pytest.raises(UsageError, match="(?s)acme.fc has no layer to quantize.*Conv"):
        work_out(Recipe(), LAYERS[:1], [FC])


def test_layers_that_a_rule_leaves_in_float_are_told_from_those_that_nobody_quantizes():
    rules = (Rule(layers="*", scheme="float"), Rule(layers="fc*", scheme="w4"))
    assert left_out(Recipe(rules=rules), LAYERS) == {"conv", "embed"}
