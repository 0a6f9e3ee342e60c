"""Weights fitted to what their inputs are, whatever framework runs the model."""

from __future__ import annotations

import numpy as np
import pytest

from qm.fitting import WIDEST, FittingOptions, Product, Wishes, portions
from qm.numerics import dequantize, grid_for, patches, quantize
from qm.types import Array

PLAIN = Wishes(rounding="nearest", ranges="minmax", biases=False)
KEEP = Wishes(rounding="gptq", ranges="hessian", biases=True)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def watched(rows: Array, inputs: Array, *, bits: int = 4, wishes: Wishes = KEEP) -> Product:
    made = Product.of(rows, bits, ["x"], wishes)
    made.moments["x"].update(inputs)
    return made


def test_few_bits_are_rounded_with_care_and_eight_are_not_unless_it_is_asked_for() -> None:
    auto = Wishes.of(FittingOptions())
    assert (auto.keeps_results(4), auto.reach(4)) == (True, "hessian")
    assert Wishes.of(FittingOptions(), few="mse").reach(4) == "mse"
    assert (auto.keeps_results(8), auto.reach(8)) == (False, "minmax")
    assert Wishes.of(FittingOptions(rounding="gptq")).keeps_results(8)
    assert not Wishes.of(FittingOptions(rounding="nearest")).keeps_results(4)


def test_inputs_are_looked_at_only_where_something_follows_from_them() -> None:
    assert not Product.of(normal(1, 4, 6), 8, ["x"], PLAIN).moments
    means = Product.of(normal(1, 4, 6), 8, ["x"], Wishes(rounding="auto", ranges="auto", biases=True))
    assert means.moments and not means.size


def test_without_care_the_integers_are_the_nearest() -> None:
    rows = normal(2, 4, 6)
    made = Product.of(rows, 8, ["x"], PLAIN)
    flat = rows.reshape(8, 6)
    grid = grid_for(flat, axis=0)
    assert np.array_equal(made.grid(PLAIN).scale, grid.scale)
    assert np.array_equal(made.integers(made.grid(PLAIN), PLAIN).reshape(8, 6), quantize(flat, grid))


def test_results_stay_nearer_than_with_the_nearest_integers() -> None:
    mixing = normal(32, 32, seed=3)
    inputs = normal(2, 500, 32, seed=1) @ mixing
    product = watched(normal(2, 4, 32), inputs)
    grid = product.grid(KEEP)
    stacked = product.rows.reshape(8, 32)

    def error(integers: Array) -> float:
        change = (dequantize(integers.reshape(8, 32), grid) - stacked).reshape(2, 4, 32)
        return float(np.square(inputs @ change.swapaxes(-1, -2)).mean())

    assert error(product.integers(grid, KEEP)) < 0.7 * error(quantize(stacked, grid))


def test_the_shift_is_exactly_what_the_mean_of_the_results_lacks() -> None:
    inputs = normal(2, 100, 6, seed=1) + 1
    product = watched(normal(2, 4, 6), inputs)
    grid = product.grid(KEEP)
    integers = product.integers(grid, KEEP)
    held = dequantize(integers.reshape(8, 6), grid).reshape(2, 4, 6).astype(np.float64)
    lacking = (inputs @ (product.rows - held).swapaxes(-1, -2)).mean(axis=1).reshape(-1)
    # Sums of 100 float32 numbers round in the seventh digit.
    np.testing.assert_allclose(product.shift(integers, grid, "x"), lacking, atol=1e-5)


def test_behind_layers_that_moved_its_inputs_a_product_follows_them() -> None:
    before = normal(1, 400, 6, seed=1) + 1
    product = Product.of(normal(1, 4, 6), 4, ["x"], KEEP)
    drifts = product.drifts()
    now = before * np.float32(0.5)
    drifts["x"].update(before, now)
    wanted = before @ product.rows.swapaxes(-1, -2)

    def error(made: Product) -> float:
        return float(np.square(now @ made.rows.swapaxes(-1, -2) - wanted).mean())

    # The mean power is added to each input's own, so that they go a part of the way: most of it for the common mean.
    assert error(product.behind(drifts, KEEP)) < 0.4 * error(product)
    assert np.array_equal(product.behind(drifts, PLAIN).rows, product.rows)


def test_what_is_lost_is_what_the_mean_of_the_results_lacks_to_what_it_was() -> None:
    before = normal(2, 100, 6, seed=1) + 1
    now = before * np.float32(0.75)
    product = Product.of(normal(2, 4, 6), 4, ["x"], KEEP)
    drifts = product.drifts()
    drifts["x"].update(before, now)
    goal = product.behind(drifts, KEEP)
    grid = goal.grid(KEEP)
    integers = goal.integers(grid, KEEP)
    held = goal.values(integers, grid).astype(np.float64)
    lacking = (before @ product.rows.swapaxes(-1, -2) - now @ held.swapaxes(-1, -2)).mean(axis=1).reshape(-1)
    # Sums of 100 float32 numbers round in the seventh digit.
    np.testing.assert_allclose(product.lost(integers, grid, drifts["x"]), lacking, atol=1e-5)


def test_ranges_follow_the_power_of_the_inputs() -> None:
    rows = normal(1, 1, 64)
    rows[..., 0] = 8
    silent = np.ones((1, 50, 64), np.float32)
    silent[..., 0] = 0
    # An outlier that meets no input may be clipped as far as it goes: 0.3 of the widest is the least that is tried.
    assert watched(rows, silent).grid(KEEP).scale[0] < 0.5 * watched(rows, np.ones_like(silent)).grid(KEEP).scale[0]


def test_weights_with_too_many_inputs_are_rounded_to_the_nearest() -> None:
    product = Product.of(normal(1, 1, WIDEST + 1), 4, ["x"], KEEP)
    assert product.moments and not product.size


def test_products_are_parted_so_that_few_are_kept_at_a_time() -> None:
    wide = [Product.of(normal(1, 1, 4000), 4, ["x"], KEEP) for _ in range(5)]
    assert list(portions(wide)) == [[0, 1], [2, 3], [4]]  # 16 million each, 33 at a time.
    assert list(portions([])) == []


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_patches_are_what_a_kernel_sees(most: int) -> None:
    data = np.arange(2 * 3 * 5 * 6, dtype=np.float32).reshape(2, 3, 5, 6)
    seen = patches(data, kernel=(2, 3), strides=(1, 2), dilations=(2, 1), margins=[(1, 0), (0, 1)], number=0, most=most)
    padded = np.pad(data, [(0, 0), (0, 0), (1, 0), (0, 1)])
    every = [padded[:, :, i : i + 3 : 2, j : j + 3] for i in range(4) for j in range(0, 5, 2)]
    assert seen.shape == (2, 3, min(most, seen.shape[2]), 2, 3)
    step = -(-len(every) // most)
    assert np.array_equal(seen, np.stack(every[::step], axis=2))
