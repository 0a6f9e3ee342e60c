"""What a quantizer promises."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from qm.api import quantize
from qm.errors import QmError
from qm.file import sha256
from qm.plugin import Card, Memo, Model, Plan, Quantizer, Scheme, Unsupported
from qm.testing.contract import Contract
from qm.testing.fixture import Isolation
from qm.testing.interrupt import Interrupt
from qm.testing.lab import Drawn, Lab, sqnr_db

STRANGE = ("w3", "w5a5", "w7t", "w6g16", "w1d3")
"""Schemes that hardly any method offers."""

_ELSEWHERE = """
import sys
from pathlib import Path
import numpy as np
from qm.catalog import Catalog
from qm.plugin import LoadJob
path, given, answers = map(Path, sys.argv[1:])
card = Catalog().loader(path).card
model = card.implementation()(LoadJob(path=path, options=card.options()))
with np.load(given) as file:
    outputs = model.run(dict(file))
np.savez(answers, *outputs.values())
"""


class QuantizerContract(Contract):
    """A quantizer; it runs once for each scheme on its card. ``least_sqnr_db`` is the agreement that you stand for."""

    kind: ClassVar[type[Card]] = Quantizer
    least_sqnr_db: ClassVar[float] = 10.0

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each scheme that the card declares."""
        if "scheme" in metafunc.fixturenames:
            try:
                schemes = sorted(Lab(type(self)(), Path()).card.schemes)
            except QmError:  # the test that looks for the card says so
                schemes = []
            metafunc.parametrize("scheme", schemes)

    @staticmethod
    def read_back(model: Model) -> dict[str, str]:
        """The layers that are not in float, as the model itself tells."""
        return {name: str(scheme) for name, scheme in model.schemes().items() if not scheme.is_float}

    @staticmethod
    def asked(plan: Plan) -> dict[str, str]:
        """The layers that a plan takes out of float."""
        return {name: str(scheme) for name, scheme in plan.quantized().items()}

    def default_plan(self, lab: Lab) -> Plan:
        """Every layer in the card's default scheme."""
        return lab.whole_plan(Scheme.parse(lab.card.default))

    def test_the_schemes_are_written_in_their_canonical_form(self, lab: Lab) -> None:
        assert {str(Scheme.parse(text)) for text in lab.card.schemes} == set(lab.card.schemes)

    def test_the_defaults_are_among_the_schemes(self, lab: Lab) -> None:
        assert lab.card.default in lab.card.schemes
        assert lab.card.default_without_data is None or lab.card.default_without_data in lab.card.schemes

    def test_the_models_format_is_one_it_takes(self, lab: Lab) -> None:
        assert lab.model.format in lab.card.takes

    def test_the_scheme_gets_into_the_file(self, lab: Lab, scheme: str) -> None:
        _, again = lab.quantized(scheme)
        assert self.read_back(again) == self.asked(lab.whole_plan(Scheme.parse(scheme)))

    def test_layers_keep_their_names(self, lab: Lab, scheme: str) -> None:
        _, again = lab.quantized(scheme)
        assert [layer.name for layer in again.layers()] == [layer.name for layer in lab.model.layers()]

    def test_the_format_that_comes_out_is_the_one_declared(self, lab: Lab, scheme: str) -> None:
        model = lab.quantize(lab.whole_plan(Scheme.parse(scheme)))
        assert model.format == (lab.card.gives or lab.model.format)

    def test_the_file_is_smaller(self, lab: Lab, scheme: str) -> None:
        artifact, _ = lab.quantized(scheme)
        assert artifact.nbytes < lab.float_artifact.nbytes

    def test_the_outputs_are_finite(self, lab: Lab, scheme: str) -> None:
        _, again = lab.quantized(scheme)
        assert all(np.isfinite(output).all() for output in lab.answers(again))

    def test_the_outputs_agree_with_the_float_model(self, lab: Lab, scheme: str) -> None:
        _, again = lab.quantized(scheme)
        assert lab.sqnr_db(again) >= self.least_sqnr_db

    def test_the_file_says_the_same_in_another_process(self, lab: Lab, tmp_path: Path, scheme: str) -> None:
        artifact, again = lab.quantized(scheme)
        lab.needs_run(again)
        given, answers = tmp_path / "given.npz", tmp_path / "answers.npz"
        np.savez(given, **lab.samples[0])  # type: ignore[arg-type]
        command = [sys.executable, "-c", _ELSEWHERE, str(artifact.path), str(given), str(answers)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with np.load(answers) as file:
            there = [file[name] for name in file.files]
        assert sqnr_db(list(again.run(lab.samples[0]).values()), there) >= self.untouched_db

    def test_one_seed_gives_the_same_bytes(self, lab: Lab, scheme: str) -> None:
        artifact, _ = lab.quantized(scheme)
        second = lab.export(lab.quantize(lab.whole_plan(Scheme.parse(scheme))))
        assert sha256(second.path) == sha256(artifact.path)

    def test_what_other_plans_left_in_the_memo_changes_nothing(self, lab: Lab, scheme: str) -> None:
        memo, schemes = Memo(), sorted(lab.card.schemes)
        before = schemes[schemes.index(scheme) - 1]
        lab.quantize(lab.whole_plan(Scheme.parse(before)), memo=memo)
        second = lab.export(lab.quantize(lab.whole_plan(Scheme.parse(scheme)), memo=memo))
        assert sha256(second.path) == sha256(lab.quantized(scheme)[0].path)

    def test_the_given_model_is_unchanged(self, lab: Lab, scheme: str) -> None:
        model = lab.load(lab.path)
        before = lab.answers(model), model.schemes(), model.nbytes()
        lab.quantize(lab.whole_plan(Scheme.parse(scheme)), model=model)
        assert sqnr_db(before[0], lab.answers(model)) >= self.untouched_db
        assert (model.schemes(), model.nbytes()) == before[1:]

    def test_data_are_needed_only_where_the_card_says_so(self, lab: Lab, scheme: str) -> None:
        plan = lab.whole_plan(Scheme.parse(scheme))
        if lab.card.needs_data(Scheme.parse(scheme)):
            with pytest.raises(QmError):
                lab.quantize(plan, data=Drawn())
        else:
            lab.quantize(plan, data=Drawn())

    def test_an_empty_plan_changes_nothing(self, lab: Lab) -> None:
        model = lab.quantize(Plan({}))
        assert self.read_back(model) == {}
        assert lab.sqnr_db(model) >= self.untouched_db

    def test_a_layer_left_out_of_the_plan_is_left_alone(self, lab: Lab) -> None:
        if not lab.card.per_layer:
            pytest.skip(f"{self.method} does not declare per_layer")
        plan = _every_second(self.default_plan(lab), lab)
        again = lab.load(lab.export(lab.quantize(plan)).path)
        assert self.read_back(again) == self.asked(plan)

    def test_a_plan_of_several_schemes_is_honoured_or_refused(self, lab: Lab) -> None:
        if not lab.card.per_layer or len(lab.card.schemes) < 2:
            pytest.skip(f"{self.method} does not declare per_layer and two schemes")
        plan = _mixed(lab)
        try:
            model = lab.quantize(plan)
        except Unsupported:
            return
        assert self.read_back(lab.load(lab.export(model).path)) == self.asked(plan)

    def test_a_scheme_that_is_not_offered_is_an_error_of_ours(self, lab: Lab) -> None:
        strange = next(Scheme.parse(text) for text in STRANGE if text not in lab.card.schemes)
        name = lab.model.layers()[0].name
        with pytest.raises(QmError, match=str(strange)):
            lab.quantize(Plan({name: strange}))

    def test_a_layer_that_is_not_there_is_an_error_of_ours(self, lab: Lab) -> None:
        with pytest.raises(QmError, match="no-such-layer"):
            lab.quantize(Plan({"no-such-layer": Scheme.parse(lab.card.default)}))

    def test_one_sample_is_enough_to_run(self, lab: Lab) -> None:
        model = lab.quantize(self.default_plan(lab), data=Drawn(lab.samples[:1]))
        assert all(np.isfinite(output).all() for output in lab.answers(model))

    def test_the_audit_accepts_the_whole_run(self, lab: Lab, isolated: Isolation) -> None:
        scheme = Scheme.parse(lab.card.default)
        names = lab.samples[0]
        data = {name: np.concatenate([batch[name] for batch in lab.samples]) for name in names}
        report = quantize(
            lab.path,
            [(self.method, self.options)],
            scheme=str(scheme),
            data=data if lab.card.needs_data(scheme) else None,
            to=isolated.folder / f"whole{lab.quantized(str(scheme))[0].path.suffix}",
        )
        assert report.accepted
        assert {name: text for name, text in report.schemes.items() if text != "float"} == self.asked(
            lab.whole_plan(scheme)
        )

    def test_nothing_is_left_lying_about(self, lab: Lab, isolated: Isolation) -> None:
        lab.quantize(self.default_plan(lab))
        assert list(isolated.folder.iterdir()) == []

    def test_the_network_is_not_used(self, lab: Lab, isolated: Isolation) -> None:
        lab.quantize(self.default_plan(lab))
        assert isolated.connections == []

    @pytest.mark.parametrize("after", [0, 1, 2])
    def test_an_interrupt_gets_through_and_leaves_no_file(self, lab: Lab, isolated: Isolation, after: int) -> None:
        lab.samples  # noqa: B018  - loads the model, whose own temporary files are not meant here
        progress = Interrupt(after)
        try:
            lab.quantize(self.default_plan(lab), progress=progress)
        except KeyboardInterrupt:
            pass
        else:
            assert not progress.pressed, "the interrupt was swallowed"
        gc.collect()
        assert not progress.pressed or isolated.litter() == []


def _every_second(plan: Plan, lab: Lab) -> Plan:
    """Every second of the plan's layers, counting layers that share a weight as one."""
    groups = _groups(plan, lab)
    assert len(groups) > 1, "the contract's model has fewer than two layers to quantize"
    return Plan({name: plan[name] for group in groups[::2] for name in group})


def _mixed(lab: Lab) -> Plan:
    """The schemes in turn, each layer in one that it can get."""
    layers = {layer.name: layer for layer in lab.model.layers() if lab.card.offers(layer)}
    whole = Plan({name: lab.card.offers(layer)[0] for name, layer in layers.items()})
    chosen = {}
    for i, group in enumerate(_groups(whole, lab)):
        offers = lab.card.offers(layers[group[0]])
        chosen.update(dict.fromkeys(group, offers[i % len(offers)]))
    return Plan(chosen)


def _groups(plan: Plan, lab: Lab) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for layer in lab.model.layers():
        if layer.name in plan.layers:
            groups.setdefault(f"tied {layer.tied}" if layer.tied else f"layer {layer.name}", []).append(layer.name)
    return list(groups.values())
