"""Storing once the equal weights of graphs inside control flow."""

from __future__ import annotations

import hashlib
from collections import defaultdict

from onnx import GraphProto, ModelProto, TensorProto

from qm_onnx import graph

SMALL = 1024
"""Tensors of fewer bytes are left where they are."""


def share(proto: ModelProto) -> None:
    """Keep one of each group of equal weights that has a member inside control flow, in the outermost graph.

    Folding constants inside both branches of an If would otherwise store twice what they had shared. Equal tensors
    that were apart outside of control flow stay apart, and so do vectors: a bias is scaled by its own layer.
    """
    equal: dict[bytes, list[tuple[GraphProto, TensorProto]]] = defaultdict(list)
    for g in graph.graphs(proto.graph):
        results = {o.name for o in g.output}
        for t in g.initializer:
            stored = t.data_location != TensorProto.EXTERNAL and t.ByteSize() >= SMALL
            if stored and len(t.dims) > 1 and t.name not in results:
                equal[_digest(t)].append((g, t))
    taken = {name for g in graph.graphs(proto.graph) for node in g.node for name in (*node.input, *node.output)}
    for group in equal.values():
        if len(group) > 1 and any(g is not proto.graph for g, _ in group):
            _keep_first(proto.graph, group, taken)


def _digest(t: TensorProto) -> bytes:
    bare = TensorProto()
    bare.CopyFrom(t)
    bare.name = bare.doc_string = ""
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()


def _keep_first(top: GraphProto, group: list[tuple[GraphProto, TensorProto]], taken: set[str]) -> None:
    home, kept = next(((g, t) for g, t in group if g is top), group[0])
    name = kept.name
    if home is not top:
        name = _free(f"{kept.name}/shared", taken)
        top.initializer.add().CopyFrom(kept)
        top.initializer[-1].name = name
    for g, t in group:
        if g is top:
            continue
        rename(g, t.name, name)
        g.initializer.remove(t)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def rename(g: GraphProto, old: str, new: str) -> None:
    """Read ``new`` wherever the graph, or one inside it, reads ``old``."""
    for node in g.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
        for inner in graph.subgraphs(node):
            if all(t.name != old for t in inner.initializer):
                rename(inner, old, new)
