"""Goals held against reports."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

import qm_toy
from qm.api import benchmark, quantize
from qm.check import Answer, Goal, check, failure
from qm.check.goal import samples_for_share
from qm.errors import AuditFailed, GoalMissed, UsageError
from qm.file import sha256
from qm.interval import wilson
from qm.measurement import Latency, Ratio
from qm.report import Finding, Level, Report, report_path
from qm.verdict import accuracy, agreement


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The report of a quantized toy model, all in one folder."""
    folder = tmp_path_factory.mktemp("template")
    data = qm_toy.make_data(folder / "data.npz", samples=80)
    return quantize(qm_toy.make(folder / "net.toy"), ["toy.round"], data=data, to=folder / "small.toy")


@pytest.fixture
def made(template, tmp_path):
    """The same in a folder of one's own."""
    shutil.copytree(Path(template.artifact.path).parent, tmp_path, dirs_exist_ok=True)

    def moved(file):
        return file.model_copy(update={"path": str(tmp_path / Path(file.path).name)})

    made = template.model_copy(update={"artifact": moved(template.artifact), "model": moved(template.model)})
    made.write(report_path(tmp_path / "small.toy"))
    return made


@pytest.fixture
def held(made, tmp_path):
    """What comes of one goal on the report, with other figures in it where they are given."""

    def held(name, bound, **figures):
        report = made.model_copy(update=figures)
        place = report_path(tmp_path / "small.toy")
        report.write(place)
        outcome = check(place, [Goal(name=name, bound=bound, text=f"{bound}")])
        (judged,) = outcome.goals
        return judged

    return held


def with_accuracy(made, lost, gained, samples):
    """The report's quality, with so many samples lost and gained."""
    before = [0] * lost + [1] * gained + [0] * (samples - lost - gained)
    after = [1] * lost + [0] * (samples - lost)
    return made.quality.model_copy(update={"accuracy": accuracy([0] * samples, before, after)})


def with_agreement(made, differing, samples):
    after = [1] * differing + [0] * (samples - differing)
    return made.quality.model_copy(update={"agreement": agreement([0] * samples, after)})


def speed(ratio, low, high, noise_floor=0.01):
    """A measured ratio; the latencies are of no consequence."""
    latency = Latency(
        runtime="toy", threads=1, cpu="any", latency_us=10, low_us=9, high_us=11, percentiles_us={}, rounds=3,
        blocks=30, runs=10, dropped=3, load_ms=1, peak_bytes=1, cpu_share=1, settled=True, stopped_by="time",
    )  # fmt: skip
    return Ratio(
        before=latency, after=latency, ratio=ratio, low=low, high=high, over="blocks", noise_floor=noise_floor,
        rounds=3, blocks=30, precision=0.02, time_s=20, stopped_by="time",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "gained", "samples", "answer"),
    [
        # By Tango's interval: 0 of 2,000 leaves -0.19 to 0.19 points, 60 leaves -3.8 to -2.3, 20 leaves -1.5 to -0.6.
        (0, 0, 2000, Answer.MET),
        (60, 0, 2000, Answer.MISSED),
        (20, 0, 2000, Answer.CANNOT_TELL),
        # Nothing lost in 100 samples is no proof of a loss below one point.
        (0, 0, 100, Answer.CANNOT_TELL),
    ],
)
def test_a_drop_is_judged_by_its_interval(held, made, lost, gained, samples, answer):
    assert held("max-drop", 0.01, quality=with_accuracy(made, lost, gained, samples)).answer is answer


def test_a_drop_that_cannot_be_told_says_how_many_samples_would(held, made):
    judged = held("max-drop", 0.01, quality=with_accuracy(made, 0, 0, 100))
    # Without a flip, the interval of n samples ends at z**2 / (n + z**2): n = z**2 * 0.99 / 0.01 = 380.3.
    assert judged.seen.startswith("cannot tell, needs about 381 samples: 100.0 % before")
    assert judged.next.startswith("Judge on about 381 samples: qm benchmark ")


def test_a_missed_drop_names_value_and_interval(held, made):
    judged = held("max-drop", 0.01, quality=with_accuracy(made, 60, 0, 2000))
    assert judged.seen == (
        "worse by more than 1 point: 100.0 % before, 97.0 % after, -3.0 points (-3.8 to -2.3), "
        "60 lost and 0 gained of 2000"
    )
    assert judged.value == pytest.approx(0.03)
    assert judged.low < judged.value < judged.high


