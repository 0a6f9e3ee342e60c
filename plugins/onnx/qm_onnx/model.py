"""An ONNX model in memory, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from qm.plugin import Array, Batch, Hazard, Layer, Model, Operator, Scheme, TensorSpec, Unsupported
from qm_onnx import graph, layer, operator, runtime, scheme
from qm_onnx.normalize import is_quantized as proto_is_quantized
from qm_onnx.result import restored
from qm_onnx.spill import Spill
from qm_onnx.watch import watched


class OnnxModel(Model):
    """An ONNX model. Its graph must not be changed once it is in here: build another, with ``with_proto``."""

    format: ClassVar[str] = "onnx"

    def __init__(
        self, proto: ModelProto, *, source: Path | None = None, notes: Sequence[str] = (), spill: Spill | None = None
    ) -> None:
        self.proto = proto
        self.spill = spill
        self.source = source.absolute() if source is not None else None
        self.notes = tuple(notes)
        self._name = str(source or "model")
        self._layers: tuple[Layer, ...] | None = None
        self._schemes: dict[str, Scheme] | None = None
        self._sessions: dict[bool, _Watching] = {}

    @property
    def native(self) -> ModelProto:
        return self.proto

    def with_proto(self, proto: ModelProto, spill: Spill | None = None) -> OnnxModel:
        """Another graph from the same source; ``spill`` holds all its external data, where it is not the source's."""
        return OnnxModel(proto, source=self.source, notes=self.notes, spill=spill)

    @property
    def folder(self) -> Path | None:
        """Where external data lies, None where all weights are in the graph."""
        if not has_external(self.proto):
            return None
        if self.spill is not None:
            return self.spill.folder
        return self.source.parent if self.source is not None else None

    @property
    def is_streamed(self) -> bool:
        return has_external(self.proto)

    def inputs(self) -> tuple[TensorSpec, ...]:
        stored = {t.name for t in self.proto.graph.initializer}
        return tuple(_spec(v) for v in self.proto.graph.input if v.name not in stored)

    def outputs(self) -> tuple[TensorSpec, ...]:
        return tuple(_spec(v) for v in self.proto.graph.output)

    def nbytes(self) -> int:
        return int(self.proto.ByteSize()) + external_nbytes(self.proto)

    def layers(self) -> tuple[Layer, ...]:
        if self._layers is None:
            self._layers = layer.layers(self.proto)
        return self._layers

    def schemes(self) -> dict[str, Scheme]:
        if self._schemes is None:
            self._schemes = scheme.schemes(self.proto)
        return dict(self._schemes)

    def operators(self) -> tuple[Operator, ...]:
        return operator.operators(self.proto)

    def run(self, batch: Batch, watch: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs by name, and activations by layer name.

        A layer's activation is what a fused kernel yields: past a Relu or Clip that alone reads the layer's result,
        and dequantized where the graph quantizes it there. Halves come as float32. Layers inside control flow cannot be
        watched.
        """
        return self._run(batch, watch, exact=False)

    def run_exact(self, batch: Batch, watch: Sequence[str] = ()) -> dict[str, Array]:
        """As ``run``, with int8 weights taken to uint8, whose kernels sum all products in 32 bits."""
        return self._run(batch, watch, exact=True)

    def hazards(self) -> tuple[Hazard, ...]:
        from qm_onnx.hazard import hazards  # It knows the kernels' weights by way of this module.

        return hazards(self.proto)

    def _run(self, batch: Batch, watch: Sequence[str], *, exact: bool) -> dict[str, Array]:
        names = [v.name for v in self.proto.graph.output]
        open_here = self._sessions.setdefault(exact, _Watching())
        if not watch:
            if open_here.plain is None:
                open_here.plain = self._open(self.proto, runtime.options(exact=exact))
            return runtime.run(open_here.plain, batch, names)
        key = tuple(sorted(set(watch)))
        if open_here.session is None or open_here.key != key:
            proto, places = watched(self.proto, key)
            open_here.key, open_here.places = key, places
            open_here.session = self._open(proto, runtime.options(exact=exact))
        values = runtime.run(open_here.session, batch, list(dict.fromkeys([*names, *open_here.places.values()])))
        seen = {name: _floats(values[p]) for name, p in open_here.places.items()}
        return {name: values[name] for name in names} | restored(self.proto, seen)

    def session(
        self, *, extra_outputs: Sequence[str] = (), extra_nodes: Sequence[NodeProto] = ()
    ) -> ort.InferenceSession:
        """A session of its own on the graph, with further nodes, and tensors named in ``extra_outputs`` as outputs."""
        proto, settings = self.proto, runtime.options()
        if extra_outputs:
            # Tensors leave the kernels' own layout, and memory, as soon as they are made.
            settings.execution_order = ort.ExecutionOrder.PRIORITY_BASED
            proto = ModelProto()
            proto.CopyFrom(self.proto)
            proto.graph.node.extend(extra_nodes)
            there = {o.name for o in proto.graph.output}
            proto.graph.output.extend(ValueInfoProto(name=n) for n in dict.fromkeys(extra_outputs) if n not in there)
        return self._open(proto, settings)

    def _open(self, proto: ModelProto, settings: ort.SessionOptions) -> ort.InferenceSession:
        return runtime.open_proto(proto, name=self._name, folder=self.folder, settings=settings)


@dataclass
class _Watching:
    """Sessions on one kind of kernels: a plain one, and one with the layers of ``key`` as outputs too."""

    plain: ort.InferenceSession | None = None
    key: tuple[str, ...] = ()
    session: ort.InferenceSession | None = None
    places: dict[str, str] = field(default_factory=dict)


def _floats(activation: Array) -> Array:
    """Half-precision activations as float32, so that sums of their squares stay finite."""
    return activation.astype(np.float32) if activation.dtype == np.float16 else activation


def is_quantized(model: OnnxModel) -> bool:
    """Whether the model is quantized already."""
    return proto_is_quantized(model.proto)


def has_external(proto: ModelProto) -> bool:
    """Whether weights lie in a file of their own."""
    return any(t.data_location == TensorProto.EXTERNAL for t in graph.tensors(proto))


def external_nbytes(proto: ModelProto) -> int:
    """Bytes of the weights that lie in a file of their own."""
    entries = (e for t in graph.tensors(proto) if t.data_location == TensorProto.EXTERNAL for e in t.external_data)
    return sum(int(e.value) for e in entries if e.key == "length")


def _spec(value: ValueInfoProto) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise Unsupported(f"{value.name!r} is a {str(kind).removesuffix('_type')}, not a tensor")
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim)
    return TensorSpec(name=value.name, shape=shape, dtype=runtime.type_name(tensor.elem_type))
