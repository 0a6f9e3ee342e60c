"""What goes wrong in silence with static quantization, caught before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper
from qm_onnx import layer, scheme
from qm_onnx.chain import LAYERS, data_inputs
from qm_onnx.graph import Scope
from qm_onnx.layer import Found
from qm_onnx.safe import is_safe
from qm_onnx.site import Site

from qm.plugin import Granularity, Notes, Plan, PluginError, Scheme, Unsupported

SCHEMES = frozenset(Scheme.parse(text) for text in ("w8a8", "w8a8t", "w8a16", "w8a16t"))

RATIO = 16.0
"""A Concat stays in float where its widest input is this many times wider than another: of 8 bits, 4 would be left."""


def planned(proto: ModelProto, plan: Plan) -> list[tuple[Found, Scheme]]:
    """The layers to quantize, in execution order.

    Raises:
        Unsupported: a scheme, or the kind or place of a layer, is not within static quantization.
    """
    wanted = plan.quantized()
    found = [(f, wanted[f.name]) for f in layer.find(proto) if f.name in wanted]
    if lacking := sorted(wanted.keys() - {f.name for f, _ in found}):
        raise Unsupported(f"the plan names the layer {lacking[0]!r}, which the model does not have")
    for f, asked in found:
        _check(f, asked)
    return found


def _check(f: Found, asked: Scheme) -> None:
    stay = f"Leave {f.name!r} in float with a rule."
    if asked not in SCHEMES:
        offered = ", ".join(sorted(map(str, SCHEMES)))
        raise Unsupported(
            f"onnx.ptq has no scheme {asked}, which layer {f.name!r} should get", hint=f"It has {offered}."
        )
    if f.kind not in LAYERS:
        raise Unsupported(f"onnx.ptq does not quantize {f.kind} layers such as {f.name!r}", hint=stay)
    if f.scope.parent is not None:
        raise Unsupported(
            f"layer {f.name!r} is inside control flow, where static quantization does not reach",
            hint=f"Use onnx.dynamic, which quantizes such layers. Or: {stay}",
        )
    stacked = f.kind == "MatMul" and len(f.weights[0].tensor.dims) > 2
    if stacked and asked == Scheme.parse("w8a8"):
        raise Unsupported(
            f"MatMul {f.name!r} has stacked weights, for which the integer kernel takes one scale",
            hint=f"Ask for w8a8t for {f.name!r} with a rule, or leave it in float.",
        )
    if f.kind == "Gemm" and f.position == 0:
        raise Unsupported(
            f"Gemm {f.name!r} has its weights on the left, for which there is no integer kernel", hint=stay
        )


def mixed(around: Iterable[NodeProto], spans: Mapping[str, float], notes: Notes) -> set[str]:
    """Names of Concats that join tensors of very different ranges, such as boxes and scores: one scale would erase one."""
    found: set[str] = set()
    for node in around:
        if node.op_type != "Concat":
            continue
        widths = {name: spans[name] for name in data_inputs(node) if spans.get(name, 0.0) > 0}
        if len(widths) > 1 and max(widths.values()) >= RATIO * min(widths.values()):
            least, most = min(widths, key=widths.__getitem__), max(widths, key=widths.__getitem__)
            notes.say(
                f"{node.name} stays in float: it joins {most!r}, {widths[most]:.4g} wide, and {least!r}, "
                f"{widths[least]:.4g} wide, which one scale would erase"
            )
            found.add(node.name)
    return found


def downstream(scope: Scope, names: set[str], around: list[NodeProto]) -> set[str]:
    """Of the operations between the layers, those named and all that follow them up to the next layers."""
    stopped = set(names)
    beside = {n.name for n in around}
    for node in scope.graph.node:
        if node.name in beside:
            makers = (scope.producer(name) for name in data_inputs(node))
            if any(m is not None and m.name in stopped for m in makers):
                stopped.add(node.name)
    return stopped & beside


def verify(proto: ModelProto, sites: list[Site], *, pair_safe: bool) -> None:
    """Read the written graph back and compare it with the plan, layer by layer.

    Raises:
        PluginError: a layer is not in the scheme that the plan asks for, or a pair of its weights can saturate.
    """
    found = {f.name: f for f in layer.find(proto)}
    for site in sites:
        f = found.get(site.name)
        got = scheme.scheme(f) if f is not None else None
        if f is None or got not in _acceptable(site, f):
            raise PluginError(
                "onnx.ptq",
                f"layer {site.name!r} should be in {site.scheme}, and came out {got or 'missing'}",
                hint=f"Leave {site.name!r} in float with a rule.",
            )
        integers = numpy_helper.to_array(f.weights[0].tensor)
        if pair_safe and not is_safe(site, integers):
            raise PluginError("onnx.ptq", f"a pair of weights of layer {site.name!r} can still saturate")


def _acceptable(site: Site, f: Found) -> set[Scheme]:
    """The scheme asked for; a weight of one dimension has one channel, so that per tensor is the same."""
    single = len(f.weights[0].tensor.dims) < 2 or np.prod(f.weights[0].tensor.dims) == 1
    if single and site.scheme.granularity is Granularity.CHANNEL:
        return {site.scheme, Scheme.parse(f"{site.scheme}t")}
    return {site.scheme}
