"""What came out of a comparison of models, as ``qm compare --json`` prints it."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import Field

from qm.errors import QmError
from qm.interval import wilson
from qm.measurement import Latency, Ratio
from qm.metric import MetricChange
from qm.report import File, Quality
from qm.strict import Strict
from qm.types import Cache

_COLUMN = re.compile(r"\[\n[\s\d.,eE+-]*(?:null[\s\d.,eE+-]*)*\]")


class Share(Strict):
    """A share of samples, with its 95 % interval."""

    samples: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, samples: int) -> Share:
        """The share and its interval by Wilson."""
        found = wilson(hits, samples)
        return cls(samples=samples, share=found.estimate, low=found.low, high=found.high)

    def sentence(self) -> str:
        """The share in percent."""
        return (
            f"{100 * self.share:.1f} % of {self.samples} samples "
            f"(95 % interval {100 * self.low:.1f} to {100 * self.high:.1f} %)"
        )


class Failed(Strict):
    """Why a model is out: one sentence, a hint, and the exit code of its kind."""

    message: str
    hint: str = ""
    exit_code: int

    @classmethod
    def of(cls, error: QmError) -> Failed:
        """The failure that the exception tells of."""
        return cls(message=error.message, hint=error.hint, exit_code=error.exit_code)


class Entry(Strict):
    """One model of a comparison; what is not known is None. All but sizes and latency is against the first model."""

    name: str
    file: File | None = None
    gzip_nbytes: int | None = None
    latency: Latency | None = None
    speed: Ratio | None = Field(default=None, description="against the model that the others are timed against")
    accuracy: Share | None = Field(default=None, description="its own, where samples have labels")
    quality: Quality | None = None
    metric: MetricChange | None = None
    on_front: bool | None = Field(default=None, description="None where it failed")
    beaten_by: str | None = Field(default=None, description="a model that is better in every respect, beyond doubt")
    failed: Failed | None = None
    notes: tuple[str, ...] = ()


class Contest(Strict):
    """Models on the same samples, by the same clock."""

    version: int = Field(default=1, ge=1, le=1)
    created: str
    cpu: str
    entries: tuple[Entry, ...]
    first: str | None = Field(description="the model whose answers the others' are held against")
    timed_against: str | None = Field(description="the model whose speed the others' is held against")
    data: str | None
    samples: int
    synthetic: bool = Field(description="whether inputs were made up")
    max_drop: float | None
    threads: int
    cache: Cache
    noise_floor: float | None = None
    front_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0, or the highest of those that failed."""
        return max((e.failed.exit_code for e in self.entries if e.failed is not None), default=0)

    def json_text(self) -> str:
        """The contest as JSON."""
        return json_text(self)


def json_text(value: Strict) -> str:
    """The value as JSON, each column of numbers on a line of its own."""
    text = json.dumps(value.model_dump(mode="json"), indent=1)
    return _COLUMN.sub(_on_one_line, text) + "\n"


def _on_one_line(found: re.Match[str]) -> str:
    values: list[Any] = json.loads(found[0])
    return json.dumps(values)