@pytest.mark.parametrize(
    ("measured", "answer"),
    [
        (speed(1.5, 1.4, 1.6), Answer.MET),
        (speed(1.0, 0.95, 1.05), Answer.MISSED),
        (speed(1.5, 1.1, 1.9), Answer.CANNOT_TELL),
        # The interval clears 1.2, but by less than the model differs from itself.
        (speed(1.25, 1.22, 1.28, noise_floor=0.05), Answer.CANNOT_TELL),
        (speed(1.15, 1.12, 1.18, noise_floor=0.05), Answer.CANNOT_TELL),
    ],
)
def test_a_speedup_is_judged_by_interval_and_noise_floor(held, measured, answer):
    assert held("min-speedup", 1.2, speed=measured).answer is answer


def test_a_speedup_that_cannot_be_told_ends_in_a_longer_measurement(held):
    judged = held("min-speedup", 1.2, speed=speed(1.3, 1.15, 1.45))
    # (2 * ln(1.45/1.15)/2 / ln(1.3/1.2))**2 = 8.39 times the 20 seconds.
    assert "--time 168s" in judged.next
    assert judged.seen.startswith("1.30 times the original's speed (95 % interval 1.15 to 1.45, noise floor ±1.0 %, ")


@pytest.mark.parametrize(
    ("differing", "answer"), [(0, Answer.MET), (100, Answer.MISSED), (20, Answer.CANNOT_TELL), (15, Answer.CANNOT_TELL)]
)
def test_agreement_is_judged_by_its_interval(held, made, differing, answer):
    assert held("min-agreement", 0.98, quality=with_agreement(made, differing, 1000)).answer is answer


def test_the_samples_that_tell_a_share_from_a_bound_would():
    n = samples_for_share(0.99, 0.98)
    assert n == math.ceil(((1.959964 * math.sqrt(0.98 * 0.02) + 0.841621 * math.sqrt(0.99 * 0.01)) / 0.01) ** 2)
    assert wilson(round(0.99 * n), n).low > 0.98


def test_a_share_on_its_bound_cannot_be_told_by_any_number_of_samples():
    assert samples_for_share(0.98, 0.98) is None


def test_a_share_of_one_on_a_bound_of_one_has_no_samples_that_tell():
    assert samples_for_share(1.0, 1.0) is None


def test_size_is_held_against_the_bound_itself(held, made):
    nbytes = made.artifact.nbytes
    assert held("max-size", nbytes).answer is Answer.MET
    missed = held("max-size", nbytes - 1)
    assert (missed.answer, missed.value, missed.seen) == (Answer.MISSED, nbytes, f"{nbytes:,} bytes")


def test_the_ratio_is_that_of_the_files(held, made):
    ratio = made.artifact.nbytes / made.model.nbytes
    assert held("max-ratio", ratio + 1e-6).answer is Answer.MET
    assert held("max-ratio", ratio - 1e-6).answer is Answer.MISSED


def test_the_sqnr_is_a_bare_number(held, made):
    assert held("min-sqnr", made.quality.sqnr_db).answer is Answer.MET
    assert held("min-sqnr", made.quality.sqnr_db + 0.1).answer is Answer.MISSED


def test_identical_outputs_meet_every_sqnr(held, made):
    quality = made.quality.model_copy(update={"sqnr_db": None, "cosine": 1.0})
    judged = held("min-sqnr", 200, quality=quality)
    assert (judged.answer, judged.seen) == (Answer.MET, f"identical outputs on {made.quality.n} samples")


def test_outputs_that_cannot_be_compared_meet_no_sqnr(held, made):
    quality = made.quality.model_copy(update={"sqnr_db": None, "cosine": None})
    assert held("min-sqnr", 20, quality=quality).answer is Answer.NO_FIGURE


def test_a_goal_that_is_met_has_nothing_next(held):
    assert held("max-size", 1e9).next == ""


@pytest.mark.parametrize(
    ("name", "bound", "flag"),
    [("max-drop", 0.01, "--data D"), ("min-speedup", 1.2, "--benchmark"), ("min-agreement", 0.98, "--data D")],
)
def test_a_figure_that_the_report_lacks_is_asked_for(held, name, bound, flag):
    judged = held(name, bound, quality=None, speed=None)
    assert judged.answer is Answer.NO_FIGURE
    assert flag in judged.next


def test_agreement_on_made_up_inputs_is_no_figure(held, made):
    quality = with_agreement(made, 0, 1000).model_copy(update={"synthetic": True})
    judged = held("min-agreement", 0.98, quality=quality)
    assert judged.answer is Answer.NO_FIGURE
    assert judged.seen.endswith("has none but on made-up inputs")


def test_what_qm_benchmark_prints_is_a_report_too(made, tmp_path):
    told = benchmark(made.artifact.path, baseline=made.model.path, time_s=1)
    (tmp_path / "bench.json").write_text(told.model_dump_json())
    outcome = check(tmp_path / "bench.json", [Goal(name="min-speedup", bound=0.001, text="0.001")])
    assert outcome.accepted is None
    assert [goal.answer for goal in outcome.goals] == [Answer.MET]
    assert "it was measured, not audited" in outcome.notes


