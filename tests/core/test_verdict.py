import math

import numpy as np
import pytest

from qm.errors import UsageError
from qm.interval import Interval, of_mean, of_rounds, student, wilson
from qm.verdict import (
    NO_CLASS,
    Answer,
    accuracy,
    agreement,
    mcnemar,
    needed_samples,
    paired_difference,
    top1,
    verdict,
)


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (1, 5, 2 * (1 + 6) / 64),
        (2, 2, 1.0),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
    ],
)
def test_mcnemar_is_exact(lost, gained, p):
    assert mcnemar(lost, gained) == p


def test_mcnemar_stands_thousands_of_flips():
    # The normal approximation with continuity correction is right to three digits there.
    z = (200 - 1) / math.sqrt(6200)
    assert mcnemar(3000, 3200) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=2e-3)


def test_the_paired_interval_is_tangos_in_the_published_example():
    # Fagerland, Lydersen and Laake, Statistics in Medicine 33, 2014, table 5: 1 and 7 flips of 21.
    found = paired_difference(7, 1, 21)
    assert (found.low, found.high) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_without_a_flip_the_loss_is_bounded_by_the_number_of_samples():
    # The score statistic solved by hand at no flips: z**2 / (n + z**2).
    z2 = 3.841459
    assert paired_difference(0, 0, 100).high == pytest.approx(z2 / (100 + z2), rel=1e-4)


def test_the_paired_interval_turns_with_its_arguments():
    there, back = paired_difference(12, 3, 500), paired_difference(3, 12, 500)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_not_worse_is_said_falsely_in_at_most_one_case_in_forty():
    # True loss exactly at the margin of 2 points, 6 % of samples flip, n = 500: 2.5 % nominal.
    # Of 3000 draws, 2.5 % have a standard error of 0.29 %: 3.5 % is more than three of them away.
    draws = np.random.default_rng(0).multinomial(500, [0.04, 0.02, 0.94], 3000)
    said = [verdict(paired_difference(int(b), int(c), 500), 0.02) is Answer.NOT_WORSE for b, c, _ in draws]
    assert np.mean(said) <= 0.035


def test_the_paired_interval_holds_the_truth_in_95_of_100_cases():
    draws = np.random.default_rng(1).multinomial(200, [0.05, 0.03, 0.92], 2000)
    held = [found.low <= -0.02 <= found.high for found in (paired_difference(int(b), int(c), 200) for b, c, _ in draws)]
    # The standard error of 95 % of 2000 is 0.5 %.
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(-0.009, 0.01, "not worse"), (-0.05, -0.011, "worse"), (-0.02, 0.02, "cannot tell"), (-0.01, 0, "cannot tell")],
)
def test_there_are_three_verdicts(low, high, answer):
    assert verdict(Interval((low + high) / 2, low, high), 0.01) == answer


def test_a_negative_margin_is_refused():
    with pytest.raises(UsageError, match=r"the allowed loss -0\.01 is negative"):
        verdict(Interval(0, -1, 1), -0.01)


def test_needed_samples_are_those_of_the_power_table():
    assert needed_samples(0.0, 0.05, 0.01) == pytest.approx(3922, abs=1)
    assert needed_samples(0.0, 0.02, 0.01) == pytest.approx(1567, abs=1)


def test_a_difference_at_the_margin_needs_more_samples_than_there_are():
    assert needed_samples(-0.01, 0.05, 0.01) is None


def test_as_many_samples_as_needed_without_flips_are_enough():
    n = needed_samples(0.0, 0.0, 0.01)
    assert verdict(paired_difference(0, 0, n + 1), 0.01) is Answer.NOT_WORSE
    assert verdict(paired_difference(0, 0, n - 1), 0.01) is Answer.CANNOT_TELL


def test_flips_are_counted_in_both_directions():
    found = accuracy([0, 1, 1, 2], [0, 1, 0, 1], [0, 0, 1, 2])
    assert (found.before, found.after, found.lost, found.gained) == (0.5, 0.75, 1, 2)


def test_the_class_that_lost_most_is_named():
    labels, before = [3, 3, 3, 7, 7, 9], [3, 3, 3, 7, 7, 0]
    worst = accuracy(labels, before, [3, 0, 0, 7, 0, 9]).worst_class
    assert (worst.label, worst.samples, worst.right_before, worst.right_after) == (3, 3, 3, 1)


def test_no_class_is_named_where_none_lost():
    assert accuracy([0, 1], [0, 0], [0, 1]).worst_class is None


def test_one_sample_tells_nothing():
    said = accuracy([1], [1], [1], margin=0.01).sentence()
    assert said.startswith("cannot tell, needs about 381 samples: 100.0 % before, 100.0 % after, +0.0 points")


def test_the_verdict_is_in_the_sentence():
    labels = np.zeros(1000, int)
    assert accuracy(labels, labels, labels, margin=0.01).sentence().startswith("not worse by more than 1 point:")
    assert accuracy(labels, labels, labels + 1, margin=0.05).sentence().startswith("worse by more than 5 points:")


def test_labels_of_another_length_are_refused():
    with pytest.raises(UsageError, match="there are 3 labels and 2 predictions"):
        accuracy([0, 1, 2], [0, 1], [0, 1])


def test_no_samples_are_refused():
    with pytest.raises(UsageError, match="no samples"):
        agreement([], [])


def test_scores_that_are_not_finite_are_never_right_and_never_agree():
    classes = top1([[0.1, 0.9], [math.nan, 0.0]])
    assert classes.tolist() == [1, NO_CLASS]
    assert agreement(classes, classes).share == 0.5


def test_a_prediction_that_is_no_class_is_wrong_whatever_the_label():
    found = accuracy([NO_CLASS, 1], [NO_CLASS, 1], [NO_CLASS, 1])
    assert (found.before, found.after) == (0.5, 0.5)


def test_samples_that_differ_are_listed_by_index():
    assert agreement([0, 1, 2, 3], [0, 2, 2, 0]).differing == (1, 3)


def test_the_wilson_interval_is_that_of_the_textbook():
    # Newcombe, Statistics in Medicine 17, 1998, table I, method 3.
    assert wilson(81, 263)[1:3] == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20)[1:3] == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (9, 2.2622), (10, 2.2281), (60, 2.0003)])
def test_students_quantiles_are_those_of_the_tables(freedom, quantile):
    assert student(freedom) == pytest.approx(quantile, abs=1e-4)


def test_a_mean_lies_in_its_bootstrap_interval():
    rng = np.random.default_rng(0)
    found = of_mean(rng.normal(1.0, 0.5, 400), rng)
    # 1.96 * 0.5 / sqrt(400) = 0.049, give or take a tenth for the drawing.
    assert (found.high - found.low) / 2 == pytest.approx(0.049, rel=0.1)


@pytest.mark.parametrize("between", [0.0, 1.0])
def test_the_interval_of_timings_holds_the_truth_whether_rounds_differ_or_not(between):
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        rounds = [rng.normal(rng.normal(0.0, between), 1.0, 10) for _ in range(5)]
        found = of_rounds(rounds, rng)
        held.append(found.low <= 0.0 <= found.high)
    # The standard error of 95 % of 400 is 1.1 %; the wider of two intervals may hold it more often.
    assert np.mean(held) >= 0.92


def test_rounds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(0)
    alike = [rng.normal(0.0, 0.01, 10) for _ in range(3)]
    apart = [r + shift for r, shift in zip(alike, (-0.1, 0.0, 0.1), strict=True)]
    narrow, wide = of_rounds(alike, rng), of_rounds(apart, rng)
    assert wide.over == "rounds"
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
