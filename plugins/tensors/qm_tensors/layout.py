"""What a quantized matrix is stored as, and how that is told.

Source: compressed-tensors (vllm-project/compressed-tensors), the formats ``int-quantized`` and ``pack-quantized``. For
a matrix ``NAME`` of ``(out, in)`` either int8 under its own name and ``NAME_scale``; or ``NAME_packed``, eight unsigned
integers of 4 bits in an int32 along a row, the first in the lowest bits, with ``NAME_scale`` ``(out, groups)``,
``NAME_zero_point``, packed along ``out``, and ``NAME_shape``. A value is ``(integer - zero point) * scale``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import pairwise

from qm.plugin import FLOAT, Plan, Scheme, Unsupported
from qm_tensors.header import NBYTES, Entry, Header
from qm_tensors.matrix import FLOATS

CONFIG = "quantization_config"
"""The key of the file's metadata that says how it is quantized, as ``config.json`` of a model's folder has it."""

PER_WORD = 8
"""Integers of 4 bits in one of 32."""

GROUPS = (32, 128)

Tensors = list[tuple[str, str, tuple[int, ...]]]
"""Names, types and shapes."""


def matrices(header: Header) -> list[str]:
    """The matrices that are quantized or can be: float, of two dimensions, whose rows fill whole words when packed."""
    names = [name for name, e in header.entries.items() if e.dtype in FLOATS and _fits(e)]
    names += [name for name, e in header.entries.items() if e.dtype == "I8" and f"{name}_scale" in header.entries]
    names += [name.removesuffix("_packed") for name in header.entries if _is_packed(header, name)]
    parts = {f"{name}_{stem}" for name in names for stem in ("scale", "zero_point", "shape")}
    return sorted((name for name in names if name not in parts), key=_natural)


def _fits(entry: Entry) -> bool:
    return len(entry.shape) == 2 and entry.shape[0] > 0 and entry.shape[1] > 0 and entry.shape[1] % PER_WORD == 0


def _is_packed(header: Header, name: str) -> bool:
    base = name.removesuffix("_packed")
    return base != name and all(f"{base}_{stem}" in header.entries for stem in ("scale", "zero_point", "shape"))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that puts layer.2 before layer.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def shape(header: Header, name: str) -> tuple[int, int]:
    """Rows and columns of a matrix, however it is stored."""
    packed = header.entries.get(f"{name}_packed")
    rows, columns = packed.shape if packed else header.entries[name].shape
    return rows, columns * PER_WORD if packed else columns


def scheme(header: Header, name: str) -> Scheme:
    """What a matrix is in, by its tensors."""
    if f"{name}_packed" in header.entries:
        columns, groups = shape(header, name)[1], header.entries[f"{name}_scale"].shape[1]
        # Where a row is shorter than both, the smaller stands for the same.
        group = next((g for g in GROUPS if -(-columns // g) == groups), columns // groups)
        return Scheme.parse(f"w4g{group}")
    return Scheme.parse("w8") if header.entries[name].dtype == "I8" else FLOAT


def stored(header: Header, plan: Plan) -> Tensors:
    """The tensors of the quantized file, those of large elements first, so that none lies across."""
    made: Tensors = []
    for name, entry in header.entries.items():
        found = plan[name]
        made += [(name, entry.dtype, entry.shape)] if found.is_float else _parts(name, shape(header, name), found)
    made.sort(key=lambda t: -NBYTES[t[1]])
    for (name, _, _), (before, _, _) in pairwise(sorted(made)):
        if name == before:
            raise Unsupported(
                f"the file has a tensor {name!r} already, which a quantized matrix is stored as",
                hint="Start from the float weights, or leave the matrix in float with a rule.",
            )
    return made


def _parts(name: str, dims: tuple[int, int], found: Scheme) -> Tensors:
    rows, columns = dims
    if not found.group:
        return [(name, "I8", dims), (f"{name}_scale", "F32", (rows, 1))]
    groups = -(-columns // found.group)
    return [
        (f"{name}_packed", "I32", (rows, columns // PER_WORD)),
        (f"{name}_scale", "F32", (rows, groups)),
        (f"{name}_zero_point", "I32", (-(-rows // PER_WORD), groups)),
        (f"{name}_shape", "I64", (2,)),
    ]


def metadata(before: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """The file's metadata, with the configuration that readers of compressed-tensors take."""
    by_scheme: dict[str, list[str]] = {}
    for name, found in sorted(plan.quantized().items()):
        by_scheme.setdefault(str(found), []).append(name.removesuffix(".weight"))
    groups = {f"group_{i}": _group(Scheme.parse(text), names) for i, (text, names) in enumerate(by_scheme.items())}
    formats = {g["format"] for g in groups.values()}
    config = {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "config_groups": groups,
    }
    return {**before, CONFIG: json.dumps(config)} if groups else dict(before)


def _group(found: Scheme, targets: list[str]) -> dict[str, object]:
    weights: dict[str, object] = {"num_bits": found.weight_bits, "type": "int", "symmetric": not found.group}
    weights |= {"strategy": "group", "group_size": found.group} if found.group else {"strategy": "channel"}
    name = "pack-quantized" if found.group else "int-quantized"
    return {"targets": targets, "format": name, "weights": weights}
