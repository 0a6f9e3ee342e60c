"""What a search found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field

from qm.contest import json_text
from qm.report import File, rounded
from qm.strict import Strict
from qm.tuning.goal import Verdict
from qm.tuning.standing import Result


class Point(Strict):
    """One model of the front; what trials told of it is on ``tried_on`` samples, its verdict on those that judge."""

    file: str
    recipe: str
    method: str
    scheme: str
    options: dict[str, Any]
    nbytes: int
    ratio: float = Field(description="size over the float model's")
    sqnr_db: float | None = Field(description="None where outputs are identical, or cannot be compared")
    kept: float | None = Field(description="share of answers not lost on balance; None where there are no classes")
    tried_on: int
    calibrated_on: int
    verdict: Verdict | None = None

    @classmethod
    def of(
        cls,
        result: Result,
        *,
        file: str,
        recipe: str,
        float_nbytes: int,
        calibrated_on: int,
        verdict: Verdict | None = None,
    ) -> Self:
        """The result as a point."""
        measured = result.measured
        return cls(
            file=file,
            recipe=recipe,
            method=result.candidate.method,
            scheme=str(result.candidate.recipe.scheme),
            options=result.candidate.options,
            nbytes=measured.nbytes,
            ratio=round(measured.nbytes / float_nbytes, 4),
            sqnr_db=rounded(measured.sqnr_db, 2),
            kept=None if measured.lost is None else round(1 - measured.drop, 6),
            tried_on=measured.samples,
            calibrated_on=calibrated_on,
            verdict=verdict,
        )

    @property
    def name(self) -> str:
        """The method, the scheme and what the method is told."""
        return " ".join([self.method, self.scheme, *(f"{name}={value}" for name, value in self.options.items())])


@dataclass(frozen=True)
class Sight:
    """A search under way: the front so far, and what is being done, in words."""

    points: tuple[Point, ...]
    words: str


class Best(Strict):
    """The model handed over: the smallest that keeps the goal, or the nearest to it."""

    file: str
    recipe: str
    report: str
    name: str
    nbytes: int
    ratio: float
    verdict: Verdict


class Tuning(Strict):
    """The front, the model that was chosen, and what became of everything else."""

    version: int = Field(default=1, ge=1, le=1)
    created: str
    model: File
    data: str
    target: str
    goal: str
    reached: bool
    finished: bool = Field(description="whether all was tried that there is; the time was up where not")
    best: Best | None
    front: tuple[Point, ...]
    labelled: bool
    judged_on: int
    trials: int = Field(description="trials of this run")
    remembered: int = Field(description="trials that an earlier run had finished")
    untried: int = Field(description="things to try that were not begun")
    seconds: float
    executor: str
    lost_workers: int = Field(description="workers that died; the trial of each was handed to another once")
    folder: str
    failed: dict[str, str]
    left_out: dict[str, str]
    helps: tuple[str, ...] = Field(default=(), description="what would help, where the goal was missed")
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0, or 1 where the goal was missed."""
        return 0 if self.reached else 1

    def json_text(self) -> str:
        """As JSON."""
        return json_text(self)
