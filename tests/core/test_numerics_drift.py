"""Weights that follow inputs that have moved."""

from __future__ import annotations

import numpy as np
import pytest

from qm.numerics import Drift, followed
from qm.types import Array


def inputs(rows: int, count: int, seed: int = 0) -> Array:
    made: Array = np.random.default_rng(seed).standard_normal((rows, count)).astype(np.float32)
    return made


def drift(before: Array, now: Array) -> Drift:
    made = Drift(before.shape[-1], len(before) if before.ndim == 3 else 0)
    for one, other in zip(np.array_split(before, 5, axis=-2), np.array_split(now, 5, axis=-2), strict=True):
        made.update(one, other)
    return made


def test_the_means_are_those_of_all_rows() -> None:
    before, now = inputs(100, 6), inputs(100, 6, seed=1)
    made = drift(before, now)
    # Sums of float32 in another order.
    assert made.before() == pytest.approx(before.mean(axis=0), abs=1e-6)
    assert made.now.means()[1] == pytest.approx(now.T @ now / 100, abs=1e-5)
    assert made.moved() == pytest.approx((before - now).T @ now / 100, abs=1e-5)


def test_inputs_that_stay_leave_the_weight_as_it_is() -> None:
    weight, rows = inputs(3, 6, seed=2), inputs(100, 6)
    made = drift(rows, rows)
    assert np.array_equal(followed(weight, made.moved(), made.now.means()[1]), weight)


def test_inputs_that_all_shrink_are_made_good_by_larger_weights() -> None:
    weight, rows = inputs(3, 6, seed=2), inputs(1000, 6)
    made = drift(rows, rows / 2)
    products = made.now.means()[1]
    assert followed(weight, made.moved(), products, ridge=0) == pytest.approx(2 * weight, rel=1e-3)
    # As much as the power itself is added: half of the way is left. Powers of 1,000 normal rows differ by 10 %.
    assert followed(weight, made.moved(), products, ridge=1) == pytest.approx(1.5 * weight, rel=0.1)


def test_results_come_closer_to_what_they_were() -> None:
    weight, before = inputs(8, 20, seed=2), inputs(500, 20)
    now = (before @ (np.eye(20) + 0.1 * inputs(20, 20, seed=3)) + 0.1 * inputs(500, 20, seed=4)).astype(np.float32)
    made = drift(before, now)
    wanted = before @ weight.T
    errors = [
        np.square(now @ followed(weight, made.moved(), made.now.means()[1], ridge=ridge).T - wanted).mean()
        for ridge in (1e6, 1.0, 0.0)
    ]
    assert errors[2] < errors[1] < errors[0]


def test_groups_follow_each_its_own_inputs() -> None:
    weight = np.stack([inputs(2, 5, seed=i) for i in range(3)])
    before = np.stack([inputs(50, 5, seed=10 + i) for i in range(3)])
    now = before + 0.1 * np.stack([inputs(50, 5, seed=20 + i) for i in range(3)])
    whole = drift(before, now)
    made = followed(weight, whole.moved(), whole.now.means()[1])
    for i in range(3):
        part = drift(before[i], now[i])
        assert made[i] == pytest.approx(followed(weight[i], part.moved(), part.now.means()[1]), abs=1e-4)


def test_no_inputs_have_not_moved() -> None:
    with pytest.raises(ValueError, match="no means of no inputs"):
        Drift(3).moved()


def test_products_are_not_kept_where_they_are_not_wanted() -> None:
    made = Drift(3, crossed=False)
    made.update(inputs(5, 3), inputs(5, 3))
    assert made.moved().size == made.now.size == 0
