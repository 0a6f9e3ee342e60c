"""Layers with 16-bit activations among layers with 8-bit ones.

ONNX Runtime's writer gives a tensor one type: 16 bits where only 16-bit layers read it. A tensor with readers of both
kinds is split by an Identity before the writing; afterwards the Identity is taken out, and the 16-bit pair reads the
float tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx import NodeProto, helper

from qm_onnx.graph import Scope
from qm_onnx.site import Site


@dataclass
class Widths:
    """``wide`` tensors get 16 bits; ``seams`` are tensors split off, with the tensor that each has its values from."""

    wide: set[str] = field(default_factory=set)
    seams: dict[str, str] = field(default_factory=dict)


def divide(scope: Scope, sites: list[Site], around: list[NodeProto]) -> Widths:
    """Decide the width of each tensor, and split those that need two. The graph is changed, its scope is not."""
    made = Widths()
    wide = {s.node.name: s for s in sites if s.scheme.activation_bits == 16}
    narrow = {s.node.name for s in sites} - wide.keys() | {n.name for n in around}
    for site in wide.values():
        readers = {r.name for r in scope.consumers.get(site.data, ())}
        if readers & narrow:
            source, seam = site.data, f"{site.data}/wide"
            if seam not in made.seams:
                scope.graph.node.append(helper.make_node("Identity", [source], [seam], name=seam))
            made.seams[seam] = source
            site.node.input[1 - site.position] = seam
            made.wide.add(seam)
        else:
            made.wide.add(site.data)
        for name in site.node.output:
            if not {r.name for r in scope.consumers.get(name, ())} & narrow:
                made.wide.add(name)
    return made
