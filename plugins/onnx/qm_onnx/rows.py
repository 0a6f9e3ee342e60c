"""Layers as products of matrices: weights as ``(groups, out, in)``, and of the data the rows that they multiply.

The inputs of a convolution stand in the order in which its kernel walks them, (kh, kw, in), as in ``safe.kernel_rows``.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qm.numerics import patches, places
from qm.plugin import Array
from qm_onnx.graph import attribute, integer
from qm_onnx.site import Site

POSITIONS = 256
"""How many places of an image are looked at for one sample."""


@dataclass(frozen=True)
class Matrix:
    """How a layer's weight of ``shape`` is a matrix, or one a group."""

    site: Site
    shape: tuple[int, ...]

    @property
    def groups(self) -> int:
        """Parts of a convolution that see channels of their own."""
        return integer(self.site.node, "group", 1) if self.site.node.op_type == "Conv" else 1

    @property
    def inputs(self) -> int:
        """Inputs to one output."""
        if self.site.node.op_type == "Conv":
            return int(np.prod(self.shape[1:]))
        return self.shape[0] if self._is_across() else self.shape[1]

    @property
    def geometry(self) -> tuple[Hashable, ...]:
        """All that ``data`` depends on, but for the data."""
        attributes = tuple(a.SerializeToString(deterministic=True) for a in self.site.node.attribute)
        return self.site.node.op_type, self.site.position, attributes, self.inputs, self.shape[1:]

    def rows(self, weight: Array) -> Array:
        """``(groups, out, in)`` of a weight, or of what broadcasts to it."""
        if self.site.node.op_type == "Conv":
            return np.moveaxis(weight, 1, -1).reshape(self.groups, -1, self.inputs)
        return (weight.T if self._is_across() else weight)[None]

    def weight(self, rows: Array) -> Array:
        """The weight of its rows."""
        if self.site.node.op_type == "Conv":
            out, channels, *kernel = self.shape
            return np.ascontiguousarray(np.moveaxis(rows.reshape(out, *kernel, channels), -1, 1))
        return np.ascontiguousarray(rows[0].T if self._is_across() else rows[0])

    def data(self, data: Array, number: int, *, most: int = POSITIONS) -> NDArray[np.float32]:
        """Rows of the data ``(groups, rows, in)``, at most about ``most`` of a sample, others for each number."""
        if self.site.node.op_type == "Conv":
            return _windows(self.site.node, self.shape, self.groups, data, number, most)
        if self.site.node.op_type == "Gemm":
            rows = data.T if integer(self.site.node, "transA", 0) else data
        else:
            rows = data if self.site.position == 1 else np.swapaxes(data, -1, -2)
        rows = rows.reshape(-1, rows.shape[-1])
        return rows[None, places(len(rows), number, most)]

    def _is_across(self) -> bool:
        """Whether the weight is ``(in, out)``."""
        if self.site.node.op_type == "Gemm":
            return not integer(self.site.node, "transB", 0)
        return self.site.position == 1


def matrix(site: Site, weight: Array) -> Matrix | None:
    """The layer's matrix, None where it is no product of one matrix, or one a group, with its data."""
    kind = site.node.op_type
    if weight.size == 0 or (kind == "Conv" and weight.ndim < 3) or (kind != "Conv" and weight.ndim != 2):
        return None
    return None if kind == "ConvTranspose" else Matrix(site, weight.shape)


def _windows(
    node: NodeProto, shape: tuple[int, ...], groups: int, data: Array, number: int, most: int
) -> NDArray[np.float32]:
    """What the kernel of a convolution sees at places of the data ``(batch, channels, *space)``.

    Channels that the data lack are zeros, as ``stem.pad`` adds them.
    """
    kernel = shape[2:]
    strides, dilations = _integers(node, "strides", len(kernel)), _integers(node, "dilations", len(kernel))
    lacking = groups * shape[1] - data.shape[1]
    data = np.pad(data, [(0, 0), (0, lacking), *[(0, 0)] * len(kernel)]) if lacking else data
    taken = patches(
        data,
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        margins=_margins(node, data.shape[2:], kernel, strides, dilations),
        number=number,
        most=most,
    )
    batch, channels, count = taken.shape[:3]
    parted = taken.reshape(batch, groups, channels // groups, count, -1).transpose(1, 0, 3, 4, 2)
    made: NDArray[np.float32] = parted.reshape(groups, batch * count, -1)
    return made


def _margins(
    node: NodeProto, lengths: tuple[int, ...], kernel: tuple[int, ...], strides: list[int], dilations: list[int]
) -> list[tuple[int, int]]:
    """Zeros before and after each axis of the data."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    found = attribute(node, "auto_pad")
    mode = found.s.decode() if found is not None else "NOTSET"
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        missing = [max((-(-n // t) - 1) * t + s - n, 0) for n, s, t in zip(lengths, spans, strides, strict=True)]
        halves = [(m // 2, m - m // 2) for m in missing]
        return halves if mode == "SAME_UPPER" else [(after, before) for before, after in halves]
    pads = attribute(node, "pads")
    if mode == "VALID" or pads is None:
        return [(0, 0)] * len(spans)
    return list(zip(pads.ints[: len(spans)], pads.ints[len(spans) :], strict=True))


def _integers(node: NodeProto, name: str, count: int) -> list[int]:
    found = attribute(node, name)
    return list(found.ints) if found is not None else [1] * count
