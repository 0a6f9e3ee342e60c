"""The standard library of quantization for plugin authors: plain NumPy."""

from __future__ import annotations

from qm.numerics.adaround import adaptive_results
from qm.numerics.affine import (
    Grid,
    dequantize,
    extremes,
    fake_quantize,
    grid_for,
    grid_for_range,
    limits,
    quantize,
    storage,
)
from qm.numerics.clip import weight_clips
from qm.numerics.comparison import Comparison, Tally
from qm.numerics.drift import Drift, followed
from qm.numerics.equalize import affine_bounds, centering, equalizing_scales, smoothing_scales
from qm.numerics.group import group_grid
from qm.numerics.histogram import activation, histogram
from qm.numerics.metric import cosine, slice_sqnr_db, sqnr_db, top1_agreement
from qm.numerics.pack import pack_int4, pack_words, unpack_int4, unpack_words
from qm.numerics.patch import patches
from qm.numerics.piece import pieces
from qm.numerics.piecewise import PIECE, Lying, channelled, grouped, packed
from qm.numerics.range import METHODS, choose_range, expected_error, needs_histogram
from qm.numerics.rounding import DAMPING, DAMPING_BEHIND, Moments, nearest_results, places, result_error
from qm.numerics.saturation import SAFE_SUM, pair_safe_scales, saturating_dot, worst_pair_sum
from qm.numerics.stream import Stream

__all__ = [
    "DAMPING",
    "DAMPING_BEHIND",
    "METHODS",
    "PIECE",
    "SAFE_SUM",
    "Comparison",
    "Drift",
    "Grid",
    "Lying",
    "Moments",
    "Stream",
    "Tally",
    "activation",
    "adaptive_results",
    "affine_bounds",
    "centering",
    "channelled",
    "choose_range",
    "cosine",
    "dequantize",
    "equalizing_scales",
    "expected_error",
    "extremes",
    "fake_quantize",
    "followed",
    "grid_for",
    "grid_for_range",
    "group_grid",
    "grouped",
    "histogram",
    "limits",
    "nearest_results",
    "needs_histogram",
    "pack_int4",
    "pack_words",
    "packed",
    "pair_safe_scales",
    "patches",
    "pieces",
    "places",
    "quantize",
    "result_error",
    "saturating_dot",
    "slice_sqnr_db",
    "smoothing_scales",
    "sqnr_db",
    "storage",
    "top1_agreement",
    "unpack_int4",
    "unpack_words",
    "weight_clips",
    "worst_pair_sum",
]
