"""Grids of few-bit groups, whose scales a search finds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qm.numerics import fake_quantize, grid_for, group_grid

Array = NDArray[np.float32]


def sqnr_db(reference: Array, other: Array) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - other).sum()))


@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("axis", [0, 1])
def test_fitted_groups_are_no_worse_than_the_plain_range(group: int, axis: int) -> None:
    w = np.random.default_rng(0).laplace(size=(256, 130)).astype(np.float32)
    plain = grid_for(w, bits=4, symmetric=False, signed=False, axis=axis, group=group)
    fitted = group_grid(w, bits=4, group=group, axis=axis)
    assert fitted.scale.shape == plain.scale.shape
    assert sqnr_db(w, fake_quantize(w, fitted)) > sqnr_db(w, fake_quantize(w, plain)) + 0.2


def test_groups_that_four_bits_hold_exactly_are_found_exactly() -> None:
    steps = np.random.default_rng(0).integers(-5, 11, (64, 8))
    steps[::32], steps[1::32] = -5, 10  # Both ends of the grid in each group.
    w = (steps * np.float32(0.25)).astype(np.float32)
    assert np.array_equal(fake_quantize(w, group_grid(w, bits=4, group=32, axis=0)), w)


def test_a_group_of_zeros_stays_zero() -> None:
    w = np.zeros((40, 3), np.float32)
    assert np.array_equal(fake_quantize(w, group_grid(w, bits=4, group=32, axis=0)), w)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_a_tensor_searched_in_pieces_of_whole_groups_gives_the_same_grids(
    axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = np.random.default_rng(0).standard_normal((6, 72, 40)).astype(np.float32)
    whole = group_grid(w, bits=4, group=8, axis=axis)
    monkeypatch.setattr("qm.numerics.group.TILE", 8 * 7)
    pieces = group_grid(w, bits=4, group=8, axis=axis)
    assert np.array_equal(whole.scale, pieces.scale) and np.array_equal(whole.zero_point, pieces.zero_point)


def test_the_search_leaves_its_input_alone() -> None:
    w = np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)
    before = w.copy()
    group_grid(w, bits=4, group=32, axis=0)
    assert np.array_equal(w, before)


def test_values_whose_squares_overflow_still_get_a_grid_that_holds_them() -> None:
    w = np.linspace(-1, 1, 32, dtype=np.float32)[:, None] * np.float32(1e30)
    # Half a step of 15 steps over a range of 2e30, with a little for a zero point that is not a whole number.
    assert np.abs(fake_quantize(w, group_grid(w, bits=4, group=32, axis=0)) - w).max() <= 1.1 * 2e30 / 15
