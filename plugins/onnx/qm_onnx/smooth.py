"""Range moved between channels before calibration, the float function kept up to rounding.

``equalize`` makes the weights of neighbouring layers alike (cross-layer equalization, without data); ``smooth`` moves
range from a layer's inputs into its weights (SmoothQuant); ``balance`` brings the channels of a layer's results to one
range where operations in float read them. What a neighbour cannot take on is done by a Mul or Add in float.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qm.numerics import affine_bounds, centering, equalizing_scales, smoothing_scales
from qm.plugin import Dataset, Granularity, Notes, Progress
from qm_onnx import calibrate, channel, graph
from qm_onnx.graph import Scope
from qm_onnx.look import watching
from qm_onnx.prepare import Prepared
from qm_onnx.safe import layers
from qm_onnx.site import Site

Floats = NDArray[np.float64]
Ranges = dict[str, tuple[Floats, Floats]]

SWEEPS = 40
"""Rounds of equalization at most: a layer has neighbours on both sides."""

_SETTLED = 1e-3
_SPREAD = 1.5
"""Scales of which the largest is less than this times the least are not worth an operation of their own."""

NORMS = ("LayerNormalization",)


def equalize(prepared: Prepared, notes: Notes) -> int:
    """Make the weights of neighbours alike, channel by channel, until they settle; how many pairs there are."""
    pairs = _pairs(prepared)
    for _ in range(SWEEPS):
        if all(_equalize(prepared, *pair) for pair in pairs):
            break
    if pairs:
        notes.say(f"weights of {len(pairs)} pairs of layers equalized, channel by channel")
    return len(pairs)


def ranges(prepared: Prepared, data: Dataset, progress: Progress) -> Ranges:
    """The least and greatest value of each channel of the layers' data and results, over the samples."""
    whose = {name: s for s in prepared.sites for name in (s.data, s.node.output[0])}
    model = prepared.sorted()
    session = watching(model, whose)
    made: Ranges = {}
    for _, name, value in calibrate.values(session, list(whose), data, progress=progress, doing="watching channels"):
        rest = tuple(i for i in range(value.ndim) if i != channel.axis(whose[name]) % value.ndim)
        low, high = (v.astype(np.float64) for v in (value.min(axis=rest), value.max(axis=rest)))
        if name in made:
            low, high = np.minimum(made[name][0], low), np.maximum(made[name][1], high)
        made[name] = low, high
    return made


def smooth(prepared: Prepared, integer: set[str], seen: Ranges, strength: float, notes: Notes) -> int:
    """Divide each layer's inputs by scales of their own, and multiply its weights with them.

    Whoever makes the inputs takes the division on: a layer, a Relu behind one, a layer norm, and a Mul of its own
    behind another operation in float. ``integer`` names the operations that work on integers beside the layers.
    How many layers have smoother inputs.
    """
    scope = Scope(prepared.proto.graph)
    count = 0
    for site in prepared.sites:
        if site.data in seen and channel.can_scale(prepared, site):
            low, high = seen[site.data]
            reach = channel.input_reach(prepared, site)
            inputs = np.maximum(np.abs(low), np.abs(high))
            if reach.size == inputs.size:
                scales = smoothing_scales(inputs, reach, strength=_strength(prepared, site, strength))
                count += _divide(prepared, scope, site, scales, integer)
    if count:
        notes.say(f"inputs of {layers(count)} smoothed")
    return count


def balance(prepared: Prepared, integer: set[str], seen: Ranges, notes: Notes) -> int:
    """Bring each channel of results that operations in float read to -1..1, and back behind the rounding; how many."""
    scope = Scope(prepared.proto.graph)
    working = integer | {s.node.name for s in prepared.sites}
    count = 0
    for site in prepared.sites:
        result = site.node.output[0]
        readers = scope.consumers.get(result, [])
        given = any(o.name == result for o in prepared.proto.graph.output)
        if not readers or given or any(r.name in working for r in readers) or not _rounds(prepared, site):
            continue
        half, middle = centering(*seen[result])
        inner = prepared.rewrite.fresh(f"{result}/balanced")
        site.node.output[0] = inner
        channel.scale_outputs(prepared, site, 1 / half, -middle / half)
        wider = channel.insert(prepared, "Mul", inner, half, site)
        channel.insert(prepared, "Add", wider, middle, site, output=result)
        count += 1
    if count:
        notes.say(f"results of {layers(count)} balanced, channel by channel")
    return count


def _rounds(prepared: Prepared, site: Site) -> bool:
    """Whether the layer's results are rounded though operations in float read them: those of a convolution are."""
    per_channel = site.scheme.granularity is Granularity.CHANNEL
    return site.node.op_type == "Conv" and site.is_integer and per_channel and channel.can_scale(prepared, site)


def _strength(prepared: Prepared, site: Site, strength: float) -> float:
    """A depthwise convolution with a scale for each channel can take all of the range of its inputs."""
    per_channel = site.scheme.granularity is Granularity.CHANNEL
    return 1.0 if per_channel and channel.is_depthwise(prepared, site) else strength


