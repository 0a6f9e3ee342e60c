"""Scales that move range from one channel to another, or from activations into weights, and change no result."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_NARROWEST = 1e-3
"""No scale is less than this times the mean: what is nearly silent would otherwise be widened to nothing but noise."""


def equalizing_scales(first: ArrayLike, second: ArrayLike) -> Floats:
    """What to divide the results of one layer by, and multiply the inputs of the next with, channel by channel.

    ``first`` ``(channels,)`` is the largest magnitude of the weights that make each channel, ``second`` that of the
    weights that read it: afterwards the two are equal. A channel that either does nothing with keeps its scale.
    Source: Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019, equation 11.
    """
    made, read = np.asarray(first, np.float64), np.asarray(second, np.float64)
    used = (made > 0) & (read > 0)
    scales: Floats = np.sqrt(np.where(used, made, 1.0) / np.where(used, read, 1.0))
    return scales


def smoothing_scales(inputs: ArrayLike, weights: ArrayLike, *, strength: float) -> Floats:
    """What to divide the inputs of a layer by, and multiply its weights with, channel by channel; their mean is 1.

    ``inputs`` ``(channels,)`` is the largest magnitude of each input, ``weights`` that of the weights that read it.
    Strength 0 makes the weights alike, 1 the inputs; what does not vary at all has scales of its own to hide in, such
    as the weights of a depthwise convolution, for which 1 costs nothing. A channel without weights keeps its range.
    Source: Xiao et al., "SmoothQuant: accurate and efficient post-training quantization for large language models",
    2023, equation 4; the common factor and the least scale are ours.

    Raises:
        ValueError: the strength is not from 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength {strength} is not from 0 to 1")
    seen, read = np.asarray(inputs, np.float64), np.asarray(weights, np.float64)
    used = (seen > 0) & (read > 0)
    if not used.any():
        return np.ones(seen.shape)
    scales = np.where(used, seen, 1.0) ** strength / np.where(used, read, 1.0) ** (1 - strength)
    scales /= scales[used].mean()
    made: Floats = np.where(used, np.maximum(scales, _NARROWEST), 1.0)
    return made


def centering(low: ArrayLike, high: ArrayLike) -> tuple[Floats, Floats]:
    """The half width and the middle of each channel ``(channels,)``, which take it to -1..1.

    A channel that stands still, or nearly so, gets a thousandth of the widest half width, 1 where all stand still.
    """
    least, most = np.asarray(low, np.float64), np.asarray(high, np.float64)
    half, middle = (most - least) / 2, (most + least) / 2
    widest = half.max(initial=0.0)
    return np.maximum(half, _NARROWEST * widest if widest > 0 else 1.0), middle


def affine_bounds(weight: ArrayLike, bias: ArrayLike, low: float, high: float) -> tuple[Floats, Floats]:
    """The least and the greatest results ``(out,)`` of ``weight`` ``(out, in)`` for inputs from low to high.

    Source: Moore, "Interval analysis", 1966: the natural extension of a sum of products.
    """
    w, b = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
    ends = w * low, w * high
    return b + np.minimum(*ends).sum(axis=1), b + np.maximum(*ends).sum(axis=1)
