"""Integer grids and packing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qm.errors import UsageError
from qm.numerics import (
    Grid,
    dequantize,
    extremes,
    fake_quantize,
    grid_for,
    grid_for_range,
    limits,
    pack_int4,
    quantize,
    storage,
    unpack_int4,
)

EPS = float(np.finfo(np.float32).eps)
TINY = float(np.finfo(np.float32).tiny)
LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("bits", "signed", "narrow", "expected"),
    [
        (8, True, False, (-128, 127)),
        (8, True, True, (-127, 127)),
        (8, False, False, (0, 255)),
        (8, False, True, (1, 255)),
        (4, True, False, (-8, 7)),
        (4, False, False, (0, 15)),
        (2, True, True, (-1, 1)),
        (16, True, False, (-32768, 32767)),
        (16, False, False, (0, 65535)),
    ],
)
def test_limits_follow_from_bits_and_sign(bits, signed, narrow, expected):
    assert limits(bits, signed=signed, narrow=narrow) == expected


@pytest.mark.parametrize("bits", [0, 1, 17])
def test_a_grid_of_no_useful_width_is_refused(bits):
    with pytest.raises(ValueError, match=f"2 to 16 bits, not {bits}"):
        limits(bits)


def test_integers_are_held_in_the_smallest_type_that_fits():
    assert [storage(4), storage(8), storage(9), storage(16)] == [np.int8, np.int8, np.int16, np.int16]
    assert storage(8, signed=False) == np.uint8


def test_powers_of_two_survive_a_symmetric_grid_exactly():
    x = np.array([-127, -64, 0, 1, 127], np.float32) / 64
    grid = grid_for(x)
    assert grid.scale == np.float32(1 / 64)
    assert quantize(x, grid).tolist() == [-127, -64, 0, 1, 127]
    assert np.array_equal(fake_quantize(x, grid), x)


def test_an_asymmetric_grid_uses_every_integer():
    grid = grid_for_range(-1, 254)
    assert (grid.scale, grid.zero_point) == (1, 1)
    assert quantize(np.array([-1, 0, 254], np.float32), grid).tolist() == [0, 1, 255]


def test_halves_round_to_even():
    grid = Grid(scale=np.float32(1).reshape(()))
    assert quantize(np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), grid).tolist() == [0, 2, 2, 0, -2]


def test_values_beyond_the_grid_are_clipped():
    grid = Grid(scale=np.float32(1e-30).reshape(()), narrow=True)
    assert quantize(np.array([1e30, -1e30, np.inf], np.float32), grid).tolist() == [127, -127, 127]


def test_a_range_that_leaves_zero_out_is_stretched_to_it():
    assert dequantize(np.array([0, 255], np.uint8), grid_for_range(3, 5)).tolist() == pytest.approx([0, 5])
    assert dequantize(np.array([0, 255], np.uint8), grid_for_range(-5, -3)).tolist() == pytest.approx([-5, 0])


def test_a_symmetric_grid_of_unsigned_integers_has_its_zero_at_128():
    grid = grid_for_range(-1, 1, symmetric=True, narrow=True)
    assert grid.zero_point == 128
    assert quantize(np.array([-1, 0, 1], np.float32), grid).tolist() == [1, 128, 255]


@pytest.mark.parametrize(("signed", "zero"), [(True, 0), (False, 128)])
def test_a_symmetric_grid_that_is_not_narrow_has_the_same_scale_and_zero(signed, zero):
    grid = grid_for_range(-127, 127, symmetric=True, signed=signed)
    assert (grid.scale, grid.zero_point) == (1, zero)


finite = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)
grids = st.fixed_dictionaries(
    {
        "bits": st.sampled_from([2, 4, 8, 16]),
        "symmetric": st.booleans(),
        "signed": st.booleans(),
        "axis": st.sampled_from([None, 0, 1, -1]),
    }
)


@given(finite, grids, st.sampled_from([0, 1, 2, 4]))
@settings(deadline=None, max_examples=300)
def test_every_value_of_a_tensor_moves_by_at_most_half_a_step(x, kind, group):
    grid = grid_for(x, **kind, group=group if kind["axis"] is not None else 0)
    moved = np.abs(fake_quantize(x, grid).astype(np.float64) - x)
    # Scale and quotient are rounded to float32, which costs a few units in the last place of the value itself.
    allowed = 0.5 * grid.spread(grid.scale, x.shape).astype(np.float64) + 4 * EPS * np.abs(x) + TINY
    assert (moved <= allowed * (1 + 1e-3)).all()


@given(finite, grids)
@settings(deadline=None)
def test_zero_stays_exactly_zero(x, kind):
    grid = grid_for(x, **kind)
    assert not fake_quantize(np.zeros_like(x), grid).any()


@given(finite, grids)
@settings(deadline=None)
def test_quantizing_twice_changes_nothing(x, kind):
    grid = grid_for(x, **kind)
    once = fake_quantize(x, grid)
    assert np.array_equal(fake_quantize(once, grid), once)


def test_a_channel_of_zeros_gets_scale_one():
    w = np.array([[0, 0], [1, -2]], np.float32)
    grid = grid_for(w, axis=0)
    assert grid.scale.tolist() == [1, np.float32(2 / 127)]
    assert quantize(w, grid).tolist() == [[0, 0], [64, -127]]


@pytest.mark.parametrize("value", [3.0, -3.0, 1e-20])
def test_a_single_constant_is_kept(value):
    x = np.full(4, value, np.float32)
    for symmetric in (True, False):
        assert fake_quantize(x, grid_for(x, symmetric=symmetric)) == pytest.approx(x, rel=2 * EPS)


def test_denormal_values_give_a_normal_scale():
    x = np.array([1e-44, -1e-40], np.float32)
    grid = grid_for(x)
    assert grid.scale == np.float32(TINY)
    assert np.isfinite(fake_quantize(x, grid)).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("ends", [(-LARGEST, LARGEST), (0, LARGEST), (-LARGEST, LARGEST / 3)])
def test_no_integer_stands_for_infinity(symmetric, ends):
    grid = grid_for_range(*ends, symmetric=symmetric, signed=True)
    assert np.isfinite(dequantize(np.arange(-128, 128, dtype=np.int8), grid)[symmetric:]).all()


@pytest.mark.parametrize("end", [np.nan, np.inf])
def test_a_range_without_a_finite_end_is_refused(end):
    with pytest.raises(UsageError, match=f"range from .* to {end} cannot be quantized"):
        grid_for_range(0, end)


def test_nan_is_refused():
    with pytest.raises(UsageError, match="NaN cannot be quantized"):
        quantize(np.array([1, np.nan], np.float32), grid_for_range(0, 1))


def test_channels_may_lie_along_any_axis():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    low, high = extremes(x, axis=1)
    assert (low.tolist(), high.tolist()) == ([0, 0, 0], [15, 19, 23])
    assert grid_for(x, axis=1).spread(grid_for(x, axis=1).scale, x.shape).shape == (1, 3, 1)


def test_the_last_group_may_be_short():
    x = np.array([[1, -4, 2, 8, 16]], np.float32)
    grid = grid_for(x, bits=4, axis=1, group=2)
    assert grid.scale.tolist() == [[np.float32(4 / 7), np.float32(8 / 7), np.float32(16 / 7)]]
    assert quantize(x, grid).tolist() == [[2, -7, 2, 7, 7]]


def test_extremes_of_groups_hold_zero():
    low, high = extremes(np.array([[1, 2, -3, -4, 5]], np.float32), axis=1, group=2)
    assert (low.tolist(), high.tolist()) == ([[0, -4, 0]], [[2, 0, 5]])


def test_groups_run_along_the_input_axis_of_a_transposed_weight_too():
    x = np.random.default_rng(0).standard_normal((70, 5)).astype(np.float32)
    down, across = grid_for(x, bits=4, axis=0, group=32), grid_for(x.T, bits=4, axis=1, group=32)
    assert down.scale.shape == (3, 5)
    assert np.array_equal(quantize(x, down), quantize(x.T, across).T)


def test_smaller_groups_never_hurt_the_largest_error():
    x = np.random.default_rng(0).standard_t(2, (16, 128)).astype(np.float32)
    errors = [np.abs(fake_quantize(x, grid_for(x, bits=4, axis=1, group=g)) - x).max() for g in (16, 32, 128)]
    assert errors == sorted(errors)


def test_the_first_of_two_int4_lies_in_the_low_half():
    assert pack_int4(np.array([1, 2, -1], np.int8)).tolist() == [0x21, 0x0F]


@given(hnp.arrays(np.int8, hnp.array_shapes(max_dims=3, max_side=5), elements=st.integers(-8, 7)))
def test_signed_int4_survives_packing(q):
    assert np.array_equal(unpack_int4(pack_int4(q), q.shape[-1], signed=True), q)


@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3, max_side=5), elements=st.integers(0, 15)))
def test_unsigned_int4_survives_packing(q):
    assert np.array_equal(unpack_int4(pack_int4(q), q.shape[-1], signed=False), q)


@pytest.mark.parametrize("values", [[16], [-9], [-1, 8]])
def test_integers_wider_than_4_bits_are_not_packed(values):
    with pytest.raises(ValueError, match="do not fit 4 bits"):
        pack_int4(np.array(values, np.int8))
