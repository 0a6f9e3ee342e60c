"""The ``.toy`` file: NumPy's ``.npz`` with a JSON header, and nothing pickled.

The header describes each layer and each weight; a weight is ``float``, or ``packed`` with a number of bits. Arrays are
named after what they belong to: ``NAME/bias``, ``NAME/values``, ``NAME/codes``, ``NAME/scale``.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qm.plugin import Activations, Array, Artifact, ExportJob, LoadJob, Unsupported, UsageError
from qm_toy.model import Dense, ToyModel
from qm_toy.weight import BITS, Float, Packed, Weight

HINT = "Make one with qm_toy.make, or export the model again."


DAMAGE = (ValueError, EOFError, OSError, RuntimeError, SyntaxError, TokenError, zipfile.BadZipFile, zlib.error)
"""What NumPy and zipfile raise for damaged archives; ValueError is also their word for what would be unpickled."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Layer(_Strict):
    name: str = Field(min_length=1)
    weight: str
    relu: bool = False
    activations: Activations = Activations.FLOAT
    span: tuple[float, float] | None = None


class _Weight(_Strict):
    codec: Literal["float", "packed"]
    bits: int | None = None
    shape: tuple[int, int] | None = None


class _Header(_Strict):
    version: Literal[1] = 1
    layers: tuple[_Layer, ...] = Field(min_length=1)
    weights: dict[str, _Weight]


class _Broken(Exception):
    """What is wrong with a file, as a clause."""


def load(job: LoadJob) -> ToyModel:
    """Read a ``.toy`` file.

    Raises:
        UsageError: it is missing, or is not a whole toy model.
    """
    path = str(job.path)
    if not job.path.exists():
        raise UsageError(f"{path!r} does not exist", hint="Check the path.")
    if job.path.is_dir():
        raise UsageError(f"{path!r} is a folder", hint="Name a .toy file.")
    try:
        return ToyModel(_layers(_read(job.path)))
    except (_Broken, ValidationError, *DAMAGE) as e:
        raise UsageError(f"{path!r} is not a toy model: {_reason(e)}", hint=HINT) from e


def _read(path: Path) -> dict[str, Array]:
    if not zipfile.is_zipfile(path):
        raise _Broken("it is no .npz file, or a part of one")
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _reason(error: Exception) -> str:
    if isinstance(error, _Broken):
        return str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"its header is wrong at {where!r}: {first['msg'].lower()}"
    return "its arrays are damaged, or are pickled objects"


def _layers(arrays: Mapping[str, Array]) -> list[Dense]:
    header = _Header.model_validate_json(_array(arrays, "header").tobytes())
    weights = {name: _weight(name, stored, arrays) for name, stored in header.weights.items()}
    layers: list[Dense] = []
    for stored in header.layers:
        if stored.weight not in weights:
            raise _Broken(f"layer {stored.name!r} names a weight that is not there, {stored.weight!r}")
        layer = Dense(
            name=stored.name,
            tensor=stored.weight,
            weight=weights[stored.weight],
            bias=_array(arrays, f"{stored.name}/bias"),
            relu=stored.relu,
            activations=stored.activations,
            span=stored.span,
        )
        _check(layer, layers)
        layers.append(layer)
    return layers


def _check(layer: Dense, before: list[Dense]) -> None:
    outputs, inputs = layer.weight.shape
    if layer.bias.shape != (outputs,):
        raise _Broken(f"layer {layer.name!r} has {outputs} outputs and a bias of shape {list(layer.bias.shape)}")
    if before and before[-1].weight.shape[0] != inputs:
        raise _Broken(f"layer {layer.name!r} takes {inputs} inputs and gets {before[-1].weight.shape[0]}")
    if any(layer.name == other.name for other in before):
        raise _Broken(f"two layers are named {layer.name!r}")
    if (layer.activations is Activations.STATIC) != (layer.span is not None):
        raise _Broken(f"layer {layer.name!r} needs a span if its activations are static, and only then")


def _weight(name: str, stored: _Weight, arrays: Mapping[str, Array]) -> Weight:
    if stored.codec == "float":
        values = _array(arrays, f"{name}/values")
        if values.ndim != 2 or 0 in values.shape or values.dtype.kind != "f":
            raise _Broken(f"weight {name!r} is {values.dtype} {list(values.shape)}, not a matrix of floats")
        return Float(array=values)
    if stored.bits not in BITS or stored.shape is None or min(stored.shape) < 1:
        raise _Broken(f"weight {name!r} is packed in {stored.bits} bits with shape {stored.shape}")
    codes, scale = _array(arrays, f"{name}/codes"), _array(arrays, f"{name}/scale")
    outputs, inputs = stored.shape
    if codes.dtype != np.uint8 or codes.shape != (-(-outputs * inputs * stored.bits // 8),):
        raise _Broken(f"weight {name!r} has {codes.size} bytes of codes for shape {list(stored.shape)}")
    if scale.ndim != 2 or scale.shape[0] not in (1, outputs) or scale.shape[1] == 0 or inputs % scale.shape[1]:
        raise _Broken(f"weight {name!r} has scales of shape {list(scale.shape)} for shape {list(stored.shape)}")
    return Packed(codes=codes, scale=scale, bits=stored.bits, shape=stored.shape)


def _array(arrays: Mapping[str, Array], name: str) -> Array:
    if name not in arrays:
        raise _Broken(f"the array {name!r} is missing")
    return arrays[name]


def save(job: ExportJob) -> Artifact:
    """Write a ``.toy`` file, the same bytes for the same model."""
    if not isinstance(job.model, ToyModel):
        raise Unsupported(f"toy.save writes toy models, not {job.model!r}")
    arrays: dict[str, Array] = {}
    weights: dict[str, _Weight] = {}
    for layer in job.model.native:
        arrays[f"{layer.name}/bias"] = layer.bias
        if isinstance(layer.weight, Packed):
            weights[layer.tensor] = _Weight(codec="packed", bits=layer.weight.bits, shape=layer.weight.shape)
            arrays |= {f"{layer.tensor}/codes": layer.weight.codes, f"{layer.tensor}/scale": layer.weight.scale}
        else:
            weights[layer.tensor] = _Weight(codec="float")
            arrays[f"{layer.tensor}/values"] = layer.weight.array
    header = _Header(layers=tuple(_describe(layer) for layer in job.model.native), weights=weights)
    text = header.model_dump_json(exclude_defaults=True).encode()
    with job.path.open("wb") as file:
        np.savez(file, header=np.frombuffer(text, np.uint8), **arrays)  # type: ignore[arg-type]
    return Artifact(path=Path(job.path), format="toy")


def _describe(layer: Dense) -> _Layer:
    return _Layer(name=layer.name, weight=layer.tensor, relu=layer.relu, activations=layer.activations, span=layer.span)
