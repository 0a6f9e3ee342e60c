"""What a trial is asked and what it answers: plain data, which any process on any machine can be handed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from qm.errors import QmError
from qm.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is tuned: the model, the samples as ``open_data`` takes them, what the loader is told."""

    model: Path
    data: Any
    load: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """One trial. ``calibration`` and ``judging`` are indices of samples; ``name`` is that of the file to make."""

    key: str
    name: str
    recipe: Recipe
    calibration: tuple[int, ...]
    judging: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a trial found, on ``samples`` samples, by ``runtime``.

    ``lost`` counts the samples that only the float model gets right, ``gained`` those that only the artifact does;
    where there are no labels, ``lost`` counts the answers that changed. Both are None where outputs are no scores of
    classes. ``sqnr_db`` is infinite where outputs are identical, and minus infinity where it cannot be said.
    """

    nbytes: int
    sqnr_db: float
    samples: int
    lost: int | None
    gained: int | None
    labelled: bool
    seconds: float
    runtime: str

    @property
    def drop(self) -> float:
        """The share of samples lost on balance; luck is none: gains beyond losses count as no loss."""
        return max(0, (self.lost or 0) - (self.gained or 0)) / max(1, self.samples)

    def entry(self) -> dict[str, Any]:
        """For the journal: JSON knows no infinity."""
        return {**asdict(self), "sqnr_db": repr(self.sqnr_db)}

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        """From the journal."""
        return cls(**{**entry, "sqnr_db": float(entry["sqnr_db"])})


@dataclass(frozen=True, kw_only=True)
class Done:
    """A trial at its end: what it measured and the folder where its file lies, or why it failed."""

    job: TrialJob
    measured: Measured | None = None
    folder: Path | None = None
    error: QmError | None = None


def finite(sqnr_db: float) -> float:
    """The figure, minus infinity where it is NaN."""
    return -math.inf if math.isnan(sqnr_db) else sqnr_db
