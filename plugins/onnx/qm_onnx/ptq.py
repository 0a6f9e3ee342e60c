"""Static quantization: integer weights and activations, with ranges from calibration.

``w8a8`` is uint8 activations by int8 weights per channel, the one pair of types for which ONNX Runtime has fast kernels on
every CPU; ``w8a16`` has uint16 activations, which compute in float. A ``t`` at the end is one scale for the whole weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, external_data_helper, numpy_helper
from qm_onnx import calibrate, chain, guard, qdq, safe, width
from qm_onnx.graph import Scope, integer
from qm_onnx.layer import Found
from qm_onnx.model import OnnxModel, has_external
from qm_onnx.normalize import raise_opset
from qm_onnx.option import PtqOptions
from qm_onnx.qdq import Draft
from qm_onnx.rewrite import Rewrite, weight
from qm_onnx.safe import Site

from qm.numerics import Grid, Stream, choose_range
from qm.plugin import Array, Plan, QuantizeJob, Scheme, Unsupported, UsageError

LARGEST = 2_000_000_000
"""Bytes of weights that ONNX Runtime's writer can take: it holds the model in one piece."""


def quantize(job: QuantizeJob) -> OnnxModel:
    """The model with the layers of the plan in integers, and what lies between them where that pays.

    Raises:
        UsageError: the samples do not fit the model, or make NaN in it.
        Unsupported: the plan asks for a scheme or layer that static quantization does not offer.
        PluginError: what was written is not what the plan asks for.
    """
    model: OnnxModel = job.model
    options = job.options if isinstance(job.options, PtqOptions) else PtqOptions()
    asked = chain.kinds(options.operators)
    if not job.plan.quantized():
        return model.with_proto(model.native)
    if job.data is None:
        raise UsageError("onnx.ptq needs samples to calibrate", hint="Give a few dozen with --data.")
    proto = copied(model, job.plan)
    sites, weights = sites_of(proto, job.plan)
    scope = Scope(proto.graph)
    around = chain.around(scope, sites, asked)
    streams = calibrate.observe(
        model, observed(scope, sites, around), job.data, method=options.ranges, progress=job.progress
    )
    around = _without_mixed(scope, around, streams, job)
    widths = width.divide(scope, sites, around)
    draft = Draft(
        proto=proto,
        sites=sites,
        around=around,
        ranges=_ranges(scope, streams, widths, options),
        grids=_grids(sites, weights, job),
        widths=widths,
    )
    written = qdq.write(draft)
    guard.verify(written, sites, pair_safe=safe.wants_pair_safe(job.target))
    return model.with_proto(written)


def copied(model: OnnxModel, plan: Plan) -> ModelProto:
    """A copy with all weights at hand, at an opset that has the types the plan needs."""
    if model.nbytes() > LARGEST:
        raise Unsupported(
            f"the model has {model.nbytes():,} bytes, and static quantization takes up to {LARGEST:,}",
            hint="Use onnx.weights, which goes through the weights one by one.",
        )
    proto = ModelProto()
    proto.CopyFrom(model.native)
    if has_external(proto) and model.source is not None:
        external_data_helper.load_external_data_for_model(proto, str(model.source.parent))
    if any(s.activation_bits == 16 for s in plan.schemes()):
        try:
            proto = raise_opset(proto, 21)
        except ValueError as e:
            raise Unsupported(
                f"16-bit activations need opset 21, to which the model cannot be converted: {e}", hint="Use w8a8."
            ) from e
    return _constants_stored(proto)


def _constants_stored(proto: ModelProto) -> ModelProto:
    """The model with its Constant nodes as initializers, where ONNX Runtime's writer looks for weights and biases."""
    kept: list[NodeProto] = []
    for node in proto.graph.node:
        tensor = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if tensor is None:
            kept.append(NodeProto.FromString(node.SerializeToString()))
        else:
            stored = TensorProto.FromString(tensor.SerializeToString())
            stored.name = node.output[0]
            proto.graph.initializer.append(stored)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return proto


