"""The planners keep the contract, whatever they plan for."""

from pathlib import Path

import pytest

import qm_toy
from qm.testing import PlannerContract

pytest.importorskip("scipy")
pytest_plugins = ["qm.testing"]


class Mixed(PlannerContract):
    scheme = "w8"

    def model(self, folder: Path) -> Path:
        return qm_toy.make(folder / "model.toy", tied=True)


class TestSensitivity(Mixed):
    method = "mixed.sensitivity"
    scheme = "w4"


class TestBudget(Mixed):
    method = "mixed.budget"
    options = {"max_ratio": 0.33}  # noqa: RUF012


class TestBudgetOfLoss(Mixed):
    method = "mixed.budget"
    options = {"min_sqnr_db": 20}  # noqa: RUF012


class TestGreedy(Mixed):
    method = "mixed.greedy"
    options = {"max_ratio": 0.33}  # noqa: RUF012


class TestPareto(Mixed):
    method = "mixed.pareto"
