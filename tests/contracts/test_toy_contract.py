"""The toy framework keeps the contracts."""

import math
from pathlib import Path
from typing import ClassVar

import qm_toy
from qm.testing import BenchmarkContract, ExporterContract, LoaderContract, PlannerContract, QuantizerContract

pytest_plugins = ["qm.testing"]


class Toy:
    # NumPy adds in one order, whoever calls it.
    untouched_db = math.inf

    def model(self, folder: Path) -> Path:
        return qm_toy.make(folder / "model.toy")


class Tied(Toy):
    def model(self, folder: Path) -> Path:
        return qm_toy.make(folder / "model.toy", tied=True)


class TestLoad(Toy, LoaderContract):
    method = "toy.load"
    names = ("first", "second", "head")


class TestLoadTied(Tied, LoaderContract):
    method = "toy.load"
    names = ("first", "second", "third", "head")


class TestSave(Toy, ExporterContract):
    method = "toy.save"


class TestRun(Toy, BenchmarkContract):
    method = "toy.run"
    run_db = math.inf


class TestRound(Toy, QuantizerContract):
    method = "toy.round"
    # Four bits serve a row with an outlier badly, as they should in a toy that has something to protect.
    least_sqnr_db = 8.0


class TestRoundTied(Tied, QuantizerContract):
    method = "toy.round"
    least_sqnr_db = 5.0


class TestProtect(Toy, PlannerContract):
    method = "toy.protect"
    scheme = "w4"


class TestProtectTied(Tied, PlannerContract):
    method = "toy.protect"
    scheme = "w4"
    options: ClassVar[dict[str, str]] = {"count": "2", "scheme": "w8"}
