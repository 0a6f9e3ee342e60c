"""An ONNX file opened by ONNX Runtime, and the time of each of its operations."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from qm.plugin import Array, Batch, BenchmarkJob, OpTime, Session, TensorSpec
from qm_onnx import layer, runtime

ROUNDS = 10
WARMUPS = 3

_INTEGER = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    }
)
_FLOAT = frozenset(
    {"Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "Gemm", "LSTM", "MatMul", "RNN"}
)

# What ONNX Runtime adds to a name where it fused something in, changed the layout, or computes halves in float.
_ADDED = re.compile(r"^fused |^InsertedPrecisionFreeCast_|/\w+Fusion/?$|_token_\d+$|_nchwc$")


def open_session(job: BenchmarkJob) -> OrtSession:
    """The artifact, opened."""
    return OrtSession(job.artifact.path, threads=job.threads)


class OrtSession(Session):
    """One .onnx or .ort file in ONNX Runtime, on the CPU."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._path = path
        self._threads = threads
        self._session = runtime.open_file(path, settings=runtime.options(threads=threads))
        self._inputs = runtime.specs(self._session.get_inputs())
        self._outputs = [o.name for o in self._session.get_outputs()]

    @property
    def runtime(self) -> str:
        threads = "1 thread" if self._threads == 1 else f"{self._threads} threads"
        return f"onnxruntime {ort.__version__} {self._session.get_providers()[0]}, {threads}"

    def inputs(self) -> Sequence[TensorSpec]:
        return self._inputs

    def run(self, batch: Batch) -> dict[str, Array]:
        return runtime.run(self._session, batch, self._outputs)

    def profile(self, batch: Batch) -> list[OpTime]:
        """Time per operation as ONNX Runtime fused them, in execution order, the mean of some runs after a warm-up."""
        with tempfile.TemporaryDirectory() as scratch:
            settings = runtime.options(threads=self._threads)
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(scratch) / "profile")
            session = runtime.open_file(self._path, settings=settings)
            for _ in range(WARMUPS + ROUNDS):
                runtime.run(session, batch, self._outputs)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return _op_times(events, _names(self._path))


@dataclass
class _Spent:
    kind: str
    times: list[float]


def _op_times(events: Sequence[dict[str, Any]], names: dict[str, str]) -> list[OpTime]:
    """Events by operation. ONNX Runtime writes one event a node and run, so the first tell of the warm-up."""
    spent: dict[tuple[str, str], _Spent] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        name = name.removesuffix("_kernel_time")
        kind = str(event["args"].get("op_name", ""))
        spent.setdefault((name, kind), _Spent(kind, [])).times.append(float(event["dur"]))
    times = []
    for (name, kind), s in spent.items():
        per_run = max(1, round(len(s.times) / (WARMUPS + ROUNDS)))
        counted = s.times[WARMUPS * per_run :] or s.times
        times.append(
            OpTime(
                name=name,
                kind=kind,
                latency_us=sum(counted) / ROUNDS,
                layer=_layer(name, kind, names),
                integer=True if kind in _INTEGER else False if kind in _FLOAT else None,
            )
        )
    return times


def _layer(name: str, kind: str, names: dict[str, str]) -> str:
    """The layer whose operation this is."""
    if kind not in _INTEGER | _FLOAT:
        return names.get(name, "")
    return names.get(name) or names.get(_ADDED.sub("", name), "")


def _names(path: Path) -> dict[str, str]:
    """Layer name by what ONNX Runtime may call its kernel.

    That is the node's name, or in blocked layout (nchwc) the name of its output, past what was fused into it.
    """
    try:
        proto: ModelProto = onnx.load(str(path), load_external_data=False)
    except DecodeError:  # An .ort file, which holds no ONNX graph.
        return {}
    found = layer.find(proto)
    names: dict[str, str] = {}
    for f in found:
        names.update((output, f.name) for output in layer.fused_outputs(f))
    return names | {f.node.name: f.name for f in found}