def sites_of(proto: ModelProto, plan: Plan) -> tuple[list[Site], dict[str, Array]]:
    """The layers of the plan, and their weights by name, each read by layers of one kind and scheme alone."""
    rewrite = Rewrite(proto)
    del proto.graph.node[:]
    proto.CopyFrom(rewrite.proto)
    found = guard.planned(proto, plan)
    weights: dict[str, Array] = {}
    owned: dict[tuple[str, str, int, Scheme], str] = {}
    sites: list[Site] = []
    readers = {f.node.name for f, _ in found}
    for f, scheme in found:
        value = weight(f.scope, f.node.input[f.position])
        if f.kind == "Gemm" and value is not None:
            value = _unscaled(proto, f, value, rewrite)
        if value is None:
            raise Unsupported(
                f"the weights of layer {f.name!r} are not float32", hint=f"Leave {f.name!r} in float with a rule."
            )
        key = (f.node.input[f.position], f.kind, integer(f.node, "transB", 0) + 2 * f.position, scheme)
        if key not in owned:
            owned[key] = _own(proto, f, value, readers, set(owned.values()), rewrite)
        f.node.input[f.position] = owned[key]
        weights[owned[key]] = value
        sites.append(Site(name=f.name, node=f.node, position=f.position, scheme=scheme))
    return sites, weights


def _unscaled(proto: ModelProto, f: Found, value: Array, rewrite: Rewrite) -> Array:
    """The weights of a Gemm with alpha in them, and beta in the bias: ONNX Runtime's writer loses beta."""
    factors = {a.name: a for a in f.node.attribute if a.name in ("alpha", "beta") and a.f != 1}
    if "beta" in factors and len(f.node.input) > 2 and f.node.input[2]:
        bias = weight(f.scope, f.node.input[2])
        if bias is None:
            raise Unsupported(
                f"the bias of Gemm {f.name!r} is computed, and scaled by beta",
                hint=f"Leave {f.name!r} in float with a rule.",
            )
        f.node.input[2] = _stored(
            proto, rewrite.fresh(f"{f.node.input[2]}/scaled"), bias * np.float32(factors["beta"].f)
        )
    if "alpha" in factors:
        value = value * np.float32(factors["alpha"].f)
        f.node.input[f.position] = _stored(proto, rewrite.fresh(f"{f.node.input[f.position]}/scaled"), value)
    for attribute in factors.values():
        attribute.f = 1
    return value


def _stored(proto: ModelProto, name: str, value: Array) -> str:
    proto.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _own(proto: ModelProto, f: Found, value: Array, readers: set[str], taken: set[str], rewrite: Rewrite) -> str:
    """The name of an initializer that holds the weight and that nothing but the layers of the plan reads."""
    name = f.node.input[f.position]
    stored = any(t.name == name for t in proto.graph.initializer)
    others = [n.name for n in f.scope.consumers.get(name, []) if n.name not in readers]
    if stored and not others and name not in taken:
        return str(name)
    return _stored(proto, rewrite.fresh(f"{name}/own"), value)


def observed(scope: Scope, sites: list[Site], around: list[NodeProto]) -> dict[str, str]:
    """The tensors whose ranges are needed, with the layer or operation that each belongs to."""
    tensors: dict[str, str] = {}
    fused = {n.input[0] for n in around if n.op_type in chain.FUSED and len(scope.consumers[n.input[0]]) == 1}
    for site in sites:
        for name in (site.data, site.node.output[0]):
            tensors.setdefault(name, site.name)
    for node in around:
        for name in [*chain.data_inputs(node), *node.output]:
            tensors.setdefault(name, node.name)
    return {t: who for t, who in tensors.items() if t and scope.constant(t) is None and t not in fused}


def _without_mixed(
    scope: Scope, around: list[NodeProto], streams: Mapping[str, Stream], job: QuantizeJob
) -> list[NodeProto]:
    mixed = guard.mixed(around, calibrate.spans(streams), job.notes)
    stopped = guard.downstream(scope, mixed, around)
    return [n for n in around if n.name not in stopped]


def _ranges(
    scope: Scope, streams: Mapping[str, Stream], widths: width.Widths, options: PtqOptions
) -> dict[str, tuple[float, float]]:
    made: dict[str, tuple[float, float]] = {}
    for name, stream in streams.items():
        bits = 16 if name in widths.wide else 8
        made[name] = choose_range(stream, options.ranges, bits=bits, percentile=options.percentile)
    for seam, source in widths.seams.items():
        made[seam] = choose_range(streams[source], options.ranges, bits=16, percentile=options.percentile)
    for node in scope.graph.node:
        # An activation that vanishes into the output range of the layer before: both have that range.
        if node.op_type in chain.FUSED and node.input[0] not in made and node.output[0] in made:
            made[node.input[0]] = made[node.output[0]]
    return made


def _grids(sites: list[Site], weights: Mapping[str, Array], job: QuantizeJob) -> dict[str, Grid]:
    pair_safe = safe.wants_pair_safe(job.target)
    safe.explain(sites, weights, job.target, job.notes)
    tracked = job.progress.track(sites, "scaling weights", total=len(sites))
    return {s.weight: safe.weight_grid(s, weights[s.weight], pair_safe=pair_safe) for s in tracked}
