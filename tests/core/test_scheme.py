"""The text form of schemes."""

from __future__ import annotations

import pytest

from qm.errors import UsageError
from qm.scheme import F16, FLOAT, Activations, Granularity, Scheme


@pytest.mark.parametrize("text", ["w8a8", "w8d8", "w8", "w4g32", "w4g128", "w8a16", "w8a8t", "f16", "float", "w2"])
def test_the_text_form_round_trips(text):
    assert str(Scheme.parse(text)) == text


@pytest.mark.parametrize(
    ("alias", "scheme"),
    [("int8", "w8a8"), ("dynamic", "w8d8"), ("int16x8", "w8a16"), ("fp16", "f16"), ("W8A8", "w8a8")],
)
def test_an_alias_means_its_scheme(alias, scheme):
    assert str(Scheme.parse(alias)) == scheme


@pytest.mark.parametrize("text", ["", "w", "8", "w0", "w99a8", "w8x8", "w8a8g0", "w8g32t", "int", "w8a"])
def test_what_is_no_scheme_is_refused_with_examples(text):
    with pytest.raises(UsageError, match="(?s)is not a scheme.*w8a8"):
        Scheme.parse(text)


def test_a_static_scheme_has_fixed_activation_ranges():
    assert Scheme.parse("w8a8") == Scheme(weight_bits=8, activations=Activations.STATIC, activation_bits=8)
    assert Scheme.parse("w8a8").is_static
    assert not Scheme.parse("w8d8").is_static


def test_a_group_size_is_read():
    scheme = Scheme.parse("w4g32")
    assert (scheme.granularity, scheme.group) == (Granularity.GROUP, 32)


def test_half_precision_is_neither_float_nor_integer():
    assert not F16.is_float
    assert not F16.is_integer
    assert FLOAT.is_float
