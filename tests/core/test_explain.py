"""Why an artifact is worse, on the toy framework: nothing here knows of another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import qm
import qm_toy
from qm.__main__ import main
from qm.diagnosis import Explanation, Question, explain
from qm.errors import UsageError
from qm.plugin import ExportJob, LoadJob
from qm.report import report_path
from qm_toy.model import Dense, ToyModel
from qm_toy.store import load, save
from qm_toy.weight import Float, Packed


@pytest.fixture
def spoiled(net: Path) -> Path:
    """The model with one weight a row of ``second`` so large that the others round away, on an input that is small."""
    first, second, head = load(LoadJob(path=net)).native
    small, wild = first.weight.values().copy(), second.weight.values().copy()
    small[0], wild[:, 0] = small[0] * 1e-4, 300.0
    bias = first.bias.copy()
    bias[0] = 0
    layers = [replace(first, weight=Float(array=small), bias=bias), replace(second, weight=Float(array=wild)), head]
    save(ExportJob(model=ToyModel(layers), path=net))
    return net


def made(model: Path, data: Path, scheme: str = "w8a8") -> Path:
    artifact = model.with_name("out.toy")
    qm.quantize(model, ["toy.round"], scheme=scheme, data=data, samples=40, to=artifact, force=True)
    return artifact


def explained(artifact: Path, net: Path, data: Path | None, **more: object) -> Explanation:
    told = {"time_s": 60.0, "times": False, "data": None if data is None else str(data), **more}
    return explain(Question(artifact=artifact, baseline=net, **told))


def test_a_spoiled_layer_is_named_first(spoiled: Path, data: Path) -> None:
    found = explained(made(spoiled, data), spoiled, data)
    assert found.causes[0].layers == ("second",)
    assert found.causes[0].sentence.startswith("Layer 'second' makes ")


def test_the_smallest_list_to_leave_in_float_is_the_spoiled_layer(spoiled: Path, data: Path) -> None:
    found = explained(made(spoiled, data), spoiled, data).exclusion
    assert found is not None
    assert (found.layers, found.minimal) == (("second",), True)
    assert found.sqnr_db is not None and found.sqnr_db >= found.goal_db


def test_the_layer_where_error_arises_is_seen_in_its_output(spoiled: Path, data: Path) -> None:
    rows = {row.layer: row for row in explained(made(spoiled, data), spoiled, data, tries=False).errors}
    assert rows["first"].sqnr_db > 30 > 20 > rows["second"].sqnr_db
    assert rows["second"].arises > 0.9


def test_layers_alone_account_for_the_error_as_far_as_noise_adds_up(net: Path, data: Path) -> None:
    rows = explained(made(net, data, "w4"), net, data).errors
    assert sum(row.share or 0 for row in rows) == pytest.approx(1, abs=0.2)


def test_the_recipe_that_is_recommended_reaches_the_goal(spoiled: Path, data: Path, tmp_path: Path) -> None:
    found = explained(made(spoiled, data), spoiled, data, recipe_to=tmp_path / "fix.toml")
    again = qm.quantize(spoiled, recipe=found.recommended, data=data, to=tmp_path / "fixed.toy")
    assert again.schemes["second"] == "float"
    assert again.quality.sqnr_db >= found.exclusion.goal_db - 1
    assert f"--recipe {tmp_path / 'fix.toml'}" in found.causes[0].next


def test_more_bits_are_tried_with_their_effect(net: Path, data: Path) -> None:
    remedies = {r.name: r for r in explained(made(net, data, "w4"), net, data).remedies}
    assert remedies["weights"].gain_db > 15
    assert remedies["weights"].recipe.scheme == "w8"
    assert remedies["again"].gain_db == pytest.approx(0, abs=0.01)


def test_remedies_are_timed_against_the_artifact(net: Path, data: Path) -> None:
    found = explained(made(net, data), net, data, times=True, time_s=4.0, goal_db=1.0)
    assert found.remedies
    assert all(r.speed is not None and r.speed.low <= r.speed.ratio <= r.speed.high for r in found.remedies)


def test_error_that_every_layer_adds_to_is_said_to_be_spread(tmp_path: Path, data: Path) -> None:
    model = tmp_path / "even.toy"
    random = np.random.default_rng(0)

    def layer(i: int) -> Dense:
        # A rotation neither grows nor shrinks what came before, so that each layer adds as much noise.
        w = np.linalg.qr(random.normal(size=(16, 16)))[0].astype(np.float32)
        return Dense(name=f"d{i}", tensor=f"d{i}", weight=Float(array=w), bias=np.zeros(16, np.float32))

    save(ExportJob(model=ToyModel([layer(i) for i in range(20)]), path=model))
    found = explained(made(model, data, "w8"), model, data)
    (spread,) = [cause for cause in found.causes if cause.name == "spread"]
    assert "the worst, 'd" in spread.sentence
    assert (
        f"it takes {len(found.exclusion.layers)} in float to reach {found.exclusion.goal_db:.1f} dB" in spread.sentence
    )


def test_a_goal_that_is_met_by_the_same_recipe_needs_no_list(net: Path, data: Path) -> None:
    assert explained(made(net, data), net, data, goal_db=1.0).exclusion.layers == ()


def test_an_artifact_that_was_damaged_is_told_from_what_its_recipe_gives(net: Path, data: Path) -> None:
    artifact = made(net, data)
    first, second, head = load(LoadJob(path=artifact)).native
    assert isinstance(second.weight, Packed)
    weight = replace(second.weight, scale=(second.weight.scale * 2).astype(np.float32))
    save(ExportJob(model=ToyModel([first, replace(second, weight=weight), head]), path=artifact))
    found = explained(artifact, net, data)
    assert found.causes[0].name == "changed"
    assert found.causes[0].layers == ("second",)
    assert "the artifact was changed after its report was written" in found.notes


def test_made_up_inputs_do_not_tell_that_an_artifact_was_changed(net: Path, tmp_path: Path) -> None:
    far = tmp_path / "far.npz"
    np.savez(far, x=np.random.default_rng(0).normal(scale=0.02, size=(80, 16)).astype(np.float32))
    found = explained(made(net, far), net, None)
    assert next(r for r in found.remedies if r.name == "again").gain_db > 3
    assert "changed" not in [cause.name for cause in found.causes]


def test_without_a_report_the_recipe_is_guessed_from_the_schemes(net: Path, data: Path) -> None:
    artifact = made(net, data, "w4")
    report_path(artifact).unlink()
    found = explained(artifact, net, data)
    assert any("no report beside the artifact: tries go by toy.round" in note for note in found.notes)
    assert {r.name for r in found.remedies} >= {"again", "weights"}


def test_a_report_of_another_model_is_said(net: Path, data: Path, tmp_path: Path) -> None:
    other = qm_toy.make(tmp_path / "other.toy", seed=1)
    notes = explained(made(net, data), other, data, tries=False).notes
    assert any("the artifact was made of another file" in note for note in notes)


def test_models_of_other_layers_are_refused_with_these_named(net: Path, data: Path, tmp_path: Path) -> None:
    model = load(LoadJob(path=net))
    strange = tmp_path / "strange.toy"
    renamed = [replace(layer, name=f"dense{i}", tensor=f"dense{i}") for i, layer in enumerate(model.native)]
    save(ExportJob(model=ToyModel(renamed), path=strange))
    with pytest.raises(UsageError, match=r"lacks 3 of 3 layers \('dense0', 'dense1', 'dense2'\) and has 'first'"):
        explained(made(net, data), strange, data)


def test_a_baseline_that_is_not_there_is_said(net: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="'nowhere.toy' does not exist"):
        explained(made(net, data), Path("nowhere.toy"), data)


def test_made_up_inputs_are_said_to_be(net: Path, data: Path) -> None:
    found = explained(made(net, data), net, None, tries=False)
    assert found.synthetic
    assert any("made up" in note for note in found.notes)


def test_without_tries_nothing_is_tried(net: Path, data: Path) -> None:
    found = explained(made(net, data), net, data, tries=False)
    assert (found.remedies, found.exclusion) == ((), None)


def test_samples_that_calibrated_do_not_judge(net: Path, data: Path) -> None:
    assert explained(made(net, data), net, data, samples=80, tries=False).samples == 40


def test_layers_that_share_weights_are_left_in_float_together(data: Path, tmp_path: Path) -> None:
    tied = qm_toy.make(tmp_path / "tied.toy", tied=True)
    listed = explained(made(tied, data, "w4"), tied, data, goal_db=16.0).exclusion.layers
    assert {"second", "third"} <= set(listed) or not {"second", "third"} & set(listed)


def test_time_that_is_up_is_said_and_what_was_tried_is_kept(net: Path, data: Path) -> None:
    artifact = made(net, data, "w4")
    found = explained(artifact, net, data, time_s=0.001)
    assert found.stopped_by == "time"
    assert artifact.with_name("out.toy.explain.jsonl").is_file()


def test_nothing_is_left_behind_where_all_was_tried(net: Path, data: Path) -> None:
    artifact = made(net, data, "w4")
    before = set(artifact.parent.iterdir())
    assert explained(artifact, net, data).stopped_by == "done"
    assert set(artifact.parent.iterdir()) == before


class Impatient:
    """Progress that interrupts at the second item of one piece of work."""

    def __init__(self, label: str) -> None:
        self.label = label

    def track(self, items: Iterable[object], label: str, total: int | None = None) -> Iterator[object]:
        for number, item in enumerate(items):
            if label == self.label and number == 1:
                raise KeyboardInterrupt
            yield item


def test_an_interrupt_leaves_what_was_found_and_the_next_run_goes_on(net: Path, data: Path) -> None:
    artifact = made(net, data, "w4")
    question = Question(artifact=artifact, baseline=net, data=str(data), times=False)
    found = explain(question, progress=Impatient("each layer alone"))
    journal = artifact.with_name("out.toy.explain.jsonl")
    assert found.stopped_by == "interrupt"
    assert [r.name for r in found.remedies] == ["weights", "again"]
    kept = journal.read_text()
    explain(replace(question, time_s=0.001))
    assert journal.read_text() == kept


def test_the_command_prints_causes_and_writes_the_recipe(
    spoiled: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact, recipe = made(spoiled, data), tmp_path / "fix.toml"
    words = ["explain", str(artifact), "--baseline", str(spoiled), "--data", str(data), "--no-time"]
    assert main([*words, "--goal", "25dB", "--recipe", str(recipe)]) == 0
    printed = capsys.readouterr().out
    assert "1. worse: Layer 'second' makes" in printed
    assert "to leave in float: second (the smallest list found" in printed
    assert qm.Recipe.read(recipe).rules[0].layers == "second"


def test_the_command_prints_json(net: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explain", str(made(net, data)), "--baseline", str(net), "--data", str(data), "--no-try", "--time", "4"]
    assert main([*words, "--json"]) == 0
    found = Explanation.model_validate(json.loads(capsys.readouterr().out))
    assert found.sqnr_db > 25
    assert {row.layer for row in found.timing.layers} == {"first", "second", "head"}
    assert found.speed is not None


def test_a_goal_that_is_no_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "a.toy", "--baseline", "b.toy", "--goal", "high"])
    assert "'high' is not an error such as 20dB" in capsys.readouterr().err


def test_the_api_has_the_commands_word(net, data, tmp_path):
    qm.quantize(net, ["toy.round"], scheme="w4", data=data, to=tmp_path / "out.toy")
    found = qm.explain(tmp_path / "out.toy", net, data=data, tries=False, times=False)
    assert {row.layer for row in found.errors} == {"first", "second", "head"}
