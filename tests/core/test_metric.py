"""A user's own metric: what it may return, and what its change allows to say."""

import numpy as np
import pytest

from qm.errors import UsageError
from qm.metric import Metric, find_metric, metric_change
from qm.verdict import Answer

Y = {"y": np.ones((1, 3))}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "returned 'NoneType', not a number for sample 7"),
        ("0.5", "returned 'str', not a number for sample 7"),
        (float("nan"), "returned nan for sample 7"),
        (float("inf"), "returned inf for sample 7"),
        (np.ones(3), r"returned an array of shape \[3\] for sample 7"),
    ],
)
def test_what_is_no_finite_number_is_one_sentence_that_names_the_sample(value, words):
    with pytest.raises(UsageError, match=words) as caught:
        Metric("mine", lambda outputs, label: value)(Y, 0, 7)
    assert caught.value.hint


@pytest.mark.parametrize("value", [1, 0.5, True, np.float32(2), np.array([3.0])])
def test_whatever_is_one_number_will_do(value):
    assert Metric("mine", lambda outputs, label: value)(Y, 0, 0) == float(np.asarray(value).reshape(()))


def test_a_name_that_is_not_of_the_form_is_told():
    with pytest.raises(UsageError, match="'accuracy' is not of the form package.module:function"):
        find_metric("accuracy")


def test_a_name_that_is_not_there_is_told():
    with pytest.raises(UsageError, match="module 'math' has no function 'sqrtt'"):
        find_metric("math:sqrtt")


def test_the_interval_is_of_the_paired_difference():
    rng = np.random.default_rng(0)
    before = rng.normal(0, 10, 500)
    change = metric_change("m", before, before - 0.5 + rng.normal(0, 0.1, 500), margin=0.1)
    # The spread of the metric itself is a hundred times that of the difference, and does not count.
    assert -0.52 < change.low < change.high < -0.48
    assert change.answer is Answer.WORSE


def test_a_change_within_the_margin_is_not_worse():
    before = np.linspace(0, 1, 200)
    change = metric_change("m", before, before - 0.01 * np.tile([0.0, 1.0], 100), margin=0.1)
    assert change.answer is Answer.NOT_WORSE


def test_a_single_sample_has_no_interval_and_no_verdict():
    change = metric_change("m", [1.0], [1.0], margin=0.1)
    assert (change.low, change.high, change.answer, change.needed) == (None, None, Answer.CANNOT_TELL, None)


def test_no_difference_on_few_samples_is_not_taken_for_no_difference():
    change = metric_change("m", np.ones(20), np.ones(20), margin=0.01)
    assert (change.low, change.high) == pytest.approx((-0.15, 0.15))
    assert change.answer is Answer.CANNOT_TELL
    # 3 of n may still differ, by one whole: 3 / 0.01.
    assert change.needed == 300


def test_samples_that_would_settle_it_are_told():
    change = metric_change("m", np.zeros(30), np.tile([1.0, -1.0], 15), margin=0.1)
    assert change.answer is Answer.CANNOT_TELL
    # ((1.96 + 0.8416) * deviation / 0.1)**2, the deviation's square being 30/29.
    assert change.needed == 812


def test_few_samples_get_students_interval_where_it_is_wider():
    change = metric_change("m", [0.0, 0.0, 0.0], [1.0, 2.0, 3.0])
    # Student's t of two degrees of freedom is 4.3027; the deviation is 1.
    assert change.high - change.difference == pytest.approx(4.3027 / 3**0.5, rel=1e-4)


def test_without_a_margin_there_is_no_verdict():
    assert metric_change("m", [0.0, 1.0], [1.0, 1.0]).answer is None