def _divide(prepared: Prepared, scope: Scope, site: Site, scales: Floats, integer: set[str]) -> bool:
    """Let the maker of the layer's data divide it; whether it could."""
    maker = scope.producer(site.data)
    if maker is None or scales.max() < _SPREAD * scales.min():
        return False
    only = channel.alone(scope, site.data) is not None
    first = _layer_behind(prepared, scope, maker, homogeneous=("Relu",)) if only else None
    if first is not None and channel.output_reach(prepared, first).size == scales.size:
        channel.scale_outputs(prepared, first, 1 / scales)
    elif only and maker.op_type in NORMS and _divide_norm(prepared, maker, scales):
        pass
    elif _is_float(prepared, scope, maker, integer):
        site.node.input[0] = channel.insert(prepared, "Mul", site.data, 1 / scales, site)
    else:
        return False
    channel.scale_inputs(prepared, site, scales)
    return True


def _layer_behind(prepared: Prepared, scope: Scope, maker: NodeProto, homogeneous: tuple[str, ...]) -> Site | None:
    """The layer that makes a tensor, itself or through an operation that scales with its input and alone reads it."""
    if maker.op_type in homogeneous:
        behind = scope.producer(maker.input[0])
        if behind is None or channel.alone(scope, maker.input[0]) is None:
            return None
        maker = behind
    found = next((s for s in prepared.sites if s.node.name == maker.name), None)
    return found if found is not None and channel.can_scale(prepared, found) else None


def _divide_norm(prepared: Prepared, norm: NodeProto, scales: Floats) -> bool:
    """Put the division into the scale and bias of a layer norm over the last axis."""
    values = [channel.constant(prepared, name) for name in norm.input[1:]]
    if graph.integer(norm, "axis", -1) != -1 or any(v is None or v.shape != scales.shape for v in values):
        return False
    for i, value in enumerate(values, start=1):
        assert value is not None
        norm.input[i] = prepared.store(f"{norm.input[i]}/smooth", (value / scales).astype(np.float32))
    return True


def _is_float(prepared: Prepared, scope: Scope, maker: NodeProto, integer: set[str]) -> bool:
    """Whether a tensor is made in float, so that another operation in float costs little."""
    return maker.name not in integer | {s.node.name for s in prepared.sites}


def _pairs(prepared: Prepared) -> list[tuple[Site, NodeProto | None, Site]]:
    """Layers that alone read what another makes, with the Clip between them if there is one."""
    scope = Scope(prepared.proto.graph)
    made = []
    for second in prepared.sites:
        maker = scope.producer(second.data)
        if maker is None or channel.alone(scope, second.data) is None or not channel.can_scale(prepared, second):
            continue
        first = _layer_behind(prepared, scope, maker, homogeneous=("Relu", "Clip"))
        if (
            first is not None
            and channel.output_reach(prepared, first).size == channel.input_reach(prepared, second).size
        ):
            made.append((first, maker if maker.op_type == "Clip" else None, second))
    return made


def _equalize(prepared: Prepared, first: Site, clip: NodeProto | None, second: Site) -> bool:
    """One round for one pair; whether it had settled."""
    scales = equalizing_scales(channel.output_reach(prepared, first), channel.input_reach(prepared, second))
    if clip is not None:
        scales = _within(prepared, first, clip, scales)
    if np.abs(np.log(scales)).max(initial=0) < _SETTLED:
        return True
    channel.scale_outputs(prepared, first, 1 / scales)
    channel.scale_inputs(prepared, second, scales)
    return False


def _within(prepared: Prepared, first: Site, clip: NodeProto, scales: Floats) -> Floats:
    """Scales for channels that can never reach the limits of the Clip, whatever the input; 1 for the others.

    ``clip(x) / s`` is ``clip(x / s)`` only where no limit but 0 is met, so a ReLU6 forbids most.
    """
    limits = [channel.constant(prepared, name) if name else None for name in [*clip.input[1:], "", ""][:2]]
    low, high = (d if v is None else float(v) for v, d in zip(limits, (-np.inf, np.inf), strict=True))
    span = _interval(prepared, first)
    if span is None:
        return np.ones_like(scales)
    flat = channel.rows(prepared, first)
    least, most = affine_bounds(flat.reshape(flat.shape[0] * flat.shape[1], -1), channel.bias(prepared, first), *span)
    safe = (most <= high) & ((least >= low) | (low == 0))
    smallest = np.where(most > 0, most / high, 0.0)
    if low < 0:
        smallest = np.maximum(smallest, np.where(least < 0, least / low, 0.0))
    return np.where(safe, np.maximum(scales, smallest), 1.0)


def _interval(prepared: Prepared, site: Site) -> tuple[float, float] | None:
    """The interval, with 0 for padding, in which the layer's data lies for every input: of a Clip before it."""
    maker = Scope(prepared.proto.graph).producer(site.data)
    if maker is None or maker.op_type != "Clip" or len(maker.input) < 3:
        return None
    values = [channel.constant(prepared, name) for name in maker.input[1:3]]
    if any(v is None for v in values):
        return None
    low, high = (float(v) for v in values if v is not None)
    return min(low, 0.0), max(high, 0.0)
