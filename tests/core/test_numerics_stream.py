"""Statistics of a tensor in one pass."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qm.numerics import Stream
from qm.numerics.stream import SUBSAMPLE

EXACT = 1 << 40
"""A limit that no tensor reaches, so that every value is counted."""


def stream_of(*samples, **options):
    stream = Stream(**options)
    for values in samples:
        stream.update(np.asarray(values))
    return stream


def same(a, b):
    return (
        (a.low, a.high, a.samples, a.values, a.nonfinite) == (b.low, b.high, b.samples, b.values, b.nonfinite)
        and len(a.bins()[2]) == len(b.bins()[2])
        and all(np.array_equal(x, y) for x, y in zip(a.bins(), b.bins(), strict=True))
    )


values = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@given(st.lists(values, min_size=1, max_size=4))
@settings(deadline=None)
def test_every_value_lies_in_a_bin_that_counts_it(samples):
    stream = stream_of(*samples, limit=EXACT)
    left, right, counts = stream.bins()
    x = np.concatenate(samples).astype(np.float64)
    assert counts.sum() == x.size == stream.values
    assert (left <= right).all() and (np.diff(left) >= 0).all()
    assert all(((left <= v) & (v <= right)).any() for v in x)
    # Bins share their edges, where values on an edge belong to the bin farther from zero.
    at_most = np.array([(x <= r).sum() for r in right])
    assert (np.cumsum(counts) <= at_most).all()


@given(st.lists(values, min_size=1, max_size=4), st.lists(values, min_size=1, max_size=4))
@settings(deadline=None)
def test_merging_equals_one_stream_over_both(first, second):
    merged = stream_of(*first, limit=EXACT)
    merged.merge(stream_of(*second, limit=EXACT))
    assert same(merged, stream_of(*first, *second, limit=EXACT))


def test_merging_adds_what_was_not_finite():
    merged = stream_of([1, np.nan])
    merged.merge(stream_of([np.inf, 2, np.nan]))
    assert merged.nonfinite == 3


def test_a_bin_is_at_most_a_64th_of_its_value_wide():
    x = np.exp2(np.random.default_rng(0).uniform(-30, 30, 20000)).astype(np.float32)
    left, right, _ = stream_of(x, limit=EXACT).bins()
    assert ((right - left) / left).max() == pytest.approx(1 / 64)


def test_wider_bins_hold_the_counts_of_the_narrow_ones_within_them():
    stream = stream_of(np.random.default_rng(0).standard_normal(5000), limit=EXACT)
    left, right, counts = stream.bins()
    wide_left, wide_right, wide_counts = stream.bins(per_octave=16)
    inside = (left >= wide_left[:, None]) & (right <= wide_right[:, None])
    assert np.array_equal(inside @ counts, wide_counts)
    assert len(wide_counts) < len(counts) / 2


def test_the_extremes_are_exact_though_few_values_are_counted():
    x = np.random.default_rng(0).standard_normal(10 * SUBSAMPLE).astype(np.float32)
    x[12345], x[34567] = 77.7, -88.8
    stream = stream_of(x)
    assert (stream.low, stream.high) == (np.float32(-88.8), np.float32(77.7))


def test_at_most_the_limit_is_counted_and_weighs_like_the_whole():
    size = 10 * SUBSAMPLE + 1
    stream = stream_of(np.ones(size), np.ones(7))
    weight = stream.bins()[2].sum()
    # The last stride is cut off by the end of the tensor.
    assert weight == pytest.approx(size + 7, rel=20 / SUBSAMPLE)


@pytest.mark.parametrize("channels", [2, 3, 24, 64, 960])
def test_a_subsample_meets_every_channel_alike_wherever_the_channel_axis_is(channels):
    plane = 128 * 128
    last = np.broadcast_to(1.1 ** np.arange(channels % 100 + 1)[-1], (plane, channels)) * (1 + np.arange(channels))
    for x in (last, last.T):
        counts = stream_of(x).bins()[2]
        share, exact = counts / counts.sum(), stream_of(x, limit=EXACT).bins()[2]
        # With a stride that shares no factor with the size, counts of equal shares differ by one visit.
        assert np.abs(share - exact / exact.sum()).max() < 2 * len(counts) / SUBSAMPLE


def test_phases_differ_between_samples_so_that_no_value_is_missed_for_ever():
    x = np.zeros(100 * SUBSAMPLE, np.float32)
    x[: 100 * SUBSAMPLE // 2] = 1
    x[777:780] = 2
    seen = stream_of(*[x] * 300).bins()
    at_two = seen[2][seen[0] >= 2].sum() / seen[2].sum()
    assert at_two == pytest.approx(3 / x.size, rel=0.5)


def test_the_same_samples_give_the_same_statistics():
    samples = [np.random.default_rng(i).standard_normal(3 * SUBSAMPLE) for i in range(5)]
    assert same(stream_of(*samples), stream_of(*samples))


def test_memory_does_not_grow_with_samples():
    rng = np.random.default_rng(0)
    stream = Stream()
    sizes = []
    for _ in range(400):
        stream.update(rng.standard_normal(5000))
        sizes.append(stream.nbytes)
    # An octave, 512 bytes, may still be met for the first time by a value very near zero.
    assert sizes[-1] - sizes[20] <= 16 * 512
    assert sizes[-1] < 65_000


def test_a_stream_without_histogram_keeps_five_numbers():
    stream = stream_of(np.arange(5.0), histogram=False)
    assert (stream.low, stream.high, stream.nbytes) == (0, 4, 0)


def test_values_that_are_not_counted_move_the_extremes_alone():
    stream = stream_of([1.0, 2.0])
    stream.update(np.array([8.0, -8.0, 0.5]), counted=False)
    assert (stream.low, stream.high, stream.samples, stream.values) == (-8, 8, 2, 5)
    assert stream.bins()[2].sum() == 2


def test_the_first_values_are_counted_always():
    stream = Stream()
    for values in (np.zeros(0), np.ones(3), np.ones(4)):
        stream.update(values, counted=False)
    assert stream.bins()[2].tolist() == [3]


def test_values_that_are_not_finite_are_counted_apart():
    stream = stream_of([1.0, np.nan, -np.inf, 2.0], [np.nan])
    assert (stream.low, stream.high, stream.values, stream.nonfinite) == (1, 2, 2, 3)


def test_an_empty_tensor_changes_nothing():
    stream = stream_of(np.zeros((0, 3)))
    assert (stream.samples, stream.low, stream.high) == (0, math.inf, -math.inf)


def test_any_layout_and_numeric_type_is_taken():
    x = np.arange(-6, 6).reshape(3, 4)
    expected = stream_of(x.astype(np.float32))
    for other in (x, x.T, x.astype(np.float16), x.astype(np.float64)[::-1, ::-1]):
        assert same(stream_of(other), expected)


def test_the_values_given_are_left_unchanged():
    x = np.array([0.0, -0.0, 5.0], np.float32)
    stream_of(x)
    assert x.tolist() == [0, 0, 5]


def test_streams_with_and_without_histogram_do_not_merge():
    with pytest.raises(ValueError, match="cannot be merged"):
        Stream().merge(Stream(histogram=False))
