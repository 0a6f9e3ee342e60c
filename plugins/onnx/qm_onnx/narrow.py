"""Weights of 4 bits, two to a byte in the file, computed with on 8-bit kernels.

ONNX Runtime has no kernels for 4-bit weights by 8-bit activations, and where a DequantizeLinear reads an INT4 constant
it computes in float. Where a Cast to int8 stands between them, it folds the Cast when it opens the file, and takes the
kernels that it has for int8 weights (seen with 1.31.1: all 49 convolutions and the Gemm of EfficientNet-Lite0).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qm.numerics import Grid, pack_int4
from qm_onnx.graph import Scope

_WRITTEN = "_quantized"
"""What ONNX Runtime's writer appends to a weight's name."""


def pack(proto: ModelProto, grids: Mapping[str, Grid]) -> None:
    """Store the weights of grids with 4 bits in half their bytes, with a Cast behind each."""
    scope = Scope(proto.graph)
    for name, grid in grids.items():
        stored = scope.constants.get(name + _WRITTEN)
        if grid.bits != 4 or stored is None:
            continue
        integers = numpy_helper.to_array(stored).astype(np.int8)
        wide = f"{stored.name}/wide"
        for reader in scope.consumers[stored.name]:
            reader.input[0] = wide
        packed = pack_int4(integers.reshape(-1)).tobytes()
        stored.CopyFrom(TensorProto(name=stored.name, data_type=TensorProto.INT4, dims=integers.shape, raw_data=packed))
        proto.graph.node.append(helper.make_node("Cast", [stored.name], [wide], name=wide, to=TensorProto.INT8))
