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
