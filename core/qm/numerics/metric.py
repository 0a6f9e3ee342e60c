"""How far one array is from another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qm.types import Array


def decibel(signal: Array | float, noise: Array | float) -> NDArray[np.float64]:
    """10 log10(signal / noise); infinite without noise, minus infinite for noise alone, NaN where either is NaN."""
    signal, noise = np.asarray(signal, np.float64), np.asarray(noise, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 10 * (np.log10(signal) - np.log10(noise))
    return np.where((noise == 0) & ~np.isnan(signal), np.inf, ratio)


def sqnr_db(reference: Array, other: Array) -> float:
    """Signal to quantization noise: 10 log10(sum reference**2 / sum (reference - other)**2).

    Infinite for identical arrays, NaN where either holds NaN or infinity.
    Source: Sheng et al., "A quantization-friendly separable convolution for MobileNets", 2018.
    """
    signal, noise = _powers(reference, other, axes=None)
    return float(decibel(signal, noise))


def slice_sqnr_db(reference: Array, other: Array, *, axis: int = -1) -> NDArray[np.float64]:
    """SQNR of each slice along ``axis``, over all other axes: shows a class whose scores are all zero."""
    axes = tuple(i for i in range(reference.ndim) if i != axis % reference.ndim)
    return decibel(*_powers(reference, other, axes=axes))


def cosine(reference: Array, other: Array) -> float:
    """Cosine of the angle between the arrays as vectors; 1 where both are zero, 0 where one is."""
    a, b = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    return cosine_of(float(a @ b), float(a @ a), float(b @ b))


def cosine_of(dot: float, square: float, other_square: float) -> float:
    """Cosine from the sums of products and of squares."""
    if square == 0 or other_square == 0:
        return float(square == other_square)
    return float(np.clip(dot / (np.sqrt(square) * np.sqrt(other_square)), -1, 1))


def top1_agreement(reference: Array, other: Array) -> float:
    """Share of rows along the last axis whose largest entry, the first of equals, stands in the same place.

    NaN in ``other`` never agrees.
    """
    same = reference.argmax(axis=-1) == other.argmax(axis=-1)
    if other.dtype.kind == "f":
        same = same & ~np.isnan(other).any(axis=-1)
    return float(same.mean())


def _powers(reference: Array, other: Array, *, axes: tuple[int, ...] | None) -> tuple[Array, Array]:
    """Sums over ``axes`` of the squares of the signal and of the noise."""
    if reference.shape != other.shape:
        raise ValueError(f"shapes {reference.shape} and {other.shape} cannot be compared")
    a, b = reference.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        noise = np.square(a - b).sum(axis=axes)
        # Infinity in both is NaN in the difference; infinity in one must not read as plain noise.
        return np.square(a).sum(axis=axes), np.where(np.isfinite(noise), noise, np.nan)
