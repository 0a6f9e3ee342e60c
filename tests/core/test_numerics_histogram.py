"""Histograms of equal width from a stream, and what a range is expected to leave."""

from __future__ import annotations

import numpy as np
import pytest

from qm.numerics import Stream, activation, fake_quantize, grid_for_range, histogram, sqnr_db


def stream(values, **more):
    made = Stream(limit=10**6, **more)
    made.update(np.asarray(values, np.float32))
    return made


def test_the_counts_are_those_of_the_values_but_for_the_width_of_a_streams_bins():
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    edges, counts = histogram(stream(values), 20)
    assert counts.sum() == pytest.approx(len(values))
    assert edges[0] == values.min() and edges[-1] == values.max()
    # A stream's own bins are at most 1.6 percent of a value wide: a fifth of one of these.
    assert counts == pytest.approx(np.histogram(values, edges)[0], abs=0.02 * len(values))


def test_one_value_alone_is_one_bin():
    edges, counts = histogram(stream([3.0, 3.0]), 4)
    assert counts.tolist() == [0, 0, 0, 2]
    assert edges.tolist() == [3.0] * 5


def test_a_stream_that_counted_nothing_has_no_histogram():
    with pytest.raises(ValueError, match="counted values"):
        histogram(stream([1.0], histogram=False))


def test_the_expected_error_is_that_of_quantizing_the_values():
    values = np.random.default_rng(1).normal(size=50_000).astype(np.float32)
    seen = activation(stream(values), tensor="t", layer="l", low=-2.0, high=3.0, bits=8)
    rounded = fake_quantize(values, grid_for_range(-2.0, 3.0, bits=8, symmetric=False))
    # The stream knows values to within its bins.
    assert seen.sqnr_db == pytest.approx(sqnr_db(values, rounded), abs=0.3)
    assert seen.clipped == pytest.approx(np.mean((values < -2) | (values > 3)), rel=0.05)


def test_a_range_that_covers_all_clips_nothing():
    values = np.linspace(0, 1, 1000)
    assert activation(stream(values), tensor="t", layer="l", low=0.0, high=1.0, bits=8).clipped == 0
