"""Rounding that keeps results."""

from __future__ import annotations

import numpy as np
import pytest

from qm.numerics import (
    Grid,
    Moments,
    dequantize,
    grid_for,
    nearest_results,
    places,
    quantize,
    result_error,
    weight_clips,
    worst_pair_sum,
)
from qm.types import Array


def steps(value: float, rows: int) -> Grid:
    return Grid(scale=np.full(rows, value, np.float32), axis=0, bits=4, signed=True)


def inputs(rows: int, count: int, seed: int = 0) -> Array:
    """Inputs that go together."""
    random = np.random.default_rng(seed)
    mixed = np.eye(count) + 0.5 * random.standard_normal((count, count)) / np.sqrt(count)
    made: Array = (random.standard_normal((rows, count)) @ mixed).astype(np.float32)
    return made


def products(rows: Array) -> Array:
    moments = Moments(rows.shape[-1])
    moments.update(rows)
    return moments.means()[1]


def test_inputs_that_do_not_go_together_leave_the_nearest() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (4, 6))
    made = nearest_results(weight, np.eye(6), steps(0.25, 4))
    assert np.array_equal(made, np.clip(np.rint(weight / 0.25), -8, 7))


def test_two_inputs_that_are_the_same_share_their_rounding_error() -> None:
    # Each weight alone would be rounded up to 1; of two that always add up, one goes down.
    made = nearest_results(np.array([[0.6, 0.6]]), np.ones((2, 2)), steps(1.0, 1))
    assert made.sum() == 1


def test_an_input_that_is_always_zero_does_no_harm() -> None:
    made = nearest_results(np.ones((2, 3)) * 0.4, np.diag([1.0, 0.0, 1.0]), steps(0.25, 2))
    assert np.array_equal(made, np.full((2, 3), 2))


def test_no_inputs_but_zero_leave_the_nearest() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (4, 6)).astype(np.float32)
    grid = grid_for(weight, axis=0)
    assert np.array_equal(nearest_results(weight, np.zeros((6, 6)), grid), quantize(weight, grid))


def test_a_grid_with_zero_points_and_groups_is_honoured() -> None:
    weight = np.random.default_rng(1).normal(0.3, 1, (5, 8)).astype(np.float32)
    grid = grid_for(weight, bits=4, symmetric=False, signed=False, axis=1, group=4)
    assert np.array_equal(nearest_results(weight, np.eye(8), grid), quantize(weight, grid))


def test_results_change_less_than_by_the_nearest() -> None:
    weight = np.random.default_rng(2).normal(0, 1, (16, 150)).astype(np.float32)
    seen, grid = products(inputs(1000, 150)), grid_for(weight, bits=4, axis=0)
    made, nearest = nearest_results(weight, seen, grid), quantize(weight, grid)
    errors = [result_error(dequantize(q, grid) - weight, seen) for q in (made, nearest)]
    assert (errors[0] < errors[1]).all()


def test_columns_taken_in_blocks_are_those_taken_one_by_one() -> None:
    # The definition, without blocks: each column's loss goes into all columns after it at once.
    weight = np.random.default_rng(3).normal(0, 1, (3, 150))
    seen, step = products(inputs(1000, 150)), 0.25
    order = np.argsort(-np.diag(seen), kind="stable")
    damped = (seen + 0.01 * np.diag(seen).mean() * np.eye(150))[order][:, order]
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest, expected = weight[:, order].copy(), np.zeros((3, 150))
    for i in range(150):
        expected[:, order[i]] = np.clip(np.rint(rest[:, i] / step), -8, 7)
        rest[:, i:] -= np.outer((rest[:, i] - expected[:, order[i]] * step) / upper[i, i], upper[i, i:])
    assert np.array_equal(nearest_results(weight, seen, steps(step, 3)), expected)


def test_groups_are_rounded_each_by_its_own_inputs() -> None:
    weight = np.random.default_rng(4).normal(0, 1, (3, 2, 9)).astype(np.float32)
    rows = np.stack([inputs(200, 9, seed=i) for i in range(3)])
    moments = Moments(9, 3)
    moments.update(rows)
    seen = moments.means()[1]
    grid = Grid(scale=np.full((3, 2, 1), 0.25, np.float32), bits=4)
    made = nearest_results(weight, seen, grid)
    for i in range(3):
        assert np.array_equal(made[i], nearest_results(weight[i], seen[i], steps(0.25, 2)))


@pytest.mark.parametrize("count", [16, 17])
def test_pairs_of_columns_stay_safe_where_asked(count: int) -> None:
    weight = np.random.default_rng(5).uniform(0.5, 1, (8, count)).astype(np.float32)
    seen, grid = products(inputs(500, count)), grid_for(weight, axis=0)
    assert worst_pair_sum(nearest_results(weight, seen, grid)) > 128
    assert worst_pair_sum(nearest_results(weight, seen, grid, paired=True)) == 128


def test_the_error_of_results_is_that_of_the_rows_seen() -> None:
    change = np.random.default_rng(6).normal(0, 1, (4, 10))
    rows = inputs(300, 10)
    expected = np.square(rows @ change.T).mean(axis=0)
    # The products are summed in float32.
    assert result_error(change, products(rows)) == pytest.approx(expected, rel=1e-5)


def test_means_are_those_of_all_rows_however_they_came() -> None:
    rows = inputs(100, 7)
    moments = Moments(7)
    for part in np.array_split(rows, 9):
        moments.update(part)
    mean, crossed = moments.means()
    assert mean == pytest.approx(rows.mean(axis=0), abs=1e-6)
    assert crossed == pytest.approx(rows.T @ rows / 100, abs=1e-5)


def test_products_are_not_kept_where_they_are_not_wanted() -> None:
    moments = Moments(7, 2, crossed=False)
    moments.update(np.stack([inputs(10, 7), inputs(10, 7, seed=1)]))
    mean, crossed = moments.means()
    assert mean.shape == (2, 7)
    assert crossed.size == moments.size == 0


def test_no_inputs_have_no_means() -> None:
    with pytest.raises(ValueError, match="no means of no inputs"):
        Moments(3).means()


def test_places_are_spread_evenly_and_others_for_each_number() -> None:
    assert np.array_equal(places(10, 0, 100), np.arange(10))
    drawn = [places(1000, number, 100) for number in range(20)]
    assert all(np.all(np.diff(d) == 10) and len(d) == 100 for d in drawn)
    assert len({int(d[0]) for d in drawn}) > 5


def test_a_clip_weighed_by_the_inputs_gives_up_what_meets_none() -> None:
    # Of the one large weight nothing is heard: its input is always zero.
    row = np.array([[8.0, 1.0, -0.5, 0.25]])
    assert weight_clips(row, bits=4, method="hessian", power=np.ones(4)) == weight_clips(row, bits=4, method="mse")
    clip = weight_clips(row, bits=4, method="hessian", power=np.array([0.0, 1.0, 1.0, 1.0]))
    assert clip[0] < 0.5 * weight_clips(row, bits=4, method="mse")[0]


def test_a_clip_weighed_by_the_inputs_needs_their_power() -> None:
    with pytest.raises(ValueError, match="needs the power"):
        weight_clips(np.ones((1, 4)), bits=4, method="hessian")
