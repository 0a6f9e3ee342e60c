"""The arithmetic of ternary weights."""

import numpy as np
from qm_ternary.ternary import ternary


def test_the_scale_is_the_mean_of_the_weights_above_the_threshold():
    # The mean magnitude is 2, so weights above 1.4 stay: their mean is 3.
    packed = ternary(np.array([[-4.0, 1.0, 2.0, 1.0]]), threshold=0.7)
    assert packed.integers().tolist() == [[-1, 0, 1, 0]]
    assert packed.scale.tolist() == [[3.0]]


def test_a_row_of_zeros_stays_zero():
    assert ternary(np.zeros((1, 4)), threshold=0.7).values().tolist() == [[0.0] * 4]


def test_four_weights_take_one_byte():
    assert ternary(np.ones((8, 16)), threshold=0.7).codes.nbytes == 8 * 16 // 4
