"""What goes wrong in silence with static quantization, caught before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from qm.plugin import Granularity, Notes, PluginError, Scheme
from qm_onnx import layer, scheme
from qm_onnx.chain import data_inputs
from qm_onnx.graph import Scope
from qm_onnx.layer import Found
from qm_onnx.safe import is_safe
from qm_onnx.site import Site

RATIO = 16.0
"""A Concat stays in float where its widest input is this many times wider than another: 4 of 8 bits would be left."""


def mixed(around: Iterable[NodeProto], spans: Mapping[str, float], notes: Notes) -> set[str]:
    """Names of Concats that join tensors of very different ranges, such as boxes and scores: one scale erases one."""
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
        if pair_safe and not is_safe(site, numpy_helper.to_array(f.weights[0].tensor)):
            raise PluginError("onnx.ptq", f"a pair of weights of layer {site.name!r} can still saturate")


def _acceptable(site: Site, f: Found) -> set[Scheme]:
    """The scheme asked for; a weight of one dimension has one channel, so that per tensor is the same."""
    single = len(f.weights[0].tensor.dims) < 2 or np.prod(f.weights[0].tensor.dims) == 1
    if single and site.scheme.granularity is Granularity.CHANNEL:
        return {site.scheme, Scheme.parse(f"{site.scheme}t")}
    return {site.scheme}
