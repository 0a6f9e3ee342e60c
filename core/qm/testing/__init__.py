"""The conformance kit: contracts that a plugin author inherits in two or three lines.

Switch it on with ``pytest_plugins = ["qm.testing"]``, and write for each method::

    class TestTernary(QuantizerContract):
        method = "acme.ternary"

        def model(self, folder):
            return qm_toy.make(folder / "model.toy")

The card decides which checks run: each declared scheme, capability and option is held to its word.

PYTEST_DONT_REWRITE: nothing is asserted in this module itself.
"""

import pytest

pytest.register_assert_rewrite(
    *(f"qm.testing.{name}" for name in ("contract", "loader", "quantizer", "planner", "exporter", "benchmark"))
)

from qm.testing.bench import ContractBench, contract_bench  # noqa: E402  - after the rewriting is on
from qm.testing.benchmark import BenchmarkContract  # noqa: E402
from qm.testing.contract import Contract  # noqa: E402
from qm.testing.exporter import ExporterContract  # noqa: E402
from qm.testing.fixture import Isolation, isolated, lab  # noqa: E402
from qm.testing.lab import Drawn, Lab, sqnr_db  # noqa: E402
from qm.testing.loader import LoaderContract  # noqa: E402
from qm.testing.planner import PlannerContract  # noqa: E402
from qm.testing.quantizer import QuantizerContract  # noqa: E402

__all__ = [
    "BenchmarkContract",
    "Contract",
    "ContractBench",
    "Drawn",
    "ExporterContract",
    "Isolation",
    "Lab",
    "LoaderContract",
    "PlannerContract",
    "QuantizerContract",
    "contract_bench",
    "isolated",
    "lab",
    "sqnr_db",
]
