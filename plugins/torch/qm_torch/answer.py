"""What a program answers: its outputs, before the functions that squeeze them into probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import CodeGen

_ATEN = torch.ops.aten
_SOFTMAX = frozenset({_ATEN.softmax.int, _ATEN._softmax.default, _ATEN.log_softmax.int, _ATEN._log_softmax.default})
_LOGISTIC = frozenset({_ATEN.sigmoid.default, _ATEN.log_sigmoid.default})
_PASSED = frozenset({_ATEN.reshape.default, _ATEN.view.default, _ATEN.flatten.using_ints, _ATEN.squeeze.dim})


@dataclass(frozen=True)
class Answer:
    """A tensor to learn; ``kind`` is ``softmax`` or ``logistic`` where that function follows it, else ``value``."""

    node: Node
    kind: str

    @property
    def shape(self) -> tuple[int | torch.SymInt, ...]:
        return tuple(self.node.meta["val"].shape)

    @property
    def classes(self) -> int | None:
        """How many scores of classes it may be, for each sample; None where it is none."""
        rest = self.shape[1:]
        whole = len(rest) > 0 and all(isinstance(n, int) for n in rest) and sorted(rest)[:-1] == [1] * (len(rest) - 1)
        return max(int(n) for n in rest) if whole and self.kind != "logistic" else None


def answers(graph: Graph) -> list[Answer]:
    """One an output that is a tensor, in the order of the outputs."""
    ends = [n for n in graph.output_node().args[0] if isinstance(n, Node)]
    return [_behind(n) for n in ends if isinstance(n.meta.get("val"), torch.Tensor)]


def _behind(end: Node) -> Answer:
    at = end
    while at.target in _PASSED and isinstance(at.args[0], Node):
        at = at.args[0]
    source = at.args[0] if at.args else None
    if isinstance(source, Node):
        if at.target in _LOGISTIC:
            return Answer(source, "logistic")
        if at.target in _SOFTMAX and at.args[1] in (-1, source.meta["val"].ndim - 1):
            return Answer(source, "softmax")
    return Answer(end, "value")


def answering(gm: GraphModule) -> GraphModule:
    """The module in place, as a function of its tensors one by one that returns the answers as a tuple."""
    graph = gm.graph
    graph.output_node().args = (tuple(a.node for a in answers(graph)),)
    for node in list(graph.nodes):
        # Guards hold the lengths that the program was exported for: training may take more samples at once.
        if node.op == "call_module" and str(node.target).startswith("_guards"):
            graph.erase_node(node)
    graph.set_codegen(CodeGen())
    graph.eliminate_dead_code()
    gm.recompile()
    return gm
