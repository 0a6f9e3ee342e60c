"""A float graph run on samples, and what its nodes hold shown as it goes; nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import islice
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from qm.plugin import Batch, Dataset, Progress
from qm_torch.model import TorchModel, refused

See = Callable[[int, Node, Any], None]
"""Takes the number of a sample, a node and what it holds."""


class _Watch(Interpreter):
    def __init__(self, gm: GraphModule, nodes: Collection[Node], see: See) -> None:
        super().__init__(gm)
        self.nodes, self.see = frozenset(nodes), see
        self.number = 0

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self.nodes:
            self.see(self.number, n, value.detach().numpy())
        return value


def walk(
    model: TorchModel,
    gm: GraphModule,
    nodes: Collection[Node],
    data: Dataset,
    see: See,
    *,
    progress: Progress,
    doing: str,
    most: int | None = None,
) -> None:
    """Run the model's graph on samples, ``most`` of them at most, and show what the nodes hold.

    Raises:
        UsageError: a sample does not fit the model.
    """
    watch = _Watch(gm, nodes, see)
    total = len(data) if most is None else min(most, len(data))
    for number, batch in enumerate(progress.track(islice(data, total), doing, total=total)):
        watch.number = number
        given = flat(model, gm, batch)
        try:
            with torch.no_grad():
                watch.run(*given, enable_io_processing=False)
        except (AssertionError, RuntimeError) as e:
            raise refused(model.name, e) from e


def flat(model: TorchModel, gm: GraphModule, batch: Batch) -> list[Any]:
    """What the placeholders of the model's graph get of a sample, in order.

    Raises:
        UsageError: the sample does not fit the model.
    """
    args, kwargs = model.arguments(batch)
    return list(gm.graph._codegen.process_inputs(*args, **kwargs))
