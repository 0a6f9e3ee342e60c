"""Layers as products of matrices: weights as ``(groups, out, in)``, and of the data the rows that they multiply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from qm.numerics import patches, places
from qm.plugin import Array, fitting
from qm_torch import layer
from qm_torch.fold import argument

_STRIDES, _MARGINS, _DILATIONS, _GROUPS = 3, 4, 5, 6
"""Where convolutions keep these among their arguments."""


def rows(node: Node, weight: Array) -> Array:
    """The weight ``(groups, out, in)`` of a convolution or linear layer; a kernel is walked channel by channel."""
    groups = _groups(node)
    return weight.reshape(groups, len(weight) // groups, -1)


def data(node: Node, shape: tuple[int, ...], values: Array, number: int) -> NDArray[np.float32]:
    """Rows of what the layer with a weight of ``shape`` reads, ``(groups, rows, in)``; some of a sample, others for
    each number."""
    if layer.kind(node) == "linear":
        flat = values.reshape(-1, shape[-1])
        return flat[None, places(len(flat), number, fitting.POSITIONS)]
    kernel, groups = shape[2:], _groups(node)
    strides, dilations = (_lengths(argument(node, place), len(kernel)) for place in (_STRIDES, _DILATIONS))
    taken = patches(
        values if values.ndim > len(kernel) + 1 else values[None],
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        margins=_margins(argument(node, _MARGINS), kernel, dilations),
        number=number,
        most=fitting.POSITIONS,
    )
    batch, channels, count = taken.shape[:3]
    parted = taken.reshape(batch, groups, channels // groups, count, -1).transpose(1, 0, 3, 2, 4)
    made: NDArray[np.float32] = parted.reshape(groups, batch * count, -1)
    return made


def _groups(node: Node) -> int:
    return int(argument(node, _GROUPS) or 1) if layer.kind(node) != "linear" else 1


def _lengths(given: Any, count: int) -> list[int]:
    values = given if isinstance(given, Sequence) else [1 if given is None else given]
    return [int(v) for v in (values if len(values) == count else [*values] * count)]


def _margins(given: Any, kernel: Sequence[int], dilations: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros before and after each axis, as PyTorch's numbers or words for them say."""
    if given == "same":
        missing = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        return [(m // 2, m - m // 2) for m in missing]
    if given is None or given == "valid":
        return [(0, 0)] * len(kernel)
    return [(m, m) for m in _lengths(given, len(kernel))]
