"""Packed integers."""

import numpy as np
import pytest

from qm_toy.weight import BITS, Float, Packed


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 8)])
def test_integers_come_back_as_they_were_packed(bits, shape):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    integers = np.random.default_rng(bits).integers(low, high, size=shape)
    assert np.array_equal(Packed.pack(integers, np.ones((1, 1)), bits).integers(), integers)


def test_the_first_weight_is_in_the_lowest_bits():
    packed = Packed.pack(np.array([[-1, 0, 1, 0]]), np.ones((1, 1)), bits=2)
    assert packed.codes.tolist() == [0b10_11_10_01]


@pytest.mark.parametrize(("bits", "nbytes"), [(8, 15), (4, 8), (2, 4), (1, 2)])
def test_weights_share_bytes(bits, nbytes):
    assert Packed.pack(np.zeros((3, 5), int), np.ones((1, 1)), bits).codes.nbytes == nbytes


@pytest.mark.parametrize(("scales", "scheme"), [((1, 1), "w4t"), ((4, 1), "w4"), ((4, 2), "w4g4")])
def test_the_shape_of_the_scales_tells_the_scheme(scales, scheme):
    assert str(Packed.pack(np.zeros((4, 8), int), np.ones(scales), bits=4).scheme) == scheme


def test_a_value_is_the_integer_times_the_scale_of_its_group():
    packed = Packed.pack(np.array([[1, 2, 3, 4]]), np.array([[10.0, 100.0]]), bits=8)
    assert packed.values().tolist() == [[10.0, 20.0, 300.0, 400.0]]


def test_float_weights_are_in_float():
    assert Float(array=np.zeros((2, 3), np.float32)).scheme.is_float
