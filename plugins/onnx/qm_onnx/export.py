"""Writing an ONNX file: the same bytes for the same model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, external_data_helper

from qm.plugin import Artifact, ExportJob, UsageError
from qm_onnx import graph
from qm_onnx.model import OnnxModel, has_external
from qm_onnx.spill import ALIGNED

BESIDE_FROM = (1 << 31) - (1 << 24)
"""Bytes of a model, with a margin below protobuf's 2 GB, from which the weights go into a file of their own."""

SMALL = 1024
"""Tensors of fewer bytes stay in the model."""


def export(job: ExportJob) -> Artifact:
    """Write the model to ``job.path``, with ``NAME.onnx.data`` beside it where its weights need that."""
    if not isinstance(job.model, OnnxModel):
        raise UsageError(f"{job.model!r} is not an ONNX model", hint="Export it with the exporter of its own format.")
    if job.model.spill is not None and job.model.folder is not None:
        _adopt(job.model.proto, job.model.spill.path, job.path)
    else:
        write(job.model.proto, job.path, folder=job.model.folder)
    return Artifact(path=job.path, format="onnx")


def write(proto: ModelProto, path: Path, *, folder: Path | None = None, beside_from: int = BESIDE_FROM) -> None:
    """Write a model; ``folder`` is where its external data lies now, ``beside_from`` the size that splits it in two."""
    if has_external(proto) or proto.ByteSize() >= beside_from:
        proto = _split(proto, path, folder or Path())
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _adopt(proto: ModelProto, spilled: Path, path: Path) -> None:
    """Write a model whose data file is there already, under another name.

    The file is copied: a run that is cut off from here on can go on from it, and onnx opens no file with two links.
    """
    data = path.with_name(path.name + ".data")
    shutil.copyfile(spilled, data)
    fresh = ModelProto()
    fresh.CopyFrom(proto)
    for tensor in graph.tensors(fresh):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = data.name
    path.write_bytes(fresh.SerializeToString(deterministic=True))


def _split(proto: ModelProto, path: Path, folder: Path) -> ModelProto:
    """The model with its large tensors moved to the data file, one tensor in memory at a time."""
    data = path.with_name(path.name + ".data")
    fresh = ModelProto()
    fresh.CopyFrom(proto)
    with data.open("wb") as f:
        for old, new in zip(graph.tensors(proto), graph.tensors(fresh), strict=True):
            _store(old, new, f, data.name, folder)
    return fresh


def _store(old: TensorProto, new: TensorProto, f: BinaryIO, location: str, folder: Path) -> None:
    external = old.data_location == TensorProto.EXTERNAL
    if not external and old.ByteSize() < SMALL:
        return
    if old.data_type == TensorProto.STRING:
        return
    content = _content(old, folder) if external else raw(old)
    f.write(b"\0" * (-f.tell() % ALIGNED))
    offset = f.tell()
    f.write(content)
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data"):
        new.ClearField(field)
    new.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(len(content)))):
        new.external_data.add(key=key, value=value)


def raw(tensor: TensorProto) -> bytes:
    """The bytes of a tensor as raw_data holds them."""
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    fresh = onnx.numpy_helper.from_array(np.asarray(onnx.numpy_helper.to_array(tensor)))
    return bytes(fresh.raw_data)


def _content(tensor: TensorProto, folder: Path) -> bytes:
    info = external_data_helper.ExternalDataInfo(tensor)
    with (folder / info.location).open("rb") as f:
        f.seek(info.offset or 0)
        return bytes(f.read(info.length or -1))
