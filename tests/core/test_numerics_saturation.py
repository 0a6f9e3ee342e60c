"""Weights for kernels that add pairs of products in 16 bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qm.errors import UsageError
from qm.numerics import SAFE_SUM, Grid, pair_safe_scales, quantize, saturating_dot, worst_pair_sum

weights = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.one_of(
        st.floats(-1, 1, width=32), st.floats(0.5, 1, width=32), st.floats(-(2.0**100), 2.0**100, width=32)
    ),
)


def rounded(w, scales):
    return quantize(w, Grid(scale=np.asarray(scales, np.float32), axis=0, narrow=True))


@given(weights)
@settings(deadline=None, max_examples=500)
def test_no_pair_of_pair_safe_weights_leaves_the_bound(w):
    assert worst_pair_sum(rounded(w, pair_safe_scales(w))) <= SAFE_SUM


def test_no_pair_leaves_the_bound_where_sums_lie_exactly_on_it():
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 1, (200_000, 1)).astype(np.float32)
    ties = np.round(rng.uniform(0, 128, (200_000, 1)) * 2) / 2
    w = np.concatenate([np.hstack([first, 1 - first]), np.hstack([ties, 128 - ties])]).astype(np.float32)
    w *= rng.uniform(0.1, 10, (len(w), 1)).astype(np.float32)
    assert worst_pair_sum(rounded(w, pair_safe_scales(w))) == SAFE_SUM


@given(weights)
@settings(deadline=None, max_examples=300)
def test_a_scale_one_percent_finer_would_saturate_or_clip(w):
    for row, scale in zip(w, pair_safe_scales(w), strict=True):
        finer = scale * np.float32(0.99)
        clips = np.abs(row).max() >= 127 * finer
        if row.any() and not clips and scale > np.finfo(np.float32).tiny:
            assert worst_pair_sum(rounded(row[None], [finer])) > SAFE_SUM


@given(weights)
@settings(deadline=None)
def test_a_channel_without_a_pair_at_risk_keeps_its_full_range(w):
    alone = np.zeros((len(w), 2 * w.shape[1]), np.float32)
    alone[:, ::2] = w
    peak = np.abs(w).max(axis=1).astype(np.float64) / 127
    expected = np.where(peak > 0, np.maximum(peak, np.finfo(np.float32).tiny), 1).astype(np.float32)
    assert np.array_equal(pair_safe_scales(alone), expected)


def test_a_pair_of_opposite_signs_is_not_at_risk():
    assert pair_safe_scales(np.array([[127, -127]], np.float32)) == 1


def test_a_pair_of_equal_weights_is_held_at_64():
    w = np.array([[127, 127]], np.float32)
    assert rounded(w, pair_safe_scales(w)).tolist() == [[64, 64]]


def test_an_odd_last_weight_stands_alone():
    assert pair_safe_scales(np.array([[1, 1, 127]], np.float32)) == 1


def test_weights_that_are_not_neighbours_do_not_matter():
    assert pair_safe_scales(np.array([[1, 126, 127, 1]], np.float32)) == 1
    assert pair_safe_scales(np.array([[1, 127, 127, 1]], np.float32), pairs=np.array([[1, 2]])) == 254 / 128


def test_one_channel_does_not_coarsen_another():
    scales = pair_safe_scales(np.array([[127, 127], [127, 0]], np.float32))
    assert scales.tolist() == [254 / 128, 1]


def test_channels_of_zeros_get_scale_one():
    assert pair_safe_scales(np.zeros((2, 3), np.float32)).tolist() == [1, 1]


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(UsageError, match="NaN or infinity"):
        pair_safe_scales(np.array([[1, np.nan]], np.float32))


def test_the_worst_pair_sum_is_of_one_sign():
    assert worst_pair_sum(np.array([[100, -100, -70, -60]], np.int8)) == 130
    assert worst_pair_sum(np.array([[100, 30, 3]], np.int8), pairs=np.array([[1, 2]])) == 33
    assert worst_pair_sum(np.zeros((0, 4), np.int8)) == 0


def test_a_pair_just_above_the_bound_saturates_and_one_at_the_bound_does_not():
    x = np.full((1, 2), 255, np.uint8)
    w = np.array([[64, 64], [65, 64], [-64, -64], [-65, -64]], np.int8)
    assert saturating_dot(x, w).tolist() == [[255 * 128, 32767, -255 * 128, -32768]]


def test_saturation_happens_by_pair_and_the_pairs_add_up_in_32_bits():
    x = np.full((1, 5), 255, np.uint8)
    w = np.array([[127, 127, 127, 127, 127]], np.int8)
    assert saturating_dot(x, w).item() == 2 * 32767 + 255 * 127


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(6))),
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(6)), elements=st.floats(-1, 1, width=32)),
)
@settings(deadline=None)
def test_pair_safe_weights_multiply_exactly(x, w):
    q = rounded(w, pair_safe_scales(w))
    assert np.array_equal(saturating_dot(x, q), x.astype(np.int32) @ q.T.astype(np.int32))


def test_full_range_weights_do_not_multiply_exactly():
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (20, 64)).astype(np.uint8), rng.integers(64, 128, (8, 64)).astype(np.int8)
    assert not np.array_equal(saturating_dot(x, w), x.astype(np.int32) @ w.T.astype(np.int32))


def test_large_products_are_cut_into_blocks_without_a_seam(monkeypatch):
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (11, 7)).astype(np.uint8), rng.integers(-128, 128, (3, 7)).astype(np.int8)
    whole = saturating_dot(x, w)
    monkeypatch.setattr("qm.numerics.saturation._BLOCK", 24)
    assert np.array_equal(saturating_dot(x, w), whole)
