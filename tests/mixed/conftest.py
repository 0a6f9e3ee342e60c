"""A bench over the toy framework for planners."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qm_toy
from qm.plugin import Options, PlanJob, Planner, Recipe
from qm.testing import Lab, contract_bench

pytest.importorskip("scipy")

Bench = Callable[..., PlanJob]


@pytest.fixture
def bench(tmp_path: Path, isolated: None) -> Bench:
    """``bench(recipe, options)`` is a job for a planner, on the toy model; ``tied`` as in ``qm_toy.make``."""

    def made(recipe: Recipe, options: Options, *, tied: bool = False) -> PlanJob:
        class Subject:
            method = "toy.protect"
            kind = Planner
            options: dict[str, Any] = {}  # noqa: RUF012

            def model(self, folder: Path) -> Path:
                return qm_toy.make(folder / "model.toy", tied=tied)

            def samples(self) -> None:
                return None

        lab = Lab(Subject(), tmp_path)  # type: ignore[arg-type]
        return PlanJob(recipe=recipe, bench=contract_bench(lab, "toy.round", recipe), options=options)

    return made