def test_an_artifact_of_another_hash_is_refused_by_both_hashes(made, tmp_path):
    place = tmp_path / "small.toy"
    place.write_bytes(place.read_bytes() + b" ")
    outcome = check(report_path(place), [Goal(name="max-size", bound=1e9, text="1GB")])
    assert outcome.goals == ()
    assert sha256(place) in outcome.problem.seen
    assert made.artifact.sha256 in outcome.problem.seen


def test_an_artifact_that_is_not_at_hand_is_noted(made, tmp_path):
    (tmp_path / "small.toy").unlink()
    outcome = check(report_path(tmp_path / "small.toy"), [])
    assert outcome.problem is None
    assert outcome.notes == (f"{made.artifact.path!r} is not at hand: that the report is about it was not checked",)


def test_an_original_that_changed_is_noted(made, tmp_path):
    net = tmp_path / "net.toy"
    net.write_bytes(net.read_bytes() + b" ")
    (note,) = check(report_path(tmp_path / "small.toy"), []).notes
    assert note.startswith(f"{made.model.path!r} has changed since")


def test_the_file_beside_the_report_counts_before_the_path_in_it(made, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("small.toy", "small.toy.report.json"):
        (elsewhere / name).write_bytes((tmp_path / name).read_bytes())
    (tmp_path / "small.toy").write_bytes(b"another")
    assert check(elsewhere / "small.toy.report.json", []).problem is None


def outcome_of(made, tmp_path, goals=(), **changes):
    place = report_path(tmp_path / "small.toy")
    made.model_copy(update=changes).write(place)
    return check(place, goals)


def test_a_report_of_a_rejected_artifact_fails_with_the_broken_promise(made, tmp_path):
    broken = Finding(check="schemes", level=Level.BROKEN, seen="1 layer is float", layer="head", next="Leave it out.")
    error = failure([outcome_of(made, tmp_path, accepted=False, findings=(broken,))])
    assert isinstance(error, AuditFailed)
    assert str(error) == f"{made.artifact.path!r} was not accepted by its audit: 1 layer is float (head)\nLeave it out."


def test_the_gravest_failure_decides_and_the_others_are_counted(made, tmp_path):
    missed = Goal(name="max-size", bound=1, text="1B")
    lacking = Goal(name="min-speedup", bound=1, text="1")
    assert isinstance(failure([outcome_of(made, tmp_path, [missed])]), GoalMissed)
    error = failure([outcome_of(made, tmp_path, [missed, lacking])])
    assert type(error) is UsageError
    assert error.message.endswith("(and 1 more failure)")
    error = failure([outcome_of(made, tmp_path, [missed, lacking], accepted=False)])
    assert isinstance(error, AuditFailed)
    assert error.message.endswith("(and 2 more failures)")


def test_what_cannot_be_told_fails_unless_it_is_allowed(made, tmp_path):
    goal = Goal(name="max-drop", bound=0.01, text="1%")
    outcome = outcome_of(made, tmp_path, [goal], quality=with_accuracy(made, 0, 0, 100))
    error = failure([outcome])
    assert isinstance(error, GoalMissed)
    assert error.message.startswith(f"{made.artifact.path!r} is not known to meet '--max-drop 1%': cannot tell, needs")
    assert failure([outcome], allow_unsure=True) is None


def test_all_met_is_no_failure(made, tmp_path):
    assert failure([outcome_of(made, tmp_path, [Goal(name="max-size", bound=1e9, text="1GB")])]) is None


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"", "is not a report, for it is not JSON"),
        (b"\xff\xfe", "is not a report, for it is not JSON"),
        (b"[" * 100_000, "is not a report, for it is not JSON"),
        (b"[]", "is not a report: "),
        (b"{}", "is not a report: "),
        (b'{"artifact": 1}', "is not a report: 'artifact'"),
        (b'{"entries": []}', "compares several models, and goals are for one"),
    ],
)
def test_what_is_no_report_is_refused_in_a_sentence(tmp_path, content, seen):
    (tmp_path / "x.json").write_bytes(content)
    assert seen in check(tmp_path / "x.json", []).problem.seen


def test_a_missing_report_is_refused_by_its_path(tmp_path):
    assert check(tmp_path / "none.json", []).problem.seen.endswith("cannot be read: No such file or directory")


def test_the_artifact_in_place_of_its_report_is_met_with_the_reports_name(made, tmp_path):
    outcome = check(tmp_path / "small.toy", [])
    assert outcome.problem.next == f"Did you mean {str(report_path(tmp_path / 'small.toy'))!r}?"


def test_a_report_is_read_as_it_was_written(made, tmp_path):
    place = report_path(tmp_path / "small.toy")
    assert Report.read(place).artifact.sha256 == check(place, []).artifact.sha256
