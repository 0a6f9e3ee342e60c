"""Scales that move range between channels: exact cases."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from qm.numerics import affine_bounds, centering, equalizing_scales, smoothing_scales


def test_equalized_weights_reach_equally_far_on_both_sides() -> None:
    made, read = np.array([8.0, 0.5, 1.0]), np.array([2.0, 8.0, 1.0])
    scales = equalizing_scales(made, read)
    assert scales.tolist() == [2.0, 0.25, 1.0]
    assert (made / scales).tolist() == (read * scales).tolist() == [4.0, 2.0, 1.0]


def test_a_channel_that_nothing_makes_or_reads_keeps_its_scale() -> None:
    assert equalizing_scales([0.0, 4.0, 4.0], [9.0, 0.0, 1.0]).tolist() == [1.0, 1.0, 2.0]


def test_half_the_strength_shares_the_range_between_inputs_and_weights() -> None:
    inputs, weights = np.array([16.0, 1.0]), np.array([1.0, 4.0])
    scales = smoothing_scales(inputs, weights, strength=0.5)
    assert scales / scales[1] == pytest.approx([8.0, 1.0])  # 4 / 1 against 1 / 2
    assert scales.mean() == pytest.approx(1.0)


def test_full_strength_makes_the_inputs_alike_and_none_the_weights() -> None:
    inputs, weights = np.array([16.0, 1.0, 3.0]), np.array([1.0, 4.0, 2.0])
    assert np.ptp(inputs / smoothing_scales(inputs, weights, strength=1.0)) == pytest.approx(0.0)
    assert np.ptp(weights * smoothing_scales(inputs, weights, strength=0.0)) == pytest.approx(0.0)


def test_a_nearly_silent_input_is_widened_a_thousandfold_at_most() -> None:
    scales = smoothing_scales([1.0, 1e-9], [1.0, 1.0], strength=1.0)
    assert scales[1] == pytest.approx(1e-3)


def test_inputs_that_are_silent_or_unread_keep_their_range() -> None:
    assert smoothing_scales([0.0, 5.0, 2.0], [1.0, 0.0, 1.0], strength=0.5)[:2].tolist() == [1.0, 1.0]
    assert smoothing_scales([0.0], [1.0], strength=0.5).tolist() == [1.0]


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_strength_outside_of_its_bounds_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=f"strength {strength} is not from 0 to 1"):
        smoothing_scales([1.0], [1.0], strength=strength)


def test_centred_channels_go_from_minus_one_to_one() -> None:
    low, high = np.array([-1.0, 2.0]), np.array([3.0, 10.0])
    half, middle = centering(low, high)
    assert ((low - middle) / half).tolist() == [-1.0, -1.0]
    assert ((high - middle) / half).tolist() == [1.0, 1.0]


def test_a_channel_that_stands_still_is_not_blown_up() -> None:
    assert centering([-4.0, 2.0], [4.0, 2.0])[0].tolist() == [4.0, 0.004]
    assert centering([2.0], [2.0])[0].tolist() == [1.0]


def test_the_bounds_of_a_sum_of_products_are_met_at_corners_and_nowhere_passed() -> None:
    weight, bias = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]]), np.array([0.25, -1.0])
    low, high = affine_bounds(weight, bias, -1.0, 6.0)
    corners = np.array([weight @ np.array(c) + bias for c in product((-1.0, 6.0), repeat=3)])
    assert low.tolist() == corners.min(axis=0).tolist()
    assert high.tolist() == corners.max(axis=0).tolist()
