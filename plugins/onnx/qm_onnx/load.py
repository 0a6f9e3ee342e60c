"""Reading an ONNX file, or saying in one sentence why it cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, external_data_helper

from qm.plugin import LoadJob, UsageError, contents
from qm_onnx import graph
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize
from qm_onnx.option import LoadOptions

SMALL = 1 << 16
"""Tensors of up to this many bytes are always read: without shapes and axes nothing can be inferred."""

_OTHERS = (
    (0, b"PK\x03\x04", "a zip archive, such as a Keras or PyTorch file"),
    (0, b"\x89HDF\r\n", "an HDF5 file, such as a Keras .h5 model"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "an ONNX Runtime .ort file"),
    (0, b"\x1f\x8b", "a gzip archive"),
)


def load(job: LoadJob) -> OnnxModel:
    """The model in an ONNX file, put in order (see ``normalize``); the file itself is not touched.

    Raises:
        UsageError: the file is missing, is not ONNX, is damaged, or its external data is missing.
        Unsupported: ONNX Runtime does not know one of its operators.
    """
    options = job.options if isinstance(job.options, LoadOptions) else LoadOptions()
    proto = read(job.path, most=0 if job.streamed else int(options.in_memory_mb * 1_000_000))
    proto, notes = normalize(proto, name=str(job.path), folder=job.path.parent)
    return OnnxModel(proto, source=job.path, notes=notes)


def read(path: Path, *, most: int = 1_000_000_000) -> ModelProto:
    """The file as it is, its external data read where there are no more than ``most`` bytes of it."""
    proto = _parse(path, _content(path))
    total = _external_nbytes(proto, path)
    for tensor in graph.tensors(proto) if total else ():
        if external_data_helper.uses_external_data(tensor) and (total <= most or _nbytes(tensor) <= SMALL):
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    return proto


def _content(path: Path) -> bytes:
    return contents(path, "an ONNX file")


def _parse(path: Path, content: bytes) -> ModelProto:
    proto = ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        raise _not_onnx(path, content) from None
    if not (proto.ir_version and proto.HasField("graph") and proto.graph.output):
        raise _not_onnx(path, content)
    if not proto.graph.node:
        raise UsageError(f"model {str(path)!r} has no operations", hint="Export it again, with its graph.")
    if not all(isinstance(text, str) for text in _texts(proto)):
        raise _damaged(path, content)
    return proto


def _texts(proto: ModelProto) -> Iterator[object]:
    """Every name in the model. protobuf hands out bytes where one is not UTF-8."""
    for g in graph.graphs(proto.graph):
        for node in g.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (a.name for a in node.attribute)
        yield from (v.name for v in (*g.input, *g.output, *g.value_info, *g.initializer))


def _not_onnx(path: Path, content: bytes) -> UsageError:
    if content.startswith(b"version https://git-lfs"):
        return UsageError(
            f"{str(path)!r} is a Git LFS pointer, not the model itself", hint="Fetch it with git lfs pull."
        )
    for offset, magic, what in _OTHERS:
        if content[offset : offset + len(magic)] == magic:
            return UsageError(f"{str(path)!r} is {what}, not an ONNX model", hint="Name the .onnx file.")
    if _is_text(content[:1024]):
        return UsageError(f"{str(path)!r} is a text file, not an ONNX model", hint="Name the .onnx file.")
    if content[0] == 0x08 and content[1] < 64:  # How every ONNX file begins: field 1, the IR version.
        return _damaged(path, content)
    return UsageError(f"{str(path)!r} is not an ONNX model", hint="Name the .onnx file.")


def _damaged(path: Path, content: bytes) -> UsageError:
    return UsageError(
        f"model {str(path)!r} is damaged or cut short at {len(content):,} bytes", hint="Download or export it again."
    )


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as e:
        if e.start < len(head) - 4:
            return False
        text = head[: e.start].decode("utf-8")
    return all(c.isprintable() or c in "\r\n\t" for c in text)


def _external_nbytes(proto: ModelProto, path: Path) -> int:
    """Bytes of external data, after checking that every file is there and long enough."""
    ends: dict[str, int] = {}
    total = 0
    for tensor in graph.tensors(proto):
        if not external_data_helper.uses_external_data(tensor):
            continue
        nbytes = _nbytes(tensor)
        info = external_data_helper.ExternalDataInfo(tensor)
        ends[info.location] = max(ends.get(info.location, 0), (info.offset or 0) + nbytes)
        total += nbytes
    for location, end in ends.items():
        _check_external(path, location, end)
    return total


def _nbytes(tensor: TensorProto) -> int:
    info = external_data_helper.ExternalDataInfo(tensor)
    if info.length:
        return int(info.length)
    bits = {TensorProto.INT4: 4, TensorProto.UINT4: 4}.get(tensor.data_type)
    if bits is None:
        bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    count = 1
    for n in tensor.dims:
        count *= n
    return -(-count * bits // 8)


def _check_external(path: Path, location: str, end: int) -> None:
    data = path.parent / location
    if not data.resolve().is_relative_to(path.parent.resolve()):
        raise UsageError(
            f"model {str(path)!r} keeps its weights in {location!r}, outside its own folder",
            hint="Put the weights beside the model and export it again.",
        )
    if not data.is_file():
        raise UsageError(
            f"model {str(path)!r} keeps its weights in {str(data)!r}, which does not exist",
            hint="Put that file beside the model.",
        )
    if data.stat().st_size < end:
        raise UsageError(
            f"the weights of {str(path)!r} are cut short: {str(data)!r} has {data.stat().st_size:,} of {end:,} bytes",
            hint="Download or export it again.",
        )
