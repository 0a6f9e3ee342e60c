"""Weights rounded so that the results of their layers stay, and biases that make good what is left on average.

The integers are decided here: the weights that the writer is handed lie on their grids, so that its own rounding
changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import numpy_helper

from qm.numerics import Grid, Moments, dequantize, nearest_results, quantize
from qm.plugin import Array, Dataset, Progress
from qm_onnx import calibrate, graph, safe
from qm_onnx.graph import Scope
from qm_onnx.prepare import Prepared
from qm_onnx.rows import Matrix, matrix
from qm_onnx.site import Site

SAMPLES = 256
"""How many samples are looked at, at most."""

WIDEST = 4096
"""Layers with more inputs to one output are rounded to the nearest: the work grows with the third power."""

_MEMORY = 1 << 25
"""How many products are kept at a time, in numbers of 8 bytes."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is asked for: integers that keep results, biases that make good what is left, pairs that cannot saturate."""

    results: bool
    biases: bool
    pair_safe: bool


@dataclass(frozen=True)
class Weight:
    """A weight as a matrix, the layers that share it, and what their inputs were, by the name of the tensor."""

    name: str
    matrix: Matrix
    sites: list[Site]
    moments: dict[str, Moments]

    def products(self) -> Array:
        """The means of the products of each two inputs ``(groups, in, in)``, over all layers."""
        made: Array = np.mean([m.means()[1] for m in self.moments.values()], axis=0)
        return made


def fit(prepared: Prepared, grids: Mapping[str, Grid], data: Dataset, wishes: Wishes, *, progress: Progress) -> int:
    """Put weights on their grids and change biases, in the prepared model; how many weights there were to change.

    Layers that are no product of one matrix with their data stay as they were.
    """
    weights = list(_weights(prepared, wishes))
    for part in _portions(weights):
        _watch(prepared, part, data, progress)
        for w in progress.track(part, "rounding weights", total=len(part)):
            value = prepared.weights[w.name]
            made = _rounded(w, value, grids[w.name], wishes)
            prepared.weights[w.name] = made
            graph.stored(prepared.proto, w.name).CopyFrom(numpy_helper.from_array(made, w.name))
            if wishes.biases:
                lost = w.matrix.rows(value.astype(np.float64) - made)
                for site in w.sites:
                    mean, _ = w.moments[site.data].means()
                    _add_bias(prepared, site, (lost @ mean[..., None]).reshape(-1))
    return len(weights)


def _rounded(w: Weight, value: Array, grid: Grid, wishes: Wishes) -> Array:
    """The weight on its grid."""
    if not wishes.results or w.matrix.inputs > WIDEST:
        return dequantize(quantize(value, grid), grid)
    paired = wishes.pair_safe and safe.kernel_rows(w.sites[0], value) is not None
    wide = np.broadcast_to(grid.spread(grid.scale, value.shape), value.shape)
    upright = replace(grid, scale=w.matrix.rows(wide)[..., :1], zero_point=np.zeros((), np.int32), axis=None)
    integers = nearest_results(w.matrix.rows(value), w.products(), upright, paired=paired)
    return dequantize(w.matrix.weight(integers), grid)


def _weights(prepared: Prepared, wishes: Wishes) -> Iterator[Weight]:
    sites: dict[str, list[Site]] = {}
    for site in prepared.sites:
        sites.setdefault(site.weight, []).append(site)
    for name, readers in sites.items():
        found = matrix(readers[0], prepared.weights[name])
        if found is not None:
            crossed = wishes.results and found.inputs <= WIDEST
            moments = {s.data: Moments(found.inputs, found.groups, crossed=crossed) for s in readers}
            yield Weight(name, found, readers, moments)


def _portions(weights: list[Weight]) -> Iterator[list[Weight]]:
    """The weights in parts whose products fit in memory together."""
    part: list[Weight] = []
    taken = 0
    for w in weights:
        need = sum(m.size for m in w.moments.values())
        if part and taken + need > _MEMORY:
            yield part
            part, taken = [], 0
        part.append(w)
        taken += need
    if part:
        yield part


def _watch(prepared: Prepared, part: list[Weight], data: Dataset, progress: Progress) -> None:
    """Take in what the inputs of the layers are in the float model."""
    proto = graph.copied(prepared.proto)
    graph.sort(proto.graph)
    model = prepared.model.with_proto(proto)
    readers: dict[str, list[Weight]] = {}
    for w in part:
        for name in w.moments:
            readers.setdefault(name, []).append(w)
    fed = {s.name for s in model.inputs()}
    session = model.session(level=calibrate.BASIC, extra_outputs=[n for n in readers if n not in fed])
    seen = calibrate.values(session, list(readers), data, progress=progress, doing="watching inputs", most=SAMPLES)
    for number, name, value in seen:
        for w in readers[name]:
            w.moments[name].update(w.matrix.data(value, number))


def _add_bias(prepared: Prepared, site: Site, change: Array) -> None:
    """Let a convolution or Gemm add ``(out,)`` to its results; where its bias is computed it stays as it was."""
    if site.node.op_type == "MatMul":
        return
    name = site.node.input[2] if len(site.node.input) > 2 else ""
    there = prepared.rewrite.weight(Scope(prepared.proto.graph), name) if name else np.zeros(1, np.float32)
    if there is not None:
        made = prepared.store(f"{site.name}/bias", (there + change).astype(np.float32))
        del site.node.input[2:]
        site.node.input.append(made)
