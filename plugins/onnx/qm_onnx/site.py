"""A layer to quantize, where it stands in its graph."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto

from qm.plugin import Array, Granularity, Scheme
from qm_onnx.graph import integer

KINDS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""The kinds of layers that static quantization offers."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """``position`` is the input that holds the weights."""

    name: str
    node: NodeProto
    position: int
    scheme: Scheme

    @property
    def weight(self) -> str:
        """The weight's name."""
        return str(self.node.input[self.position])

    @property
    def data(self) -> str:
        """The name of the tensor that is multiplied by the weights."""
        return str(self.node.input[1 - self.position])

    @property
    def is_integer(self) -> bool:
        """Whether ONNX Runtime has an integer kernel for the layer; the others compute in float from integers."""
        return self.position == 1 and self.scheme.activation_bits == 8 and self.node.op_type != "ConvTranspose"

    def axis(self, w: Array) -> int | None:
        """The axis of the output channels, None where there is one scale for all."""
        if self.scheme.granularity is Granularity.TENSOR or w.ndim < 2:
            return None
        if self.node.op_type == "Conv":
            return 0
        if self.node.op_type == "ConvTranspose":
            return 1
        if self.node.op_type == "Gemm":
            return 0 if integer(self.node, "transB", 0) else 1
        return w.ndim - 1 if self.position == 1 else w.ndim - 2
