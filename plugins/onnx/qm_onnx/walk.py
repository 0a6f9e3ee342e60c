"""Runs of a model over samples to tensors ever further on, each from where the last one could leave off."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from onnx import GraphProto, ModelProto, helper

from qm.plugin import Array, Batch, Dataset, Progress
from qm_onnx import calibrate, graph
from qm_onnx.model import OnnxModel

ROOM = 1 << 28
"""Bytes of tensors that are held between two runs, for all samples; where they take more, the next starts earlier."""


class Held:
    """What is fed to go on: for each sample the tensors that the rest of the graph reads."""

    labels: Any = None

    def __init__(self) -> None:
        self.batches: list[dict[str, Array]] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class Walk:
    """The way of up to ``most`` samples through a model whose layers change one after another."""

    def __init__(self, model: OnnxModel, data: Dataset, *, most: int, room: int = ROOM) -> None:
        self._model = model
        self._data = data
        self._most = most
        self._room = room
        self._held: Held | None = None

    def values(
        self, proto: ModelProto, names: Sequence[str], ahead: Collection[str], *, progress: Progress
    ) -> Iterator[tuple[int, str, Array]]:
        """The tensors for each sample, see ``calibrate.values``; nodes ``ahead`` are those that may change later."""
        short = graph.copied(proto)
        graph.sort(short.graph)
        cut = _cut(short.graph, ahead)
        held = self._held
        if held is not None:
            del short.graph.input[:]
            short.graph.input.extend(
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), None)
                for n, v in held.batches[0].items()
            )
        fed = {v.name for v in short.graph.input}
        wanted = list(dict.fromkeys([*names, *cut]))
        made = [n for n in wanted if n not in fed]
        if held is not None and not made:  # All of it lies there, and there is nothing to run.
            yield from ((i, n, batch[n]) for i, batch in enumerate(held.batches) for n in names)
            return
        if made:
            graph.shorten(short.graph, made)
        session = self._model.with_proto(short).session()
        source = self._data if held is None else held
        found = calibrate.values(session, wanted, source, progress=progress, doing="watching inputs", most=self._most)
        yield from self._holding(found, set(names), set(cut), min(len(source), self._most))

    def _holding(
        self, found: Iterator[tuple[int, str, Array]], names: set[str], cut: set[str], count: int
    ) -> Iterator[tuple[int, str, Array]]:
        """What was found, while what the next run starts from is kept, if there is room for it."""
        kept, nbytes = Held(), 0
        for number, name, value in found:
            if name in cut and nbytes <= self._room:
                if number == len(kept):
                    kept.batches.append({})
                kept.batches[number][name] = value
                nbytes += value.nbytes
                if nbytes > self._room:
                    kept = Held()
            if name in names:
                yield number, name, value
        if len(kept) == count and all(len(b) == len(cut) for b in kept.batches):
            self._held = kept


def _cut(g: GraphProto, ahead: Collection[str]) -> list[str]:
    """The tensors that nodes from the first of those ahead on read, or the model gives, and nodes before it make."""
    at = next((i for i, n in enumerate(g.node) if n.name in ahead), len(g.node))
    made = dict.fromkeys(v.name for v in g.input) | dict.fromkeys(t for n in g.node[:at] for t in n.output if t)
    read = {t for n in g.node[at:] for t in graph.uses(n)} | {o.name for o in g.output}
    stored = {t.name for t in g.initializer}
    return [t for t in made if t in read and t not in stored]
