"""The search finds the best there is, says what it could not reach, and repeats nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

import qm
import qm_toy
from qm.__main__ import main
from qm.errors import UsageError
from qm.recipe import Recipe
from qm.report import Report
from qm.tuning import Tuning

ENOUGH_DB = 11.6
"""Between the best cover of w4, 11.9 dB, and the next, 11.2 dB."""


def tune(**more) -> Tuning:
    return qm.tune("net.toy", **{"data": "data.npz", "min_sqnr_db": ENOUGH_DB, "executor": "inline", **more})


def keys(folder) -> list[str]:
    return [json.loads(line)["key"] for line in (folder / "net.tune/trials.jsonl").read_text().splitlines()[1:]]


def test_the_best_of_an_enumerable_space_is_found(tuned):
    kept = {}
    for scheme in ("w8", "w4"):
        for cover in ("most", "whole"):
            made = qm.quantize(
                "net.toy", [("grid.grid", {"cover": cover})], scheme=scheme, data="data.npz", to="x.toy", force=True
            )
            if made.quality.sqnr_db >= ENOUGH_DB:
                kept[f"grid.grid {scheme} cover={cover}"] = made.size.after
    smallest = min(kept.values())
    assert [name for name, nbytes in kept.items() if nbytes == smallest] == ["grid.grid w4 cover=whole"]
    _, found = tuned
    assert found.reached and found.finished
    assert found.best.nbytes == smallest
    # The toy framework's own method with its default range does the same.
    assert found.best.name in ("grid.grid w4 cover=whole", "toy.round w4")


def test_the_chosen_file_is_what_its_recipe_gives_by_quantize(tuned):
    work, found = tuned
    best = found.best
    report = Report.read(best.report)
    assert report.accepted and report.artifact.path == best.file
    qm.quantize("net.toy", recipe=best.recipe, data="data.npz", to="again.toy")
    assert (work / "again.toy").read_bytes() == (work / best.file).read_bytes()


def test_each_point_of_the_front_is_a_file_with_its_recipe_and_nothing_else_is_left(tuned):
    work, found = tuned
    names = {p.file for p in found.front} | {p.recipe for p in found.front}
    names |= {found.best.file, found.best.recipe, found.best.report, "net.tune/trials.jsonl", "net.tune/.lock"}
    left = {str(p.relative_to(work)) for p in (work / "net.tune").iterdir()}
    assert left == names
    for point in found.front:
        assert (work / point.file).stat().st_size == point.nbytes
        assert Recipe.read(point.recipe).scheme == point.scheme


def test_no_point_of_the_front_beats_another(tuned):
    front = tuned[1].front
    sizes = [p.nbytes for p in front]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)
    decibels = [p.sqnr_db for p in front]
    assert decibels == sorted(decibels, reverse=True)


def test_samples_that_judge_calibrate_nothing_and_are_not_tried_on(tuned):
    data = Report.read(tuned[1].best.report).data
    assert not set(data.judged) & {*data.calibrated, *data.tried}
    assert not set(data.calibrated) & set(data.tried)


def test_a_goal_out_of_reach_hands_over_the_nearest_and_says_by_how_much(work):
    found = tune(min_sqnr_db=60.0)
    assert not found.reached and found.exit_code == 1
    assert found.best.name in ("toy.round w8", "toy.round w8a8", "toy.round w8d8")
    assert found.best.verdict.missed_by == pytest.approx(60 - Report.read(found.best.report).quality.sqnr_db, abs=1e-3)
    assert any(text.startswith("mix schemes") for text in found.helps)


def test_the_command_line_says_what_was_missed_and_ends_with_1(work, capsys):
    code = main(["tune", "net.toy", "--data", "data.npz", "--executor", "inline", "--max-drop", "0.1%"])
    out = capsys.readouterr().out
    assert code == 1
    assert "missed    not worse by more than 0.1 points, missed by" in out
    assert "left out  grid.absent: grid.absent needs no-such-distribution, which is not installed" in out


def test_the_command_line_prints_what_the_call_returns(work, capsys):
    code = main(["tune", "net.toy", "--data", "data.npz", "--executor", "inline", "--min-sqnr", "11.6dB", "--json"])
    told = Tuning.model_validate_json(capsys.readouterr().out)
    assert code == 0 and told.reached and told.goal == "at least 11.6 dB"


def test_the_same_command_again_repeats_no_trial(tuned):
    work, first = tuned
    tried = (work / "tried.log").read_text()
    again = tune(resume=True)
    assert again.trials == 0 and again.remembered == first.trials
    assert (work / "tried.log").read_text() == tried
    assert [p.file for p in again.front] == [p.file for p in first.front]


def test_a_folder_that_was_moved_goes_on_where_it_is(tuned):
    work, first = tuned
    (work / "net.tune").rename(work / "moved")
    again = tune(to="moved", resume=True)
    assert again.trials == 0 and again.remembered == first.trials
    assert again.best.file.startswith("moved") and (work / again.best.file).exists()


def test_another_goal_builds_on_the_same_trials(tuned):
    work, first = tuned
    again = tune(min_sqnr_db=30.0)
    assert again.reached and again.best.nbytes > first.best.nbytes
    assert not any("tried on" in key for key in keys(work)[first.trials :])


def test_time_that_is_up_leaves_the_front_so_far_and_the_next_run_goes_on(work, monkeypatch):
    monkeypatch.setenv("QM_GRID_SLEEP", "0.3")
    first = tune(time_s=0.5)
    assert not first.finished and first.untried > 0 and first.front
    monkeypatch.setenv("QM_GRID_SLEEP", "0")
    again = tune()
    assert again.finished and not again.untried
    assert len(keys(work)) == len(set(keys(work))) == first.trials + again.trials


def test_however_short_the_time_something_is_handed_over(work):
    found = tune(time_s=0.001)
    assert found.best is not None and found.trials >= 1 and not found.finished


def test_a_torn_line_costs_one_trial(tuned):
    work, first = tuned
    journal = work / "net.tune/trials.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])
    again = tune()
    assert (again.trials, again.remembered) == (1, first.trials - 1)


def test_a_file_of_the_front_that_was_deleted_is_made_again(tuned):
    work, first = tuned
    (work / first.front[0].file).unlink()
    again = tune()
    assert again.trials == 1
    assert (work / first.front[0].file).stat().st_size == first.front[0].nbytes


def test_a_journal_of_another_model_is_refused(tuned):
    qm_toy.make("net.toy", seed=1)
    with pytest.raises(UsageError, match=r"the journal 'net\.tune/trials\.jsonl' belongs to another model"):
        tune()


def test_a_journal_of_other_data_is_refused(tuned):
    qm_toy.make_data("data.npz", seed=1, samples=1200)
    with pytest.raises(UsageError, match="belongs to another data"):
        tune()


def test_a_folder_with_other_things_is_left_alone(work):
    (work / "mine").mkdir()
    (work / "mine/notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="the folder 'mine' holds other things"):
        tune(to="mine")
    assert [p.name for p in (work / "mine").iterdir()] == ["notes.txt"]


def test_there_must_be_something_to_resume(work):
    with pytest.raises(UsageError, match=r"there is nothing to resume in 'net\.tune'"):
        tune(resume=True)
    assert not (work / "net.tune").exists()


def test_arrays_in_memory_serve_as_data(work):
    with np.load("data.npz") as data:
        arrays = (data["x"], data["y"])
    assert tune(data=arrays).reached


def test_without_labels_an_answer_that_changed_counts_as_lost(work):
    with np.load("data.npz") as data:
        x = data["x"]
    found = tune(data=x, min_sqnr_db=None, max_drop=0.001)
    assert not found.labelled and not found.reached
    assert "answers changed" in found.best.verdict.sentence
    assert any(text.startswith("give labels") for text in found.helps)


def test_a_suffix_that_nothing_writes_is_a_sentence(work):
    with pytest.raises(UsageError, match=r"no installed method makes a file of 'net\.toy' that runs"):
        tune(suffix=".tflite")


def test_an_unknown_executor_is_a_sentence(work):
    with pytest.raises(UsageError, match="there is no executor 'grid'"):
        tune(executor="grid")


def test_a_request_that_is_refused_leaves_no_folder(work):
    (work / "net.toy").write_bytes(b"no model")
    with pytest.raises(UsageError, match="is not a toy model"):
        tune()
    assert not (work / "net.tune").exists()


def test_too_few_samples_are_a_sentence(work):
    with np.load("data.npz") as data:
        few = data["x"][:3]
    with pytest.raises(UsageError, match="3 samples cannot calibrate, be tried on and judge"):
        tune(data=few)
