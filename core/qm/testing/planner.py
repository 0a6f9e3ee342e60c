"""What a planner promises."""

from __future__ import annotations

import contextlib
from typing import ClassVar

import pytest

from qm.plugin import Card, Notes, PlanJob, Planner, Progress, Recipe, Silent
from qm.testing.bench import ContractBench, contract_bench
from qm.testing.contract import Contract, loaded_by
from qm.testing.fixture import Isolation
from qm.testing.interrupt import Interrupt
from qm.testing.lab import Lab


class PlannerContract(Contract):
    """A planner, planning for ``quantizer``; ``scheme`` is the recipe's default before it, the card's where None."""

    kind: ClassVar[type[Card]] = Planner
    quantizer: ClassVar[str] = "toy.round"
    scheme: ClassVar[str | None] = None

    def bench(self, lab: Lab) -> ContractBench:
        """A new bench, which remembers no trial."""
        return contract_bench(lab, self.quantizer, self.given())

    def plan(
        self, lab: Lab, recipe: Recipe | None = None, *, seed: int = 0, progress: Progress | None = None
    ) -> Recipe:
        """What the planner makes of a recipe."""
        job = PlanJob(
            recipe=recipe or self.given(),
            bench=self.bench(lab),
            options=lab.found.options(dict(self.options)),
            seed=seed,
            progress=progress or Silent(),
            notes=Notes(),
        )
        answer: Recipe = lab.card.implementation()(job)
        return answer

    def given(self) -> Recipe:
        """The recipe that the planner is handed."""
        return Recipe(scheme=self.scheme)

    def test_the_implementation_loads_no_framework(self, lab: Lab) -> None:
        module = lab.card.implementation().__module__
        loaded = loaded_by(module)
        assert not loaded, f"importing {module} loads {', '.join(loaded)}: a planner works through its bench alone"

    def test_the_answer_is_a_recipe(self, lab: Lab) -> None:
        assert isinstance(self.plan(lab), Recipe)

    def test_every_rule_matches_a_layer(self, lab: Lab) -> None:
        names = [layer.name for layer in lab.model.layers()]
        for rule in self.plan(lab).rules:
            assert any(rule.matches(name) for name in names), f"rule {rule.layers!r} matches no layer"

    def test_every_planned_scheme_is_offered(self, lab: Lab) -> None:
        bench = self.bench(lab)
        plan = bench.plan(self.plan(lab))
        for layer in bench.layers:
            assert plan[layer.name].is_float or plan[layer.name] in bench.offers(layer)

    def test_layers_that_share_a_weight_share_a_scheme(self, lab: Lab) -> None:
        bench = self.bench(lab)
        plan = bench.plan(self.plan(lab))
        seen: dict[str, str] = {}
        for layer in bench.layers:
            if layer.tied:
                assert str(plan[layer.name]) == seen.setdefault(layer.tied, str(plan[layer.name]))

    def test_the_answer_can_be_carried_out(self, lab: Lab) -> None:
        assert self.bench(lab).run(self.plan(lab)).nbytes > 0

    def test_the_answer_survives_its_file(self, lab: Lab, isolated: Isolation) -> None:
        answer = self.plan(lab)
        answer.write(isolated.folder / "recipe.toml")
        assert Recipe.read(isolated.folder / "recipe.toml") == answer

    def test_one_seed_gives_the_same_answer(self, lab: Lab) -> None:
        assert self.plan(lab, seed=1) == self.plan(lab, seed=1)

    def test_what_was_asked_besides_the_schemes_is_kept(self, lab: Lab) -> None:
        given = self.given().model_copy(update={"seed": 7, "samples": 5, "target": "x86-avx2"})
        answer = self.plan(lab, given)
        assert (answer.seed, answer.samples, answer.target) == (7, 5, "x86-avx2")
        assert answer.stages == given.stages

    def test_the_plan_of_its_answer_can_be_planned_again(self, lab: Lab) -> None:
        answer = self.plan(lab, self.plan(lab))
        assert self.bench(lab).run(answer).nbytes > 0

    def test_nothing_is_left_lying_about(self, lab: Lab, isolated: Isolation) -> None:
        self.plan(lab)
        assert list(isolated.folder.iterdir()) == []

    def test_the_network_is_not_used(self, lab: Lab, isolated: Isolation) -> None:
        self.plan(lab)
        assert isolated.connections == []

    @pytest.mark.parametrize("after", [0, 1])
    def test_an_interrupt_gets_through(self, lab: Lab, after: int) -> None:
        progress = Interrupt(after)
        with contextlib.suppress(KeyboardInterrupt):
            self.plan(lab, progress=progress)
            assert not progress.pressed, "the interrupt was swallowed"
