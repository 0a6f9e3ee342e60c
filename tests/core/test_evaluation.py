"""Outcomes of single samples."""

import math

import numpy as np
import pytest

from qm.errors import UsageError
from qm.evaluation import cross_entropy, evaluate, matched, matching, outcome
from qm.judgement import outcomes_of
from qm.metric import Metric


def test_the_loss_of_probabilities_is_minus_their_logarithm():
    assert cross_entropy(np.array([0.25, 0.75]), 0) == pytest.approx(math.log(4))


def test_the_loss_of_logits_is_that_of_their_softmax():
    assert cross_entropy(np.array([3.0, 3.0]), 1) == pytest.approx(math.log(2))


def test_a_probability_of_zero_has_a_finite_loss():
    assert cross_entropy(np.array([1.0, 0.0]), 1) == pytest.approx(-math.log(1e-9))


def test_scores_that_are_not_finite_have_the_worst_loss():
    assert cross_entropy(np.array([np.nan, 1.0]), 1) == pytest.approx(-math.log(1e-9))


def test_with_a_metric_outputs_need_not_be_scores():
    metric = Metric("boxes", lambda outputs, label: outputs["boxes"].sum())
    made = outcome({"boxes": np.ones((1, 5, 4))}, 3, 0, metric)
    assert (made.prediction, made.loss, made.value) == (None, None, 20.0)


def test_outputs_that_are_neither_as_many_nor_named_alike_are_an_error():
    with pytest.raises(UsageError, match="the outputs p, q cannot be matched with a"):
        matched({"a": np.zeros(1)}, {"p": np.zeros(1), "q": np.zeros(1)})


def test_how_outputs_are_matched_is_said():
    a = np.zeros(1)
    assert matching({"a": a, "b": a}, {"b": a, "a": a}) == ""
    assert matching({"a": a, "b": a}, {"p": a, "b": a}) == "outputs matched by position: 'p' for 'a'"


def test_the_worst_samples_are_told_by_each_measure():
    before = [{"y": np.array([[0.9, 0.1]])}, {"y": np.array([[0.8, 0.2]])}, {"y": np.array([[0.7, 0.3]])}]
    after = [{"y": np.array([[0.9, 0.1]])}, {"y": np.array([[0.1, 0.9]])}, {"y": np.array([[0.6, 0.4]])}]
    metric = Metric("first", lambda outputs, label: outputs["y"][0, 0])
    found = outcomes_of(
        evaluate(zip(before, after, strict=True), [0, 0, 0], metric=metric, indices=[5, 6, 7]), [5, 6, 7]
    )
    assert found.index == (5, 6, 7)
    assert found.worst_by_sqnr() == found.worst_by_loss() == found.worst_by_metric() == [1, 2]
    assert found.loss_after[1] == pytest.approx(math.log(10), rel=1e-5)
    assert found.metric_after == (0.9, 0.1, 0.6)
