"""The ranges of weights."""

from __future__ import annotations

import numpy as np
import pytest

from qm_tf.weight import bounds

METHODS = ("minmax", "mse", "octav")

WEIGHT = np.random.default_rng(3).standard_t(4, (8, 3, 3, 16)).astype(np.float32)


def squared_error(bits: int, method: str) -> float:
    high = (1 << (bits - 1)) - 1
    step = bounds(WEIGHT, 0, bits=bits, method=method) / high
    low = -high if bits >= 8 else -high - 1
    return float(np.square(np.clip(np.rint(WEIGHT / step), low, high) * step - WEIGHT).sum())


@pytest.mark.parametrize("method", METHODS)
def test_a_bound_has_the_rank_of_the_weight_and_one_entry_a_channel(method: str) -> None:
    assert bounds(WEIGHT, 3, bits=4, method=method).shape == (1, 1, 1, 16)
    assert bounds(WEIGHT, None, bits=4, method=method).shape == (1, 1, 1, 1)


def test_minmax_covers_all() -> None:
    assert np.array_equal(bounds(WEIGHT, 0, bits=4, method="minmax").reshape(-1), np.abs(WEIGHT).max(axis=(1, 2, 3)))


def test_least_squares_beat_octav_which_beats_minmax_at_4_bits() -> None:
    assert squared_error(4, "mse") < squared_error(4, "octav") < squared_error(4, "minmax")


def test_no_bound_is_beyond_the_values() -> None:
    widest = np.abs(WEIGHT).max(axis=(1, 2, 3))
    for method in METHODS:
        assert (bounds(WEIGHT, 0, bits=4, method=method).reshape(-1) <= widest * (1 + 1e-6)).all()


def test_a_channel_of_zeros_has_a_small_bound_above_zero() -> None:
    weight = WEIGHT.copy()
    weight[2] = 0
    for method in METHODS:
        made = bounds(weight, 0, bits=8, method=method).reshape(-1)
        assert 0 < made[2] < 1e-3 * made.max()


def test_a_bias_fits_in_32_bits_at_the_scale_of_the_product() -> None:
    weight, bias = WEIGHT * 1e-9, np.full(8, 5.0, np.float32)
    most = bounds(weight, 0, bits=8, method="minmax", bias=bias, step=1e-3)
    assert (bias / (most.reshape(-1) / 127 * 1e-3) <= 2**31).all()
