"""A bench for planners under test: what the protocol allows, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from qm.journal import Journal
from qm.plugin import Bench, Layer, Plan, Recipe, Scheme, Speed, Target, Trial
from qm.recipe import Stage
from qm.route import find_route
from qm.testing.lab import Lab
from qm.workbench import Workbench


class ContractBench:
    """A workbench seen through the protocol alone, so that a planner that asks for more fails."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    @property
    def layers(self) -> Sequence[Layer]:
        """As the protocol says."""
        return self._bench.layers

    @property
    def target(self) -> Target:
        """As the protocol says."""
        return self._bench.target

    @property
    def float_nbytes(self) -> int:
        """As the protocol says."""
        return self._bench.float_nbytes

    def offers(self, layer: Layer) -> tuple[Scheme, ...]:
        """As the protocol says."""
        return self._bench.offers(layer)

    def plan(self, recipe: Recipe) -> Plan:
        """As the protocol says."""
        return self._bench.plan(recipe)

    def run(self, recipe: Recipe) -> Trial:
        """As the protocol says."""
        return self._bench.run(recipe)

    def time(self, recipe: Recipe) -> Speed:
        """As the protocol says."""
        return self._bench.time(recipe)


def contract_bench(lab: Lab, quantizer: str, recipe: Recipe) -> ContractBench:
    """A bench over the lab's model and samples and one quantizer, which remembers no trial from before."""
    asked = recipe.model_copy(update={"stages": (Stage(plugin=quantizer),), "target": "x86-avx2"})
    route = find_route(lab.path, asked, lab.catalog, to=None, has_data=True, force=True)
    workbench = Workbench(
        catalog=lab.catalog,
        route=route,
        model=lab.model,
        calibration=lab.samples,
        judging=lab.samples,
        journal=Journal(None, {}),
        seed=recipe.seed,
    )
    return ContractBench(workbench)
