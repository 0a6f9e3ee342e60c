"""Weights rounded so that the results of their layers stay, and biases that make good what is left on average.

The integers are decided here: the weights that the writer is handed lie on their grids, so that its own rounding
changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from onnx import numpy_helper

from qm.numerics import DAMPING, Grid, Moments, adaptive_results, dequantize, fake_quantize, nearest_results
from qm.plugin import Array, Dataset, Memo, Progress
from qm_onnx import calibrate, graph, safe
from qm_onnx.graph import Scope
from qm_onnx.look import watching
from qm_onnx.model import OnnxModel
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


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A weight of the model as a matrix, and the layers that share it.

    ``sources`` are the model's own tensors that these read, ``crossed`` says that the products of inputs are needed,
    ``damping`` is that of ``qm.numerics.nearest_results``.
    """

    name: str
    value: Array
    matrix: Matrix
    sites: list[Site]
    sources: tuple[str, ...]
    crossed: bool
    damping: float = DAMPING

    @property
    def size(self) -> int:
        """How many products of inputs there are."""
        return len(set(self.sources)) * self.matrix.groups * self.matrix.inputs**2 if self.crossed else 0

    def looks(self) -> dict[str, Look]:
        """What is to be known of each source."""
        return {s: Look(s, self.matrix.geometry, self.crossed) for s in self.sources}

    def question(self, wishes: Wishes) -> tuple[Hashable, ...]:
        """All that the integers depend on, but for the samples."""
        digest = hashlib.sha256(np.ascontiguousarray(self.value).data).digest()
        return "fitted", digest, self.matrix.geometry, self.sites[0].scheme, wishes, self.crossed, self.sources


class Look(NamedTuple):
    """What the inputs of a layer are in the float model: the tensor, how the layer reads it, what is wanted."""

    source: str
    geometry: tuple[Hashable, ...]
    crossed: bool


@dataclass(frozen=True)
class Fitted:
    """A weight on its grid, and by how much the biases of its layers change; no biases where none do."""

    weight: Array
    grid: Grid
    biases: tuple[Array, ...]


def fit(
    prepared: Prepared,
    data: Dataset,
    wishes: Wishes,
    sources: Mapping[str, str],
    *,
    progress: Progress,
    memo: Memo,
) -> dict[str, Grid]:
    """Put weights on their grids and change biases, in the prepared model; the grids by weight.

    The weight of a layer that is no product of one matrix with its data is rounded to the nearest, and its bias stays.
    ``sources`` are the tensors of the model behind those that were put in before layers; ``memo`` keeps what was seen.
    """
    weights, grids = divided(prepared, wishes, sources)
    asked = {w.question(wishes): w for w in weights}

    def look(questions: Sequence[tuple[Hashable, ...]]) -> dict[tuple[Hashable, ...], Fitted]:
        made = _fitted(prepared.model, [asked[q] for q in questions], data, wishes, progress, memo)
        return dict(zip(questions, made, strict=True))

    fitted = memo.many(asked, look)
    for w in weights:
        found = fitted[w.question(wishes)]
        store(prepared, w.name, found.weight)
        grids[w.name] = found.grid
        for site, change in zip(w.sites, found.biases, strict=False):
            add_bias(prepared, site, change)
    return grids


def divided(prepared: Prepared, wishes: Wishes, sources: Mapping[str, str]) -> tuple[list[Weight], dict[str, Grid]]:
    """The weights that are fitted to their inputs, in the order of their layers, and the grids of the others.

    These are put on their grids.
    """
    sites: dict[str, list[Site]] = {}
    for site in prepared.sites:
        sites.setdefault(site.weight, []).append(site)
    weights = {name: w for name, readers in sites.items() if (w := _weight(prepared, name, readers, wishes, sources))}
    grids = {name: _plain(prepared, readers[0], wishes) for name, readers in sites.items() if name not in weights}
    return list(weights.values()), grids


def _fitted(
    model: OnnxModel, weights: Sequence[Weight], data: Dataset, wishes: Wishes, progress: Progress, memo: Memo
) -> Iterator[Fitted]:
    for part in portions(weights):
        matrices = {look: w.matrix for w in part for look in w.looks().values()}
        seen = memo.many(matrices, partial(_watch, model, matrices, data, progress))
        for w in progress.track(part, "rounding weights", total=len(part)):
            yield rounded(w, {source: seen[look] for source, look in w.looks().items()}, wishes)


def _plain(prepared: Prepared, site: Site, wishes: Wishes) -> Grid:
    """Round a weight to the nearest points of its grid, by nothing but its values; the grid.

    The writer could do so too, but knows neither narrow grids nor clipped ones.
    """
    reach = wishes.reach(site)
    value = prepared.weights[site.weight]
    ranges = "mse" if reach == "hessian" else reach
    grid = safe.weight_grid(site, value, pair_safe=wishes.pair_safe, ranges=ranges)
    store(prepared, site.weight, fake_quantize(value, grid))
    return grid


