"""Short names for the layers of a .tflite model, out of the paths that converters write.

A converter names a tensor after every operation that went into it, in one text:
``model/activation/Relu;model/batch_normalization/FusedBatchNormV3;model/conv2d/Conv2D``. The layer is the one whose own
operation is among them, here ``conv2d``. Models that this plugin has put in order name their weights ``LAYER/kernel``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set

KERNEL = "/kernel"
BIAS = "/bias"

_OWN = {
    "BATCH_MATMUL": ("MatMul", "BatchMatMulV2", "einsum", "Einsum"),
    "CONV_2D": ("Conv2D", "convolution", "Conv1D"),
    "CONV_3D": ("Conv3D", "convolution"),
    "DEPTHWISE_CONV_2D": ("depthwise", "DepthwiseConv2dNative", "separable_conv2d"),
    "EMBEDDING_LOOKUP": ("embedding_lookup", "Gather", "GatherV2"),
    "FULLY_CONNECTED": ("MatMul", "Tensordot", "dot_general"),
    "GATHER": ("embedding_lookup", "Gather", "GatherV2", "Take"),
    "TRANSPOSE_CONV": ("conv2d_transpose", "conv_transpose", "Conv2DBackpropInput"),
}
_ALSO = ("BiasAdd", "Add")
_INNER = ("Tensordot",)
"""Scopes that are no layer of their own."""
_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")


def layer_name(kind: str, weight: str, output: str) -> str:
    """The layer's name, out of the names of its weight and its result; empty where they tell none."""
    if weight.endswith(KERNEL) and ";" not in weight:
        return weight.removesuffix(KERNEL)
    parts = [p for text in (weight, output) for p in map(_plain, text.split(";")) if p]
    wanted = _OWN.get(kind, ())
    for words in (wanted, _ALSO):
        for part in parts:
            path, _, last = part.rpartition("/")
            if path and re.sub(r"_?\d+$", "", last) in {re.sub(r"\d+$", "", w) for w in words}:
                return _without_twin(path)
    paths = [p for p in map(_plain, output.split(";")) if "/" in p]
    if paths:
        return _without_twin(paths[-1].rpartition("/")[0])
    return ""


def short_name(output: str) -> str:
    """A short name for the result of an operation without weights: the last operation that went into it."""
    parts = [p for p in map(_plain, output.split(";")) if p]
    with_path = [p for p in parts if "/" in p]
    return _without_twin(with_path[-1].rpartition("/")[0]) if with_path else (parts or [""])[-1]


def without_model(names: Sequence[str]) -> list[str]:
    """The names without the path that all of them begin with, such as that of the model."""
    paths = [n.split("/") for n in names if n]
    shared = 0
    while paths and all(len(p) > shared + 1 and p[shared] == paths[0][shared] for p in paths):
        shared += 1
    return ["/".join(n.split("/")[shared:]) for n in names]


def original(names: Sequence[str], layers: Iterable[str]) -> list[str]:
    """The names under which Keras knows the layers, where tracing a model anew has numbered all of them again.

    ``layers`` are Keras' own. A second trace adds ``_N`` to every name, or to none.
    """
    known = set(layers)
    stripped = [re.sub(r"_\d+$", "", n.rpartition("/")[2]) for n in names]
    if names and all(s in known and s != n for s, n in zip(stripped, names, strict=True)):
        return ["/".join([*_known(n.split("/")[:-1], known), s]) for n, s in zip(names, stripped, strict=True)]
    return list(names)


def _known(pieces: Sequence[str], known: Set[str]) -> list[str]:
    return [s if (s := re.sub(r"_\d+$", "", p)) in known else p for p in pieces]


def _plain(part: str) -> str:
    return _CALLS.sub("", part.strip()).removesuffix("/ReadVariableOp/resource").removesuffix("/ReadVariableOp")


def _without_twin(path: str) -> str:
    # Keras and the converter repeat a scope: model/dense/dense.
    pieces = path.split("/")
    while len(pieces) > 1 and (pieces[-1] == pieces[-2] or pieces[-1] in _INNER):
        pieces.pop()
    return "/".join(pieces)
