"""Static quantization: integer weights and activations, with ranges from calibration.

``w8a8`` is uint8 activations by int8 weights per channel, the one pair of types for which ONNX Runtime has fast kernels
on every CPU; ``w4a8`` stores the weights in 4 bits and computes as ``w8a8`` does; ``w8a16`` has uint16 activations,
which compute in float. A ``t`` at the end is one scale for the whole weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnx import NodeProto

from qm.numerics import Grid, Stream, choose_range
from qm.plugin import Memo, QuantizeJob, UsageError
from qm_onnx import calibrate, chain, fold, guard, qdq, rounding, safe, smooth, stem, turn, width
from qm_onnx.graph import Scope
from qm_onnx.model import OnnxModel
from qm_onnx.option import PtqOptions
from qm_onnx.prepare import Prepared, prepare
from qm_onnx.qdq import Draft
from qm_onnx.seen import seen
from qm_onnx.site import Site


def quantize(job: QuantizeJob) -> OnnxModel:
    """The model with the layers of the plan in integers, and what lies between them where that pays.

    Raises:
        UsageError: the samples do not fit the model, or make NaN in it.
        Unsupported: the plan asks for a scheme or layer that static quantization does not offer.
        PluginError: what was written is not what the plan asks for.
    """
    options = job.options if isinstance(job.options, PtqOptions) else PtqOptions()
    asked = chain.kinds(options.operators)
    prepared = prepare(job)
    if not prepared.sites:
        return prepared.model.with_proto(prepared.model.proto)
    if job.data is None:
        raise UsageError("onnx.ptq needs samples to calibrate", hint="Give a few dozen with --data.")
    samples = job.data
    if rework(job, prepared, asked, options):
        # What the memo holds is of tensors as the model has them, and the plan decides what becomes of them here.
        prepared.model, job = prepared.sorted(), replace(job, memo=Memo.forgetful())
    scope = Scope(prepared.proto.graph)
    around = chain.around(scope, prepared.sites, asked)
    watched = observed(scope, prepared.sites, around)
    streams = calibrate.observe(
        prepared.model,
        watched,
        samples,
        method=options.ranges,
        # Another plan may take its ranges from what is seen now.
        counted=len(samples) if job.memo.remembers else calibrate.PICTURED,
        progress=job.progress,
        memo=job.memo,
    )
    draft = _draft(job, prepared, scope, _without_mixed(scope, around, streams, job), streams, options)
    written = qdq.write(draft)
    guard.verify(written, prepared.sites, pair_safe=safe.wants_pair_safe(job.target))
    job.activations.extend(seen(written, draft, streams, watched))
    return prepared.model.with_proto(written)


def rework(job: QuantizeJob, prepared: Prepared, asked: frozenset[str] | None, options: PtqOptions) -> int:
    """Move constants and ranges to where they cost least, before anything is measured; the float function stays.

    How many changes were made.
    """
    assert job.data is not None
    count = fold.fold(prepared, job.notes) if options.fold else 0
    if options.equalize:
        count += smooth.equalize(prepared, job.notes)
    if not options.smooth and not options.balance:
        return count
    integer = {n.name for n in chain.around(Scope(prepared.proto.graph), prepared.sites, asked)}
    seen = smooth.ranges(prepared, job.data, job.progress)
    if options.smooth:
        count += smooth.smooth(prepared, integer, seen, options.smooth, job.notes)
    if options.balance:
        count += smooth.balance(prepared, integer, seen, job.notes)
    return count


def observed(scope: Scope, sites: list[Site], around: list[NodeProto]) -> dict[str, str]:
    """The tensors whose ranges are needed, with the layer or operation that each belongs to."""
    tensors: dict[str, str] = {}
    fused = {n.input[0] for n in around if n.op_type in chain.FUSED and len(scope.consumers[n.input[0]]) == 1}
    for site in sites:
        for name in (site.data, site.node.output[0]):
            tensors.setdefault(name, site.name)
    for node in around:
        for name in [*node.input, *node.output]:
            tensors.setdefault(name, node.name)
    return {t: who for t, who in tensors.items() if t and scope.constant(t) is None and t not in fused}


def _without_mixed(
    scope: Scope, around: list[NodeProto], streams: Mapping[str, Stream], job: QuantizeJob
) -> list[NodeProto]:
    mixed = guard.mixed(around, calibrate.spans(streams), job.notes)
    stopped = guard.downstream(scope, mixed, around)
    return [n for n in around if n.name not in stopped]


def _draft(
    job: QuantizeJob,
    prepared: Prepared,
    scope: Scope,
    around: list[NodeProto],
    streams: Mapping[str, Stream],
    options: PtqOptions,
) -> Draft:
    widths = width.divide(scope, prepared.sites, around)
    padded = stem.pad(prepared, job.notes)
    ranges = _ranges(scope, streams, widths, options)
    grids = _fitted(job, prepared, options, widths.seams | padded)
    return Draft(
        proto=prepared.proto,
        sites=prepared.sites,
        around=around,
        ranges=ranges | {name: ranges[source] for name, source in padded.items()},
        grids=grids,
        widths=widths,
    )


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


def _fitted(job: QuantizeJob, prepared: Prepared, options: PtqOptions, sources: Mapping[str, str]) -> dict[str, Grid]:
    """Decide the integers of weights, and the biases that go with them; ``sources`` are the model's own tensors behind
    those that were put in."""
    assert job.data is not None
    wishes = rounding.Wishes(
        rounding=options.rounding,
        ranges=options.weights,
        biases=options.bias_correction,
        pair_safe=safe.wants_pair_safe(job.target),
    )
    keeping = sum(wishes.keeps_results(s) for s in prepared.sites)
    safe.explain(prepared.sites, prepared.weights, job.target, job.notes)
    if keeping:
        job.notes.say(f"{safe.layers(keeping)} with weights rounded so that results stay (rounding={wishes.method})")
    if keeping > 1 and options.sequential:
        return turn.fit(prepared, job.data, wishes, sources, progress=job.progress)
    return rounding.fit(prepared, job.data, wishes, sources, progress=job.progress, memo=job.memo)
