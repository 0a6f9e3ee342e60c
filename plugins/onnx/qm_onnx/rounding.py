"""Weights rounded so that the results of their layers stay, and biases that make good what is left on average.

The integers are decided here: the weights that the writer is handed lie on their grids, so that its own rounding
changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from onnx import numpy_helper

from qm.numerics import Grid, Moments, adaptive_results, dequantize, fake_quantize, nearest_results
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
    """What is asked for: how weights are rounded and how far their grids reach, as ``PtqOptions`` say it, biases that
    make good what rounding changes, and pairs that cannot saturate."""

    rounding: str
    ranges: str
    biases: bool
    pair_safe: bool

    @property
    def method(self) -> str:
        """How weights are rounded that are not rounded each to the nearest."""
        return "gptq" if self.rounding == "auto" else self.rounding

    def keeps_results(self, site: Site) -> bool:
        """Whether the layer's weights are rounded so that its results stay."""
        return self.method in ("gptq", "adaround") and (self.rounding != "auto" or site.scheme.weight_bits < 8)

    def reach(self, site: Site) -> str:
        """How far the grid of the layer's weights reaches."""
        if self.ranges != "auto":
            return self.ranges
        return "minmax" if site.scheme.weight_bits >= 8 else "hessian"

    def watches(self, site: Site) -> bool:
        """Whether the layer's inputs have to be looked at."""
        return self.biases or self.keeps_results(site) or self.reach(site) == "hessian"


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

    @property
    def is_crossed(self) -> bool:
        """Whether the products are kept."""
        return any(m.size for m in self.moments.values())


def fit(prepared: Prepared, data: Dataset, wishes: Wishes, *, progress: Progress) -> dict[str, Grid]:
    """Put weights on their grids and change biases, in the prepared model; the grids by weight.

    The weight of a layer that is no product of one matrix with its data is rounded to the nearest, and its bias stays.
    """
    sites: dict[str, list[Site]] = {}
    for site in prepared.sites:
        sites.setdefault(site.weight, []).append(site)
    weights = {name: w for name, readers in sites.items() if (w := _weight(prepared, name, readers, wishes))}
    grids = {name: _plain(prepared, readers[0], wishes) for name, readers in sites.items() if name not in weights}
    for part in _portions(list(weights.values())):
        _watch(prepared, part, data, progress)
        for w in progress.track(part, "rounding weights", total=len(part)):
            value = prepared.weights[w.name]
            made, grids[w.name] = _rounded(w, value, wishes)
            _store(prepared, w.name, made)
            if wishes.biases:
                lost = w.matrix.rows(value.astype(np.float64) - made)
                for site in w.sites:
                    mean, _ = w.moments[site.data].means()
                    _add_bias(prepared, site, (lost @ mean[..., None]).reshape(-1))
    return grids


def _plain(prepared: Prepared, site: Site, wishes: Wishes) -> Grid:
    """Round a weight to the nearest points of its grid, by nothing but its values; the grid.

    The writer could do so too, but knows neither narrow grids nor clipped ones.
    """
    reach = wishes.reach(site)
    value = prepared.weights[site.weight]
    ranges = "mse" if reach == "hessian" else reach
    grid = safe.weight_grid(site, value, pair_safe=wishes.pair_safe, ranges=ranges)
    _store(prepared, site.weight, fake_quantize(value, grid))
    return grid


def _store(prepared: Prepared, name: str, value: Array) -> None:
    prepared.weights[name] = value
    graph.stored(prepared.proto, name).CopyFrom(numpy_helper.from_array(value, name))


def _rounded(w: Weight, value: Array, wishes: Wishes) -> tuple[Array, Grid]:
    """The weight on its grid, and the grid."""
    site = w.sites[0]
    ranges, power = wishes.reach(site), None
    if ranges == "hessian" and w.is_crossed:
        diagonal = np.diagonal(w.products(), axis1=-2, axis2=-1)[:, None, :]
        power = w.matrix.weight(np.broadcast_to(diagonal, w.matrix.rows(value).shape))
    elif ranges == "hessian":
        ranges = "mse"
    grid = safe.weight_grid(site, value, pair_safe=wishes.pair_safe, ranges=ranges, power=power)
    if not wishes.keeps_results(site) or not w.is_crossed:
        return fake_quantize(value, grid), grid
    paired = wishes.pair_safe and grid.bits == 8 and safe.kernel_rows(site, value) is not None
    wide = np.broadcast_to(grid.spread(grid.scale, value.shape), value.shape)
    upright = replace(grid, scale=w.matrix.rows(wide)[..., :1], zero_point=np.zeros((), np.int32), axis=None)
    fitted = adaptive_results if wishes.method == "adaround" else nearest_results
    integers = fitted(w.matrix.rows(value), w.products(), upright, paired=paired)
    return dequantize(w.matrix.weight(integers), grid), grid


def _weight(prepared: Prepared, name: str, sites: list[Site], wishes: Wishes) -> Weight | None:
    """The weight with room for what its inputs are; None where it is not fitted to them."""
    found = matrix(sites[0], prepared.weights[name])
    if found is None or not wishes.watches(sites[0]):
        return None
    needed = wishes.keeps_results(sites[0]) or wishes.reach(sites[0]) == "hessian"
    crossed = needed and found.inputs <= WIDEST
    return Weight(name, found, sites, {s.data: Moments(found.inputs, found.groups, crossed=crossed) for s in sites})


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
    scope = Scope(prepared.proto.graph)
    name = site.node.input[2] if len(site.node.input) > 2 else ""
    there = prepared.rewrite.weight(scope, name) if name else np.zeros(1, np.float32)
    if there is None:
        return
    made = (there + change).astype(np.float32)
    if name in {t.name for t in scope.graph.initializer} and len(scope.consumers[name]) == 1:
        graph.stored(prepared.proto, name).CopyFrom(numpy_helper.from_array(made, name))
        return
    del site.node.input[2:]
    site.node.input.append(prepared.store(f"{site.name}/bias", made))
