"""The channels of layers: their weights multiplied channel by channel, and operations that do so to a tensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import NodeProto, helper, numpy_helper

from qm.plugin import Array
from qm_onnx import graph
from qm_onnx.graph import Scope, attribute, integer
from qm_onnx.prepare import Prepared
from qm_onnx.result import record
from qm_onnx.site import Site

Floats = NDArray[np.float64]


def groups(site: Site) -> int:
    """Parts of a convolution that see channels of their own, 1 for other layers."""
    return integer(site.node, "group", 1) if site.node.op_type == "Conv" else 1


def is_depthwise(prepared: Prepared, site: Site) -> bool:
    """Whether each result of the layer comes from one channel."""
    return bool(site.node.op_type == "Conv" and prepared.weights[site.weight].shape[1] == 1)


def axis(site: Site) -> int:
    """The axis of the channels in the layer's data and results."""
    return 1 if site.node.op_type == "Conv" else -1


def can_scale(prepared: Prepared, site: Site) -> bool:
    """Whether the layer's inputs and results can be scaled: it alone has its weight, and that is one matrix.

    A bias has to be constant.
    """
    kind, weight = site.node.op_type, prepared.weights[site.weight]
    if kind not in ("Conv", "Gemm", "MatMul") or site.position != 1 or weight.size == 0:
        return False
    if sum(s.weight == site.weight for s in prepared.sites) > 1 or integer(site.node, "transA", 0):
        return False
    fits = weight.ndim >= 3 if kind == "Conv" else weight.ndim == 2
    return fits and (not _has_bias(site) or _bias(prepared, site) is not None)


def rows(prepared: Prepared, site: Site) -> Floats:
    """The weight as ``(groups, out, in, positions)``; a view where the weight is float64."""
    weight = prepared.weights[site.weight].astype(np.float64)
    if site.node.op_type == "Conv":
        return weight.reshape(groups(site), -1, weight.shape[1], int(np.prod(weight.shape[2:])))
    return (weight if integer(site.node, "transB", 0) else weight.T)[None, :, :, None]


def input_reach(prepared: Prepared, site: Site) -> Floats:
    """The largest magnitude of the weights that read each channel of the data."""
    reach: Floats = np.abs(rows(prepared, site)).max(axis=(1, 3)).reshape(-1)
    return reach


def output_reach(prepared: Prepared, site: Site) -> Floats:
    """The largest magnitude of the weights that make each channel of the results."""
    reach: Floats = np.abs(rows(prepared, site)).max(axis=(2, 3)).reshape(-1)
    return reach


def bias(prepared: Prepared, site: Site) -> Floats:
    """The layer's bias ``(out,)``, zeros where it has none."""
    found = _bias(prepared, site) if _has_bias(site) else None
    count = output_reach(prepared, site).size
    return np.zeros(count) if found is None else np.broadcast_to(found.astype(np.float64).reshape(-1), count)


def scale_inputs(prepared: Prepared, site: Site, factor: ArrayLike) -> None:
    """Multiply the weights that read each channel ``(in,)``."""
    made = rows(prepared, site)
    _store_rows(prepared, site, made * np.reshape(factor, (made.shape[0], 1, made.shape[2], 1)))


def scale_outputs(prepared: Prepared, site: Site, factor: ArrayLike, offset: ArrayLike = 0.0) -> None:
    """Turn the results ``y`` into ``y * factor + offset``, both of one value or ``(out,)``; the metadata will know."""
    made = rows(prepared, site)
    count = made.shape[0] * made.shape[1]
    times, plus = (np.broadcast_to(np.asarray(v, np.float64), count) for v in (factor, offset))
    before = bias(prepared, site)
    _store_rows(prepared, site, made * times.reshape(made.shape[0], -1, 1, 1))
    add_bias(prepared, site, before * times + plus - before)
    record(prepared.proto, site.name, times, plus)


def add_bias(prepared: Prepared, site: Site, change: ArrayLike) -> None:
    """Add ``(out,)`` to the layer's bias, in an initializer of its own. A MatMul has none: only 0 can be added."""
    if site.node.op_type == "MatMul":
        assert not np.any(change)
        return
    made = (bias(prepared, site) + np.asarray(change, np.float64)).astype(np.float32)
    del site.node.input[2:]
    site.node.input.append(prepared.store(f"{site.name}/bias", made))


def has_bias(site: Site) -> bool:
    """Whether something can be added to the layer's results without another operation."""
    return bool(site.node.op_type != "MatMul")


def constant(prepared: Prepared, name: str) -> Array | None:
    """The stored float32 tensor of that name."""
    found = next((t for t in prepared.proto.graph.initializer if t.name == name), None)
    value = None if found is None else numpy_helper.to_array(found)
    return value if value is not None and value.dtype == np.float32 else None


def insert(prepared: Prepared, kind: str, data: str, value: ArrayLike, site: Site, *, output: str = "") -> str:
    """A Mul or Add of each channel with ``(channels,)``, as the layer's data or results have them; its output."""
    vector = np.asarray(value, np.float32)
    if axis(site) == 1:
        vector = vector.reshape(1, -1, *[1] * (prepared.weights[site.weight].ndim - 2))
    name = prepared.rewrite.fresh(f"{site.name}/{kind.lower()}")
    made = output or prepared.rewrite.fresh(f"{name}/output")
    held = prepared.store(f"{name}/value", vector)
    prepared.proto.graph.node.append(helper.make_node(kind, [data, held], [made], name=name))
    return made


def alone(scope: Scope, name: str) -> NodeProto | None:
    """The node that alone reads a tensor, None where others do, in graphs inside too, or the model gives it out."""
    readers = scope.consumers.get(name, [])
    given = any(o.name == name for o in scope.graph.output)
    given |= any(name in graph.captured(g) for node in scope.graph.node for g in graph.subgraphs(node))
    return readers[0] if len(readers) == 1 and not given else None


def _has_bias(site: Site) -> bool:
    return len(site.node.input) > 2 and bool(site.node.input[2])


def _bias(prepared: Prepared, site: Site) -> Array | None:
    return constant(prepared, site.node.input[2])


def _store_rows(prepared: Prepared, site: Site, made: Floats) -> None:
    weight = prepared.weights[site.weight]
    if site.node.op_type == "Conv":
        fresh = made.reshape(weight.shape)
    else:
        fresh = made[0, :, :, 0] if integer(site.node, "transB", 0) else made[0, :, :, 0].T
    stored = np.ascontiguousarray(fresh, np.float32)
    prepared.weights[site.weight] = stored
    graph.stored(prepared.proto, site.weight).CopyFrom(numpy_helper.from_array(stored, site.weight))


def is_padded(site: Site) -> bool:
    """Whether the layer sees zeros beside its data."""
    mode, pads = attribute(site.node, "auto_pad"), attribute(site.node, "pads")
    same = bool(mode is not None and mode.s.decode().startswith("SAME"))
    return same or bool(pads is not None and any(pads.ints))
