"""Weights for kernels that add two products of u8 and s8 in 16 bits, and so saturate.

x86 before VNNI multiplies 8-bit integers by VPMADDUBSW: adjacent products are added in int16 with saturation. With
activations up to 255 a pair of weights is safe while its same-sign sum stays within -128..128, for 255 * 128 = 32,640.
Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, PMADDUBSW.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qm.errors import UsageError
from qm.types import Array

SAFE_SUM = 128
"""Largest magnitude of the sum of a pair of same-sign weights that cannot saturate."""

_BLOCK = 1 << 22


def pair_safe_scales(w: Array, *, pairs: NDArray[np.intp] | None = None) -> NDArray[np.float32]:
    """Smallest symmetric 8-bit scales ``(out,)`` by which no pair of weights can saturate.

    ``w`` is ``(out, k)``, its columns in the order in which the kernel walks them; columns 0 and 1, 2 and 3 ... are
    multiplied together, an odd last one alone. Where the kernel pairs otherwise, ``pairs`` holds column numbers, ``(n,
    2)``. A channel without a pair at risk gets max|w| / 127. The scale is at most 129 / 128 of the smallest that is
    safe: above a pair sum of 129 steps, rounding cannot bring it back to 128.

    Raises:
        UsageError: a weight is NaN or infinite.
    """
    rows = np.asarray(w, np.float32)
    if not np.isfinite(rows).all():
        raise UsageError("weights with NaN or infinity cannot be quantized", hint="Check the model's weights.")
    first, second = _sides(rows, pairs)
    exact = _same_sign_sums(first.astype(np.float64), second.astype(np.float64)).max(axis=1, initial=0)
    full = np.abs(rows).max(axis=1, initial=0).astype(np.float64) / 127
    need = np.maximum(full, exact / SAFE_SUM)
    scales = np.where(need > 0, np.maximum(need, np.finfo(np.float32).tiny), 1).astype(np.float32)
    # Halves round to even, so that an exact sum of 128 steps stays 128. Only the rounding of the scale and of the
    # quotient can leave the bound: a step in the last place or two brings it back.
    risky = np.flatnonzero(exact / SAFE_SUM >= full * 0.999)
    while risky.size:
        sums = _same_sign_sums(_rounded(first[risky], scales[risky]), _rounded(second[risky], scales[risky]))
        risky = risky[sums.max(axis=1, initial=0) > SAFE_SUM]
        scales[risky] = np.nextafter(scales[risky], np.float32(np.inf))
    return scales


def worst_pair_sum(q: Array, *, pairs: NDArray[np.intp] | None = None) -> int:
    """Largest magnitude of a same-sign pair sum in the integer weights ``(out, k)``; above 128 it can saturate."""
    return int(_same_sign_sums(*_sides(q.astype(np.int32), pairs)).max(initial=0))


def saturating_dot(x: NDArray[np.uint8], w: NDArray[np.int8]) -> NDArray[np.int32]:
    """``x @ w.T`` as such a kernel computes it: ``x`` is ``(n, k)``, ``w`` is ``(out, k)``, pairs adjacent in k."""
    (x0, x1), (w0, w1) = _sides(x.astype(np.int32), None), _sides(w.astype(np.int32), None)
    out = np.empty((len(x), len(w)), np.int32)
    step = max(1, _BLOCK // max(1, w0.size))
    for i in range(0, len(x), step):
        sums = x0[i : i + step, None] * w0 + x1[i : i + step, None] * w1
        out[i : i + step] = np.clip(sums, -32768, 32767).sum(axis=2, dtype=np.int32)
    return out


def _sides(rows: Array, pairs: NDArray[np.intp] | None) -> tuple[Array, Array]:
    """First and second members of each pair, ``(out, n)`` both; a lone last column is paired with zero."""
    if pairs is not None:
        return rows[:, pairs[:, 0]], rows[:, pairs[:, 1]]
    if rows.shape[1] % 2:
        rows = np.concatenate([rows, np.zeros_like(rows[:, :1])], axis=1)
    return rows[:, 0::2], rows[:, 1::2]


def _same_sign_sums(first: Array, second: Array) -> Array:
    """Magnitudes of the sums; 0 where the signs differ, since such products cannot add up to more than one alone."""
    sums: Array = np.where((first < 0) == (second < 0), np.abs(first + second), 0)
    return sums


def _rounded(values: Array, scales: Array) -> Array:
    steps: Array = np.clip(np.rint(values / scales[:, None]), -127, 127)
    return steps
