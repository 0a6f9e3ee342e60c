"""What the kernel of a convolution sees: the inputs of its outputs, one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qm.numerics.rounding import places
from qm.types import Array


def patches(
    data: Array,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    margins: Sequence[tuple[int, int]],
    number: int,
    most: int,
) -> Array:
    """Of data ``(batch, channels, *space)`` the inputs of some outputs, ``(batch, channels, places, *kernel)``.

    ``margins`` are the zeros before and after each axis of space. At most about ``most`` places are taken, evenly
    spread, others for each ``number``.
    """
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    padded = np.pad(data, [(0, 0), (0, 0), *margins])
    views = np.lib.stride_tricks.sliding_window_view(padded, spans, tuple(range(2, 2 + len(spans))))
    skipped: list[slice] = [slice(None)] * 2 + [slice(None, None, s) for s in (*strides, *dilations)]
    views = views[tuple(skipped)]
    space = views.shape[2 : 2 + len(spans)]
    at = np.unravel_index(places(int(np.prod(space)), number, most), space)
    taken: Array = views[np.index_exp[:, :] + at]  # Only these are copied.
    return taken
