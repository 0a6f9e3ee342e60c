"""acme.ternary keeps the contract of quantizers, and planners can plan for it."""

import qm_toy
from qm.testing import PlannerContract, QuantizerContract

pytest_plugins = ["qm.testing"]


class TestTernary(QuantizerContract):
    method = "acme.ternary"
    least_sqnr_db = 1.0  # two bits are very few

    def model(self, folder):
        return qm_toy.make(folder / "model.toy")


class TestProtectedTernary(PlannerContract):
    method = "toy.protect"
    quantizer = "acme.ternary"

    def model(self, folder):
        return qm_toy.make(folder / "model.toy")
