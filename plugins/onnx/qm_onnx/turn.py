"""Layers rounded in turn: each is fitted to what reaches it through those that are rounded already.

Its weights follow the way that its inputs have moved, and its biases make good what is left on average.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from qm.numerics import DAMPING_BEHIND, Drift, Grid, followed
from qm.plugin import Array, Dataset, Progress, Silent
from qm_onnx import graph, rounding
from qm_onnx.prepare import Prepared
from qm_onnx.rounding import Weight, Wishes
from qm_onnx.walk import Walk

Drifts = Mapping[str, Drift]


def fit(
    prepared: Prepared, data: Dataset, wishes: Wishes, sources: Mapping[str, str], *, progress: Progress
) -> dict[str, Grid]:
    """Put weights on their grids and change biases, as ``rounding.fit``, one layer after another.

    Nothing of it serves another plan: what a layer is fitted to depends on the layers before it.
    """
    way = _Way(prepared, data)
    weights, grids = rounding.divided(prepared, wishes, sources)
    ahead = {s.node.name for w in weights for s in w.sites}
    for part in progress.track(list(_parts(weights)), "rounding layers in turn"):
        for w, drifts in way.drifts(part, ahead):
            found = rounding.rounded(_goal(w, drifts, wishes), {n: d.now for n, d in drifts.items()}, wishes)
            rounding.store(prepared, w.name, found.weight)
            grids[w.name] = found.grid
            for site, source in zip(w.sites, w.sources, strict=True) if wishes.biases else ():
                rounding.add_bias(prepared, site, _lost(w, found.weight, drifts[source]))
            ahead.difference_update(s.node.name for s in w.sites)
    return grids


def _parts(weights: list[Weight]) -> Iterator[list[Weight]]:
    """Neighbours that read the same tensors: of two layers in a row each would make good the same movement."""
    for part in rounding.portions(weights):
        first = 0
        for i in range(1, len(part) + 1):
            if i == len(part) or set(part[i].sources) != set(part[first].sources):
                yield part[first:i]
                first = i


def _goal(w: Weight, drifts: Drifts, wishes: Wishes) -> Weight:
    """The weight to round: where the results are to stay, one that follows its inputs."""
    if not w.crossed or not wishes.keeps_results(w.sites[0]):
        return w
    moved = np.mean([d.moved() for d in drifts.values()], axis=0)
    products = np.mean([d.now.means()[1] for d in drifts.values()], axis=0)
    value = w.matrix.weight(followed(w.matrix.rows(w.value), moved, products)).astype(np.float32)
    return replace(w, value=value, damping=DAMPING_BEHIND)


def _lost(w: Weight, made: Array, drift: Drift) -> Array:
    """What the results have lost on average, ``(out,)``."""
    before, now = (w.matrix.rows(v.astype(np.float64)) for v in (w.value, made))
    lost: Array = before @ drift.before()[..., None] - now @ drift.now.means()[0][..., None]
    return lost.reshape(-1)


class _Way:
    """Where the layers' inputs are seen: in the model as it is, and as it was before weights changed."""

    def __init__(self, prepared: Prepared, data: Dataset) -> None:
        self._prepared = prepared
        self._before: ModelProto = graph.copied(prepared.proto)
        self._walks = [Walk(prepared.model, data, most=rounding.SAMPLES) for _ in range(2)]

    def drifts(self, part: list[Weight], ahead: set[str]) -> list[tuple[Weight, dict[str, Drift]]]:
        """How the inputs of each layer have moved, by the tensor; nodes ``ahead`` may change yet."""
        made = [
            (w, {s: Drift(w.matrix.inputs, w.matrix.groups, crossed=w.crossed) for s in dict.fromkeys(w.sources)})
            for w in part
        ]
        names = list(dict.fromkeys(s for w in part for s in w.sources))
        protos = self._before, self._prepared.proto
        then, now = (
            walk.values(proto, names, ahead, progress=Silent()) for walk, proto in zip(self._walks, protos, strict=True)
        )
        for (number, name, before), (_, _, value) in zip(then, now, strict=True):
            for w, drifts in made:
                if name in drifts:
                    drifts[name].update(w.matrix.data(before, number), w.matrix.data(value, number))
        return made
