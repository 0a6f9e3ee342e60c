import enum
import json
from typing import Literal

import pytest
from pydantic import Field

from qm.cli.show import option_rows
from qm.plugin import Options


def row(annotation, default=..., **constraints):
    """The row of one option of that type."""
    field = Field(default=default, description="help", **constraints)
    made = type("Made", (Options,), {"__annotations__": {"name": annotation}, "name": field})
    (only,) = option_rows(made.model_json_schema())
    return only[1:4]


def test_a_method_is_described_with_its_options_their_range_default_and_help(qm):
    text = qm("show", "toy.round").stdout
    assert text.startswith("toy.round\nround weights to the nearest integer")
    (line,) = [line for line in text.splitlines() if line.startswith("clip")]
    assert line.split(maxsplit=6) == [
        *("clip", "number", ">", "0,", "<=", "1"),
        "1.0       share of the largest weight that the scale covers",
    ]


def test_the_json_holds_the_schema_of_the_options(qm):
    told = json.loads(qm("show", "toy.round", "--json").stdout)
    assert told["options"]["properties"]["clip"]["exclusiveMinimum"] == 0
    assert told["schemes"] == ["w4", "w8", "w8a8", "w8d8"]
    assert told["name"] == "toy.round"


def test_a_card_that_is_no_method_is_described_too(qm):
    text = qm("show", "toy.load").stdout
    assert "loader" in text
    assert "It has no options." in text


def test_an_unknown_method_is_met_with_a_guess(qm):
    result = qm("show", "toy.rond")
    assert result.returncode == 2
    assert result.stderr == "error: there is no method 'toy.rond'\nhint:  Did you mean 'toy.round'?\n"


def test_a_plugin_alone_is_met_with_its_names(qm):
    assert "toy.round" in qm("show", "toy").stderr


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (row(int, 3, ge=1, lt=9), ("integer", ">= 1, < 9", "3")),
        (row(float, 0.5, gt=0), ("number", "> 0", "0.5")),
        (row(bool, default=True), ("boolean", "", "true")),
        (row(str), ("string", "", "required")),
        (row(int | None, None, ge=2), ("integer or none", ">= 2", "none")),
        (row(Literal["a", "b"], "a"), ("choice", "a | b", "a")),
        (row(Literal["a"], "a"), ("choice", "a", "a")),
        (row(Color, Color.RED), ("choice", "red | blue", "red")),
        (row(list[int], [1, 2]), ("array", "", "[1, 2]")),
    ],
)
def test_types_and_ranges_are_told_in_words(made, expected):
    assert made == expected
