"""Rounding that keeps results."""

import numpy as np

from qm.numerics import nearest_results


def test_inputs_that_do_not_go_together_leave_the_nearest() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (4, 6))
    made = nearest_results(weight, np.eye(6), np.full(4, 0.25), 7)
    assert np.array_equal(made, np.clip(np.rint(weight / 0.25), -8, 7) * 0.25)


def test_two_inputs_that_are_the_same_share_their_rounding_error() -> None:
    # Each weight alone would be rounded up to 1; of two that always add up, one goes down.
    made = nearest_results(np.array([[0.6, 0.6]]), np.ones((2, 2)), np.ones(1), 7)
    assert made.sum() == 1.0


def test_an_input_that_is_always_zero_does_no_harm() -> None:
    products = np.diag([1.0, 0.0, 1.0])
    assert np.isfinite(nearest_results(np.ones((2, 3)) * 0.4, products, np.full(2, 0.25), 7)).all()
