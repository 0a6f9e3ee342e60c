"""Samples on their way through a graph whose layers change one after another: as it was, and as it is by then.

They are run to layers ever further on, each time from where the last run could leave off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from qm.plugin import Dataset
from qm_torch import watch
from qm_torch.model import TorchModel, refused

ROOM = 1 << 28
"""Bytes of tensors that are held between two runs, for all samples; where they take more, the next starts earlier."""

Values = dict[Node, Any]
Pair = tuple[Values, Values]


class _Run(Interpreter):
    """Runs single nodes of what ``env`` holds; layers read what they have been changed to."""

    def __init__(self, gm: GraphModule) -> None:
        super().__init__(gm)
        self.changed: dict[Node, tuple[Tensor, Any]] = {}

    def fetch_args_kwargs_from_env(self, n: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        if n not in self.changed:
            return tuple(args), dict(kwargs)
        weight, bias = self.changed[n]
        own = self.env[bias] if isinstance(bias, Node) else bias
        return (args[0], weight, own, *args[3:]), {name: v for name, v in kwargs.items() if name != "bias"}


class Way:
    """The way of up to ``most`` samples through the model's graph; ``room`` are the bytes held of them."""

    def __init__(self, model: TorchModel, gm: GraphModule, data: Dataset, *, most: int, room: int = ROOM) -> None:
        self._model, self._gm, self._data, self._most, self._room = model, gm, data, most, room
        self._nodes = list(gm.graph.nodes)
        self._place = {node: i for i, node in enumerate(self._nodes)}
        self._before, self._now = _Run(gm), _Run(gm)
        self._fixed = {n: self._before.run_node(n) for n in self._nodes if n.op == "get_attr"}
        self._mutates = any(getattr(getattr(n.target, "_schema", None), "is_mutable", False) for n in self._nodes)
        self._start = 0
        self._held: list[Pair] | None = None

    def change(self, layer: Node, weight: Tensor, bias: Any) -> None:
        """Have the layer, as it is by now, compute with a weight and a bias: a tensor, a node, or None."""
        self._now.changed[layer] = weight, bias

    def inputs(self, layers: Collection[Node], ahead: Collection[Node]) -> Iterator[tuple[int, Node, Tensor, Tensor]]:
        """Of each sample, by its number and the layer: what the layer reads, as it was and as it is by now.

        Layers ``ahead`` are those that may change later.

        Raises:
            UsageError: a sample does not fit the model.
        """
        if not layers:
            return
        cut = min(self._place[n] for n in ahead)
        end = max(self._place[n] for n in layers)
        kept = _Kept(self._room)
        for number, held in enumerate(self._sources() if self._held is None else self._held):
            before, now = ({**self._fixed, **values} for values in self._copied(held))
            for place in range(self._start, end + 1):
                node = self._nodes[place]
                if place == cut:
                    kept.add(self._copied((self._live(before, cut), self._live(now, cut))))
                if node in layers:
                    yield number, node, before[node.args[0]], now[node.args[0]]
                if place < end:
                    self._step(node, before, now)
        if kept.fits:
            self._held, self._start = kept.pairs, cut

    def _sources(self) -> Iterator[Pair]:
        entries = [n for n in self._nodes if n.op == "placeholder"]
        for batch in islice(self._data, self._most):
            given: Values = dict(zip(entries, watch.flat(self._model, self._gm, batch), strict=True))
            yield given, dict(given)

    def _copied(self, pair: Pair) -> Pair:
        """The values, in copies if the graph has operations that write into what they read."""
        if not self._mutates:
            return pair
        copies = {id(v): v.clone() for values in pair for v in values.values() if isinstance(v, Tensor)}
        first, second = ({n: copies.get(id(v), v) for n, v in values.items()} for values in pair)
        return first, second

    def _live(self, values: Values, cut: int) -> Values:
        """Those that nodes from the cut on read."""
        read = (n for n in values if any(self._place[u] >= cut and u.op != "output" for u in n.users))
        return {n: values[n] for n in read if n not in self._fixed}

    def _step(self, node: Node, before: Values, now: Values) -> None:
        """Run a node both ways, once where nothing has moved that it reads."""
        if node.op in ("placeholder", "get_attr"):
            return
        same = node not in self._now.changed and all(before.get(n) is now.get(n) for n in node.all_input_nodes)
        before[node] = self._run(self._before, node, before)
        now[node] = before[node] if same else self._run(self._now, node, now)

    def _run(self, run: _Run, node: Node, values: Values) -> Any:
        run.env = values
        try:
            with torch.no_grad():
                return run.run_node(node)
        except (AssertionError, RuntimeError) as e:
            raise refused(self._model.name, e) from e


class _Kept:
    """Values of samples, as long as there is room for all of them."""

    def __init__(self, room: int) -> None:
        self.pairs: list[Pair] = []
        self.fits = True
        self._room = room

    def add(self, pair: Pair) -> None:
        tensors = (v for values in pair for v in values.values() if isinstance(v, Tensor))
        storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}
        self._room -= sum(storages.values())
        self.pairs.append(pair)
        if self._room < 0:
            self.fits = False
            self.pairs.clear()