def store(prepared: Prepared, name: str, value: Array) -> None:
    """Put another weight in the place of one."""
    prepared.weights[name] = value
    graph.stored(prepared.proto, name).CopyFrom(numpy_helper.from_array(value, name))


def rounded(w: Weight, moments: Mapping[str, Moments], wishes: Wishes) -> Fitted:
    """The weight on its grid, and what its layers lose by that on average, to be made good by their biases."""
    grid = _grid(w, moments, wishes)
    made = fake_quantize(w.value, grid)
    if w.crossed and wishes.keeps_results(w.sites[0]):
        made = dequantize(w.matrix.weight(_integers(w, moments, grid, wishes)), grid)
    if not wishes.biases:
        return Fitted(made, grid, ())
    lost = w.matrix.rows(w.value.astype(np.float64) - made)
    means = [moments[source].means()[0] for source in w.sources]
    return Fitted(made, grid, tuple((lost @ mean[..., None]).reshape(-1) for mean in means))


def _grid(w: Weight, moments: Mapping[str, Moments], wishes: Wishes) -> Grid:
    ranges, power = wishes.reach(w.sites[0]), None
    if ranges == "hessian" and w.crossed:
        diagonal = np.diagonal(_products(moments), axis1=-2, axis2=-1)[:, None, :]
        power = w.matrix.weight(np.broadcast_to(diagonal, w.matrix.rows(w.value).shape))
    elif ranges == "hessian":
        ranges = "mse"
    return safe.weight_grid(w.sites[0], w.value, pair_safe=wishes.pair_safe, ranges=ranges, power=power)


def _integers(w: Weight, moments: Mapping[str, Moments], grid: Grid, wishes: Wishes) -> Array:
    """Rows of integers with which the results of the layers stay."""
    paired = wishes.pair_safe and grid.bits == 8 and safe.kernel_rows(w.sites[0], w.value) is not None
    wide = np.broadcast_to(grid.spread(grid.scale, w.value.shape), w.value.shape)
    upright = replace(grid, scale=w.matrix.rows(wide)[..., :1], zero_point=np.zeros((), np.int32), axis=None)
    rows, products = w.matrix.rows(w.value), _products(moments)
    if wishes.method == "adaround":
        return adaptive_results(rows, products, upright, paired=paired)
    return nearest_results(rows, products, upright, paired=paired, damping=w.damping)


def _products(moments: Mapping[str, Moments]) -> Array:
    """The means of the products of each two inputs ``(groups, in, in)``, over all layers."""
    made: Array = np.mean([m.means()[1] for m in moments.values()], axis=0)
    return made


def _weight(
    prepared: Prepared, name: str, sites: list[Site], wishes: Wishes, sources: Mapping[str, str]
) -> Weight | None:
    """The weight, and what has to be known to round it; None where it is not fitted to its inputs."""
    value = prepared.weights[name]
    found = matrix(sites[0], value)
    if found is None or not wishes.watches(sites[0]):
        return None
    needed = wishes.keeps_results(sites[0]) or wishes.reach(sites[0]) == "hessian"
    return Weight(
        name=name,
        value=value,
        matrix=found,
        sites=sites,
        sources=tuple(sources.get(s.data, s.data) for s in sites),
        crossed=needed and found.inputs <= WIDEST,
    )


def portions(weights: Sequence[Weight]) -> Iterator[list[Weight]]:
    """The weights in parts whose products fit in memory together."""
    part: list[Weight] = []
    taken = 0
    for w in weights:
        if part and taken + w.size > _MEMORY:
            yield part
            part, taken = [], 0
        part.append(w)
        taken += w.size
    if part:
        yield part


def _watch(
    model: OnnxModel, matrices: Mapping[Look, Matrix], data: Dataset, progress: Progress, looks: Sequence[Look]
) -> dict[Look, Moments]:
    """Take in what the inputs of the layers are in the float model."""
    made = {k: Moments(matrices[k].inputs, matrices[k].groups, crossed=k.crossed) for k in looks}
    readers: dict[str, list[Look]] = {}
    for k in looks:
        readers.setdefault(k.source, []).append(k)
    session = watching(model, readers)
    seen = calibrate.values(session, list(readers), data, progress=progress, doing="watching inputs", most=SAMPLES)
    for number, name, value in seen:
        for k in readers[name]:
            made[k].update(matrices[k].data(value, number))
    return made


def add_bias(prepared: Prepared, site: Site, change: Array) -> None:
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
