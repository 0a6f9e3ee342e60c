"""Ranges chosen from a stream."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qm.errors import UsageError
from qm.numerics import METHODS, Stream, choose_range, expected_error, fake_quantize, grid_for_range, needs_histogram
from qm.numerics import range as ranges

EXACT = 1 << 40


def stream_of(x, **options):
    stream = Stream(**{"limit": EXACT, **options})
    stream.update(np.asarray(x, np.float32))
    return stream


def normal(size=1_000_000, seed=0):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def error(x, low, high, *, bits, symmetric):
    """What quantizing the values to the range really costs."""
    grid = grid_for_range(low, high, bits=bits, symmetric=symmetric, signed=symmetric, narrow=symmetric)
    return float(np.mean(np.square(fake_quantize(x, grid).astype(np.float64) - x)))


def test_minmax_is_exact():
    assert choose_range(stream_of([-1.25, 7.5]), "minmax") == (-1.25, 7.5)
    assert choose_range(stream_of([-1.25, 7.5]), "minmax", symmetric=True) == (-7.5, 7.5)


def test_minmax_needs_no_histogram():
    assert [needs_histogram(method) for method in METHODS] == [False, True, True, True]
    assert choose_range(stream_of([1, 2], histogram=False), "minmax") == (0, 2)


@given(
    hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    st.sampled_from(METHODS),
    st.sampled_from([4, 8, 16]),
    st.booleans(),
)
@settings(deadline=None, max_examples=300)
def test_every_range_holds_zero_and_stays_within_the_extremes(x, method, bits, symmetric):
    low, high = choose_range(stream_of(x), method, bits=bits, symmetric=symmetric)
    most = float(np.abs(x).max())
    edges = (-most, most) if symmetric else (min(0.0, float(x.min())), max(0.0, float(x.max())))
    assert edges[0] <= low <= 0 <= high <= edges[1]
    assert not symmetric or low == -high


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_a_constant_keeps_its_value(method, value):
    low, high = choose_range(stream_of(np.full(100, value)), method)
    grid = grid_for_range(low, high)
    # A clip may cost at most the histogram's resolution, a 64th.
    assert fake_quantize(np.float32([value]), grid)[0] == pytest.approx(value, rel=1 / 64)


def test_percentile_cuts_the_same_share_from_both_ends():
    x = normal()
    low, high = choose_range(stream_of(x), "percentile", percentile=99)
    # A bin is at most 1/64 of the value wide, and values are spread evenly within it.
    assert (low, high) == pytest.approx(np.quantile(x, [0.005, 0.995]).tolist(), rel=1 / 64)
    assert high == pytest.approx(2.5758, rel=1 / 64)


def test_percentile_of_magnitudes_where_symmetric():
    x = np.maximum(normal(), 0)
    low, high = choose_range(stream_of(x), "percentile", percentile=99, symmetric=True)
    assert -low == high == pytest.approx(float(np.quantile(np.abs(x), 0.99)), rel=1 / 64)


def test_percentile_100_cuts_nothing():
    assert choose_range(stream_of([-3, 1, 9.5]), "percentile", percentile=100) == (-3, 9.5)


def test_percentile_leaves_zero_where_a_tail_is_all_zero():
    assert choose_range(stream_of(np.maximum(normal(), 0)), "percentile")[0] == 0


# Banner et al., "Post training 4-bit quantization of convolutional networks", 2019, section 2: optimal clips of a
# normal distribution. Their grid has 2**bits levels and no level at zero, ours 2**bits - 1 and one at zero.
@pytest.mark.parametrize(("bits", "sigmas", "levels_aside"), [(4, 2.55, 0.05), (8, 3.92, 0.03)])
def test_mse_clips_a_normal_distribution_where_theory_does(bits, sigmas, levels_aside):
    _, high = choose_range(stream_of(normal(4_000_000)), "mse", bits=bits, symmetric=True)
    assert high == pytest.approx(sigmas, rel=levels_aside)


@pytest.mark.parametrize("bits", [2, 3, 4, 6])
def test_mse_finds_the_optimum_of_the_very_grid_in_use(bits):
    x = np.linspace(-6, 6, 200_001)
    density = np.exp(-(x**2) / 2)
    top = (1 << (bits - 1)) - 1

    def exact(clip):
        step = clip / top
        return np.sum(density * np.square(x - step * np.clip(np.rint(x / step), -top, top)))

    best = min(exact(clip) for clip in np.linspace(0.8, 5, 400))
    _, high = choose_range(stream_of(normal()), "mse", bits=bits, symmetric=True)
    # The optimum is flat: a percent of error allows a few percent of the clip; a million draws are that exact.
    assert exact(high) <= 1.01 * best


SHAPES = {
    "normal": normal,
    "relu": lambda: np.maximum(normal(), 0),
    "laplace": lambda: np.random.default_rng(0).laplace(size=1_000_000).astype(np.float32),
    "swish": lambda: (3 * normal()) / (1 + np.exp(-3 * normal())),
    "uniform": lambda: np.random.default_rng(0).uniform(-1, 1, 1_000_000).astype(np.float32),
    "lopsided": lambda: np.concatenate([normal(), np.full(30, 60, np.float32)]),
}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_mse_is_never_worse_than_minmax_or_percentile(shape, bits, symmetric):
    x = SHAPES[shape]()
    stream = stream_of(x)
    errors = {
        method: error(x, *choose_range(stream, method, bits=bits, symmetric=symmetric), bits=bits, symmetric=symmetric)
        for method in ("mse", "minmax", "percentile")
    }
    # Values are taken as uniform within a bin; what that costs was at most half a percent on these shapes.
    assert errors["mse"] <= 1.01 * min(errors.values())


@pytest.mark.parametrize("bits", [4, 8])
def test_the_expected_error_is_the_error(bits):
    x = normal()
    for clip in (1.0, 2.5, 4.0, 6.0):
        expected = expected_error(stream_of(x), np.array([-clip]), np.array([clip]), bits=bits, symmetric=True)
        # Uniform bins put a little more of a falling tail beyond the clip than there is.
        assert expected[0] == pytest.approx(error(x, -clip, clip, bits=bits, symmetric=True), rel=0.06)


def test_the_integral_of_the_squared_error_is_exact():
    step, first, levels = np.array([[0.5]]), np.array([[-3.0]]), 7
    x = np.linspace(-4, 5, 900_001)
    squared = np.square(x - 0.5 * np.clip(np.rint(x / 0.5), -3, 4))
    by_hand = np.sum((squared[1:] + squared[:-1]) / 2) * (x[1] - x[0])
    ends = ranges._integral(np.array([-4.0, 5.0]), step, first, levels)[0]
    assert ends[1] - ends[0] == pytest.approx(by_hand, rel=1e-6)


def test_16_bits_leave_next_to_nothing_to_clip():
    x = normal()
    low, high = choose_range(stream_of(x), "mse", bits=16)
    # Steps are so fine that clipping even the farthest values costs more than it saves.
    assert low == pytest.approx(x.min(), rel=0.05) and high == pytest.approx(x.max(), rel=0.05)


def test_entropy_clips_rare_far_values_and_keeps_the_rest():
    x = np.concatenate([normal(), np.linspace(20, 30, 20)])
    low, high = choose_range(stream_of(x), "entropy")
    assert 3 < high < 10 and low == pytest.approx(x.min())


def test_entropy_keeps_a_uniform_distribution_whole():
    x = np.random.default_rng(0).uniform(-1, 1, 1_000_000)
    assert choose_range(stream_of(x), "entropy", symmetric=True)[1] == pytest.approx(1, abs=0.01)


def test_entropy_differs_from_minmax():
    stream = stream_of(np.random.default_rng(0).laplace(size=1_000_000))
    assert choose_range(stream, "entropy")[1] < 0.95 * stream.high


def test_entropy_does_not_depend_on_the_number_of_exact_zeros():
    x = np.abs(np.random.default_rng(0).laplace(size=100_000))
    many = np.concatenate([x, np.zeros(1_000_000)])
    assert choose_range(stream_of(x), "entropy") == choose_range(stream_of(many), "entropy")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("degrees", [3, 100])
def test_entropy_finds_from_coarse_to_fine_what_it_finds_from_all(monkeypatch, bits, degrees):
    stream = stream_of(np.random.default_rng(0).standard_t(degrees, 1_000_000))
    found = choose_range(stream, "entropy", bits=bits)
    monkeypatch.setattr(ranges, "_ENTROPY_STEPS", (1,))
    # The last step is 4 bins of 2048, and the optimum is flat.
    assert found == pytest.approx(choose_range(stream, "entropy", bits=bits), rel=0.02)


def test_entropy_clips_farther_out_where_all_levels_are_on_one_side():
    x = np.abs(np.random.default_rng(0).laplace(size=1_000_000))
    one_side = choose_range(stream_of(x), "entropy", bits=4)[1]
    both_sides = choose_range(stream_of(np.concatenate([x, -x])), "entropy", bits=4)[1]
    assert one_side > 1.1 * both_sides


def test_entropy_above_8_bits_is_minmax():
    assert choose_range(stream_of(normal()), "entropy", bits=16) == choose_range(stream_of(normal()), "minmax")


def slow_divergence(hist, size, levels):
    """The same by the book, a bin at a time."""
    p = list(hist[:size])
    p[-1] += sum(hist[size:])
    q = [0.0] * size
    for level in range(levels):
        members = [i for i in range(size) if i * levels // size == level]
        occupied = [i for i in members if hist[i] > 0]
        for i in occupied:
            q[i] = sum(hist[j] for j in members) / len(occupied)
    total_p, total_q = sum(p), sum(q)
    return sum(a / total_p * math.log((a / total_p) / max(b / total_q, 1e-6)) for a, b in zip(p, q, strict=True) if a)


@pytest.mark.parametrize(("size", "levels"), [(64, 16), (50, 16), (37, 37), (20, 7)])
def test_the_divergence_is_that_of_a_plain_loop(size, levels):
    hist = np.random.default_rng(size).poisson(0.7, 64).astype(np.float64)
    assert ranges._divergence(hist, size, levels) == pytest.approx(slow_divergence(hist, size, levels))


def test_the_linear_histogram_counts_every_magnitude_where_it_is():
    x = normal()
    left, right, counts = stream_of(x).bins()
    most = float(np.abs(x).max())
    hist = ranges._linear(left, right, counts, most)
    assert hist.sum() == pytest.approx(x.size)
    exact = np.histogram(np.abs(x), bins=64, range=(0, most))[0]
    # 64 coarse bins: their edges cut log bins, whose counts are spread evenly.
    assert np.abs(hist.reshape(64, -1).sum(1) - exact).max() < 0.02 * exact.max()


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="there is no range method 'percentil'") as caught:
        choose_range(stream_of([1]), "percentil")
    assert caught.value.hint == "Did you mean 'percentile'? The methods are: minmax, percentile, mse, entropy."


@pytest.mark.parametrize("percentile", [50, 0, 100.1, math.nan])
def test_a_percentile_out_of_range_is_refused(percentile):
    with pytest.raises(UsageError, match=f"percentile {percentile} is out of range"):
        choose_range(stream_of([1]), "percentile", percentile=percentile)


@pytest.mark.parametrize("method", METHODS)
def test_no_values_give_no_range(method):
    with pytest.raises(UsageError, match="from no values"):
        choose_range(Stream(), method)


def test_a_histogram_that_was_not_kept_is_missed():
    with pytest.raises(ValueError, match="'mse' needs a stream with a histogram"):
        choose_range(stream_of([1], histogram=False), "mse")
