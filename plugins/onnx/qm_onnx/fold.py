"""Constants beside the layers, put into their weights: operations that kernels in integers would have to leave for.

Exporters and reparametrized networks leave them: a layer's results times a number, plus a number. Each is a pass over
the tensor in float, between a dequantization and a quantization. A hard swish in four operations becomes two.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from qm.plugin import Array, Notes
from qm_onnx import channel
from qm_onnx.graph import Scope
from qm_onnx.prepare import Prepared
from qm_onnx.rewrite import prune
from qm_onnx.site import Site

_MOST = 8
"""Operations in a row that are folded into one side of a layer."""


def fold(prepared: Prepared, notes: Notes) -> int:
    """Write hard swishes short, and fold what comes after and before each layer; how many operations are gone."""
    count = _swishes(prepared)
    for site in prepared.sites:
        if channel.can_scale(prepared, site):
            for step in (_after, _before):
                count += sum(1 for _ in range(_MOST) if step(prepared, site))
    if count:
        prune(prepared.proto.graph)
        notes.say(f"{count} operations with constants folded into the layers beside them")
    return count


def _after(prepared: Prepared, site: Site) -> bool:
    """Fold one operation behind the layer; whether there was one."""
    scope = Scope(prepared.proto.graph)
    result = site.node.output[0]
    node = channel.alone(scope, result)
    value = _vector(prepared, node, result, site) if node is not None else None
    if node is None or value is None or (node.op_type == "Add" and not channel.has_bias(site)):
        return False
    if node.op_type == "Mul" and not np.all(value):
        return False
    factor, offset = (value, 0.0) if node.op_type == "Mul" else (1.0, value)
    channel.scale_outputs(prepared, site, factor, offset)
    prepared.proto.graph.node.remove(node)
    site.node.output[0] = node.output[0]
    return True


def _before(prepared: Prepared, site: Site) -> bool:
    """Fold one operation before the layer, an addition only where no zeros are padded; whether there was one."""
    scope = Scope(prepared.proto.graph)
    node = scope.producer(site.data)
    if node is None or channel.alone(scope, site.data) is None:
        return False
    data, value = _operands(prepared, node)
    if not _is_number(prepared, site, value):
        return False
    assert value is not None
    number = float(value.reshape(-1)[0])
    if node.op_type == "Mul":
        channel.scale_inputs(prepared, site, np.full(channel.input_reach(prepared, site).size, number))
    elif channel.is_padded(site) or not channel.has_bias(site):
        return _past(prepared, scope, site, node, number)
    else:
        channel.add_bias(prepared, site, number * channel.rows(prepared, site).sum(axis=(2, 3)).reshape(-1))
    site.node.input[0] = data
    prepared.proto.graph.node.remove(node)
    return True


def _past(prepared: Prepared, scope: Scope, site: Site, plus: NodeProto, number: float) -> bool:
    """Fold a factor in front of an addition that has to stay: ``x * a + b`` is ``a * (x + b / a)``."""
    data, _ = _operands(prepared, plus)
    node = scope.producer(data)
    if node is None or node.op_type != "Mul" or channel.alone(scope, data) is None:
        return False
    source, value = _operands(prepared, node)
    if not _is_number(prepared, site, value):
        return False
    assert value is not None
    factor = float(value.reshape(-1)[0])
    channel.scale_inputs(prepared, site, np.full(channel.input_reach(prepared, site).size, factor))
    held = prepared.store(f"{plus.name}/value", np.full((1,), number / factor, np.float32))
    plus.input[:] = [source, held]
    prepared.proto.graph.node.remove(node)
    return True


def _operands(prepared: Prepared, node: NodeProto) -> tuple[str, Array | None]:
    """The data and the constant of a Mul or Add; no constant where the node is another or has none."""
    if node.op_type in ("Mul", "Add") and len(node.input) == 2:
        for data, other in (tuple(node.input), tuple(reversed(node.input))):
            if (value := channel.constant(prepared, other)) is not None:
                return data, value
    return "", None


def _vector(prepared: Prepared, node: NodeProto, result: str, site: Site) -> Array | None:
    """The constant that a Mul or Add has for each channel of the results, or for all."""
    data, value = _operands(prepared, node)
    if value is None or data != result:
        return None
    count = channel.output_reach(prepared, site).size
    rank = _rank(prepared, site)
    if value.size == 1 and value.ndim <= rank:
        return value.reshape(-1)
    if value.size != count or value.ndim > rank:
        return None
    shape = (1,) * (rank - value.ndim) + value.shape
    return value.reshape(-1) if shape[1 if channel.axis(site) == 1 else -1] == count else None


def _rank(prepared: Prepared, site: Site) -> int:
    """How many dimensions the data and the results have for certain."""
    return 1 if site.node.op_type == "MatMul" else prepared.weights[site.weight].ndim


def _is_number(prepared: Prepared, site: Site, value: Array | None) -> bool:
    """Whether a constant is one number, not 0, that does not add dimensions to the data."""
    return value is not None and value.size == 1 and value.ndim <= _rank(prepared, site) and bool(value.any())


def _swishes(prepared: Prepared) -> int:
    """Write ``x * clip(x + 3, 0, 6) / 6`` as ``x * HardSigmoid(x)``; how many operations are gone."""
    scope = Scope(prepared.proto.graph)
    found = 0
    for plus in list(prepared.proto.graph.node):
        chain = _swish(prepared, scope, plus)
        if chain is not None:
            clip, times, over = chain
            data, _ = _operands(prepared, plus)
            gate = helper.make_node("HardSigmoid", [data], [plus.output[0]], name=plus.name, alpha=1 / 6, beta=0.5)
            product = helper.make_node("Mul", [data, plus.output[0]], [over.output[0]], name=times.name)
            plus.CopyFrom(gate)
            times.CopyFrom(product)
            prepared.proto.graph.node.remove(clip)
            prepared.proto.graph.node.remove(over)
            found += 2
    return found


def _swish(prepared: Prepared, scope: Scope, plus: NodeProto) -> tuple[NodeProto, NodeProto, NodeProto] | None:
    """The Clip, the Mul and the Div or Mul that make a hard swish of what the Add adds 3 to."""
    data, value = _operands(prepared, plus)
    if plus.op_type != "Add" or not _is(value, 3):
        return None
    clip = channel.alone(scope, plus.output[0])
    if clip is None or clip.op_type != "Clip" or len(clip.input) != 3:
        return None
    if not all(_is(channel.constant(prepared, n), v) for n, v in zip(clip.input[1:], (0, 6), strict=True)):
        return None
    times = channel.alone(scope, clip.output[0])
    if times is None or times.op_type != "Mul" or set(times.input) != {data, clip.output[0]}:
        return None
    over = channel.alone(scope, times.output[0])
    if over is None or over.op_type not in ("Div", "Mul") or over.input[0] != times.output[0]:
        return None
    by = channel.constant(prepared, over.input[1])
    return (clip, times, over) if _is(by, 6 if over.op_type == "Div" else 1 / 6) else None


def _is(value: Array | None, number: float) -> bool:
    return value is not None and value.size == 1 and value.ndim < 2 and bool(value.reshape(-1)[0] == np.float32(number))
