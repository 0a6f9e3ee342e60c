"""Weights rounded up or down, all of a row at once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qm.numerics import (
    Grid,
    adaptive_results,
    dequantize,
    grid_for,
    nearest_results,
    pair_safe_scales,
    quantize,
    result_error,
    worst_pair_sum,
)
from qm.types import Array


def case(outputs: int, inputs: int, *, seed: int = 0, mixed: float = 0.5) -> tuple[Array, Array]:
    """A weight ``(out, in)``, and the means of the products of inputs that go together, as after a ReLU."""
    random = np.random.default_rng(seed)
    mix = np.eye(inputs) + mixed * random.standard_normal((inputs, inputs)) / np.sqrt(inputs)
    rows = np.maximum(random.standard_normal((2000, inputs)) @ mix + 0.3, 0)
    return random.standard_normal((outputs, inputs)).astype(np.float32), rows.T @ rows / len(rows)


def error(integers: Array, weight: Array, products: Array, grid: Grid) -> Array:
    return result_error(dequantize(integers, grid).astype(np.float64) - weight, products)


def test_inputs_that_do_not_go_together_leave_the_nearest() -> None:
    weight, _ = case(4, 6)
    grid = grid_for(weight, bits=4, axis=0)
    assert np.array_equal(adaptive_results(weight, np.eye(6), grid), quantize(weight, grid))


def test_two_inputs_that_are_the_same_share_their_rounding_error() -> None:
    # Each weight alone would be rounded up to 1; of two that always add up, one goes down.
    grid = Grid(scale=np.ones(1, np.float32), axis=0, bits=4)
    assert adaptive_results(np.array([[0.6, 0.6]]), np.ones((2, 2)), grid).sum() == 1


@pytest.mark.parametrize("steps", [1, 20, 1000])
def test_no_row_is_worse_than_the_nearest_however_few_the_steps(steps: int) -> None:
    weight, products = case(32, 12, mixed=3)
    grid = grid_for(weight, bits=4, axis=0)
    made = adaptive_results(weight, products, grid, steps=steps)
    errors = [error(q, weight, products, grid) for q in (made, quantize(weight, grid))]
    assert (errors[0] <= errors[1]).all()
    assert errors[0].sum() < 0.8 * errors[1].sum()


def test_of_five_inputs_most_rows_get_the_best_of_all_ways() -> None:
    weight, products = case(64, 5, mixed=1)
    grid = grid_for(weight, bits=4, axis=0)
    low, high = grid.limits
    down = np.floor(weight.astype(np.float64) / grid.scale[:, None])
    ways = [np.clip(down + np.array(w), low, high).astype(np.int8) for w in itertools.product((0, 1), repeat=5)]
    best = np.min([error(q, weight, products, grid) for q in ways], axis=0)
    found = error(adaptive_results(weight, products, grid), weight, products, grid)
    assert (found >= best * (1 - 1e-9)).all()
    # Descent ends where no single weight gains, which may need two at once.
    assert np.mean(found <= best * (1 + 1e-9)) > 0.8


def test_no_single_weight_could_go_to_its_other_side_for_less_error() -> None:
    weight, products = case(4, 20, mixed=2)
    grid = grid_for(weight, bits=4, axis=0)
    made = adaptive_results(weight, products, grid)
    least = error(made, weight, products, grid)
    places = weight.astype(np.float64) / grid.scale[:, None]
    for i in range(20):
        other = made.copy()
        turned = np.where(made[:, i] == np.floor(places[:, i]), made[:, i] + 1, made[:, i] - 1)
        other[:, i] = np.clip(turned, *grid.limits)
        assert (error(other, weight, products, grid) >= least * (1 - 1e-9)).all()


def test_many_inputs_leave_less_error_than_column_by_column() -> None:
    weight, products = case(48, 150)
    grid = grid_for(weight, bits=4, axis=0)
    errors = [
        error(q, weight, products, grid).sum()
        for q in (adaptive_results(weight, products, grid), nearest_results(weight, products, grid))
    ]
    assert errors[0] < errors[1]


def test_every_weight_is_next_to_where_it_was_and_within_its_grid() -> None:
    weight, products = case(16, 30)
    grid = Grid(scale=np.full(16, 0.15, np.float32), axis=0, bits=4)
    made = adaptive_results(weight, products, grid)
    low, high = grid.limits
    assert made.min() == low
    assert made.max() == high
    assert (np.abs(made - np.clip(weight / 0.15, low, high)) < 1 + 1e-4).all()


def test_a_grid_with_zero_points_and_groups_is_honoured() -> None:
    weight = np.random.default_rng(1).normal(0.3, 1, (5, 8)).astype(np.float32)
    grid = grid_for(weight, bits=4, symmetric=False, signed=False, axis=1, group=4)
    assert np.array_equal(adaptive_results(weight, np.eye(8), grid), quantize(weight, grid))


def test_groups_are_rounded_each_by_its_own_inputs() -> None:
    cases = [case(2, 9, seed=i) for i in range(3)]
    weight, products = (np.stack([c[i] for c in cases]) for i in (0, 1))
    made = adaptive_results(weight, products, Grid(scale=np.full((3, 2, 1), 0.25, np.float32), bits=4))
    for i in range(3):
        grid = Grid(scale=np.full(2, 0.25, np.float32), bits=4, axis=0)
        # Not the same sums in another order: errors, not integers, are compared.
        alone = error(adaptive_results(weight[i], products[i], grid), weight[i], products[i], grid)
        assert error(made[i], weight[i], products[i], grid) == pytest.approx(alone, rel=0.1)


def test_inputs_that_are_always_zero_leave_the_nearest() -> None:
    weight, products = case(4, 6)
    grid = grid_for(weight, bits=4, axis=0)
    assert np.array_equal(adaptive_results(weight, np.zeros((6, 6)), grid), quantize(weight, grid))
    products[2], products[:, 2] = 0, 0
    assert np.array_equal(adaptive_results(weight, products, grid)[:, 2], quantize(weight, grid)[:, 2])


def test_the_same_weights_give_the_same_integers() -> None:
    weight, products = case(8, 40)
    grid = grid_for(weight, bits=4, axis=0)
    first, second = (adaptive_results(weight, products, grid) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("count", [16, 17])
def test_pairs_of_columns_stay_safe_where_asked(count: int) -> None:
    weight = np.random.default_rng(5).uniform(0.5, 1, (32, count)).astype(np.float32)
    _, products = case(1, count)
    grid = Grid(scale=pair_safe_scales(weight), axis=0)
    assert worst_pair_sum(quantize(weight, grid)) <= 128
    assert worst_pair_sum(adaptive_results(weight, products, grid)) > 128
    assert worst_pair_sum(adaptive_results(weight, products, grid, paired=True)) <= 128
