"""What a planner measured, to be looked at: values by name, in one series or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from qm.strict import Strict


class Chart(Strict):
    """A picture with a bar for each name, one panel a series, and a table of the same numbers.

    ``across`` says what the names are and in which order, ``unit`` what the values are. A value that is not known, or
    not finite, is None. ``reading`` is a sentence on what to make of it.
    """

    title: str
    across: str
    unit: str
    names: tuple[str, ...]
    series: Mapping[str, tuple[float | None, ...]] = Field(description="values by series, one for each name")
    reading: str = ""

    @model_validator(mode="after")
    def _has_a_value_for_each_name(self) -> Self:
        for name, values in self.series.items():
            if len(values) != len(self.names):
                raise ValueError(f"series {name!r} has {len(values)} values for {len(self.names)} names")
        return self
