"""Weights in the layout of compressed-tensors, as tensors.weights writes them, in floats again.

Source: compressed-tensors (vllm-project/compressed-tensors), the formats ``int-quantized`` and ``pack-quantized``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from qm.numerics import unpack_words

_PARTS = ("_packed", "_scale", "_shape", "_zero_point")


def expanded(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors with floats in the place of integers and scales; the others as they are.

    ``metadata`` is that of the file, which tells the size of groups.
    """
    names = [name for name in tensors if name.endswith("_packed") and f"{name[:-7]}_scale" in tensors]
    packed = [name.removesuffix("_packed") for name in names]
    whole = [name for name, t in tensors.items() if t.dtype == torch.int8 and f"{name}_scale" in tensors]
    parts = {f"{name}{part}" for name in (*packed, *whole) for part in _PARTS}
    sizes = _groups(metadata)
    made = {name: tensor for name, tensor in tensors.items() if name not in parts}
    made |= {name: tensors[name].float() * tensors[f"{name}_scale"] for name in whole}
    return made | {name: _unpacked(tensors, name, sizes.get(name.removesuffix(".weight"), 0)) for name in packed}


def _unpacked(tensors: Mapping[str, Tensor], name: str, group: int) -> Tensor:
    rows, columns = (int(n) for n in tensors[f"{name}_shape"])
    scale = tensors[f"{name}_scale"].float()
    group = group or -(-columns // scale.shape[1])
    q, zero = (
        torch.from_numpy(unpack_words(tensors[f"{name}_{stem}"].numpy(), length, axis=axis).astype("int32"))
        for stem, length, axis in (("packed", columns, 1), ("zero_point", rows, 0))
    )
    return (q - _spread(zero, group, columns)) * _spread(scale, group, columns)


def _spread(values: Tensor, group: int, columns: int) -> Tensor:
    return values.repeat_interleave(group, dim=1)[:, :columns]


def _groups(metadata: Mapping[str, str]) -> dict[str, int]:
    """The size of the groups of each module."""
    config = json.loads(metadata.get("quantization_config", "{}"))
    found = config.get("config_groups", {}).values()
    return {target: g["weights"].get("group_size") or 0 for g in found for target in g["targets"]}
