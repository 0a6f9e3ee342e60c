"""Post-training quantization: a plan of many schemes, written into one .tflite file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from qm.numerics import Comparison
from qm.plugin import (
    Array,
    Layer,
    Notes,
    NotReady,
    Plan,
    PluginError,
    QuantizeJob,
    Scheme,
    Unsupported,
    UsageError,
    fitting,
)
from qm_tf import aeq, calibrate, chain, compact, flat, rounding, scheme, table
from qm_tf.calibrate import Range
from qm_tf.chain import Chain
from qm_tf.layer import Found
from qm_tf.model import LiteModel
from qm_tf.option import INSTEAD, KINDS, PTQ, PtqOptions
from qm_tf.seen import seen

JUDGES = 64
"""How many samples tell which of two engines is better."""


def quantize(job: QuantizeJob) -> LiteModel:
    """The model with its layers as the plan asks.

    Raises:
        UsageError: the model is quantized already, the samples do not fit it, or an engine cannot do what is asked.
        Unsupported: the plan asks for a layer or scheme that there is not.
        PluginError: what was written is not what the plan asks for.
    """
    options = job.options if isinstance(job.options, PtqOptions) else PtqOptions()
    model = checked(job)
    plan = resolved(job.plan, model.layers(), job.notes)
    if not plan.quantized():
        return model.with_content(model.content)
    _say_subgraphs(model, job.notes)
    if options.engine == "aeq":
        return _by_aeq(job, model, plan, options)
    if problem := unable(options):
        if options.engine == "converter":
            raise UsageError(f"engine=converter has no {problem}", hint="Use engine=aeq, or leave that option out.")
        job.notes.say(f"engine=best is ai-edge-quantizer here: TensorFlow's converter has no {problem}")
        return _by_aeq(job, model, plan, options)
    if options.engine == "converter":
        return _by_converter(job, model, plan, options)
    return _better(job, model, plan, options)


def checked(job: QuantizeJob) -> LiteModel:
    """The job's model, once it is one that can be quantized."""
    model = job.model
    if not isinstance(model, LiteModel):
        raise UsageError(f"{model!r} is no LiteRT model", hint="Quantize it with a method of its own framework.")
    done = {name: s for name, s in model.schemes().items() if not s.is_float}
    if done:
        layer, what = next(iter(done.items()))
        raise UsageError(
            f"model {model.name!r} is quantized already: its layer {layer!r} is {what}",
            hint="Quantize the float model that it was made from.",
        )
    return model


def resolved(plan: Plan, layers: tuple[Layer, ...], notes: Notes) -> Plan:
    """The plan with each scheme that a layer's kind has no kernel for replaced by what takes its place; says so."""
    plan.check([layer.name for layer in layers], PTQ, "tf.ptq")
    weights: Counter[Scheme] = Counter()
    for layer in layers:
        weights[plan[layer.name]] += layer.weights
    main = max((s for s in weights if not s.is_float), key=lambda s: weights[s], default=Scheme())
    made: dict[str, Scheme] = {}
    replaced: dict[tuple[str, str, str], list[str]] = {}
    for layer in layers:
        asked = plan[layer.name]
        made[layer.name] = given = asked if asked.is_float else nearest(layer.kind, asked)
        # The core has resolved most plans before: what takes the place of the main scheme is told too.
        wanted = main if given == asked and not asked.is_float and given == _instead(layer.kind, main) else asked
        if given != wanted:
            replaced.setdefault((str(wanted), layer.kind, str(given)), []).append(layer.name)
    for (wanted_text, kind, given_text), names in replaced.items():
        notes.say(f"LiteRT has no kernel for {kind} in {wanted_text}: {given_text} instead for {', '.join(names)}")
    return Plan(made)


def nearest(kind: str, asked: Scheme) -> Scheme:
    """The scheme itself where there is a kernel for it, else what takes its place, float where nothing does."""
    offered = KINDS.get(kind, frozenset())
    return next((Scheme.parse(s) for s in (str(asked), *INSTEAD.get(str(asked), ())) if s in offered), Scheme())


def _instead(kind: str, asked: Scheme) -> Scheme | None:
    given = nearest(kind, asked)
    return given if given != asked else None


def unable(options: PtqOptions) -> str:
    """The option that TensorFlow's converter cannot honour; empty where it can all."""
    if options.ranges not in ("auto", "minmax"):
        return f"ranges={options.ranges}"
    if options.rounding in ("gptq", "adaround"):
        return f"rounding={options.rounding}"
    return f"weights={options.weights}" if options.weights not in ("auto", "minmax") else ""


def _say_subgraphs(model: LiteModel, notes: Notes) -> None:
    if len(model.native.subgraphs) > 1:
        notes.say(
            f"the model has {len(model.native.subgraphs) - 1} graphs inside control flow; what they hold stays in float"
        )


@dataclass(frozen=True)
class Calibrated:
    """A plan with all that is needed to write it."""

    chain: Chain
    ranges: Mapping[int, Range]


def _by_aeq(job: QuantizeJob, model: LiteModel, plan: Plan, options: PtqOptions) -> LiteModel:
    known = _calibrated(job, model, plan, options)
    if options.weights == "auto" and any(s.is_integer and s.weight_bits < 8 for s in plan.schemes()):
        job.notes.say(f"weights of 4 bits have the ranges of least squared error (-o weights={aeq.FEW})")
    bounds = aeq.weight_bounds(model, plan, known.chain, known.ranges, weights=options.weights)
    source, fitted = _rounded(job, model, plan, known, options)
    return model.with_content(written(source, plan, known.chain, known.ranges, bounds=bounds | fitted))


def _rounded(
    job: QuantizeJob, model: LiteModel, plan: Plan, known: Calibrated, options: PtqOptions
) -> tuple[LiteModel, dict[int, Array]]:
    """The model with weights rounded so that results stay, and biases that follow, and how far the weights reach;
    where that is asked for, or pays and there are samples."""
    wishes = fitting.Wishes.of(options, few=aeq.FEW)
    layers = rounding.fitting_layers(model, plan, wishes)
    keeping = sum(wishes.keeps_results(plan[f.name].weight_bits) for f in layers)
    if job.data is None or not len(job.data):
        for name, value in (("rounding", options.rounding), ("weights", options.weights)):
            if value in ("gptq", "adaround", "hessian"):
                raise UsageError(f"{name}={value} needs samples", hint="Give a few dozen with --data.")
        if keeping:
            job.notes.say("weights of 4 bits are rounded to the nearest: with samples (--data) much less would be lost")
        return model, {}
    if not layers:
        return model, {}
    if keeping:
        job.notes.say(f"{keeping} layers have weights rounded so that their results stay (-o rounding={wishes.method})")

    def bound(f: Found, power: Array | None) -> Array:
        return aeq.bound(model, f, plan[f.name], known.chain, known.ranges, options.weights, power)

    return rounding.rounded(model, plan, layers, bound, job.data, wishes, progress=job.progress)


def _calibrated(job: QuantizeJob, model: LiteModel, plan: Plan, options: PtqOptions) -> Calibrated:
    drawn = chain.draw(model.graph, model.found, plan, border=8 if options.io == "int8" else 0)
    if not drawn.tensors:
        return Calibrated(drawn, {})
    if job.data is None:
        what = "io=int8" if not any(s.is_static for s in plan.schemes()) else "a scheme with static activations"
        raise UsageError(f"tf.ptq needs samples to calibrate for {what}", hint="Give a few dozen with --data.")
    streams = calibrate.observe(
        model,
        drawn.tensors,
        job.data,
        method=calibrate.method_for(options.ranges),
        progress=job.progress,
        memo=job.memo,
    )
    ranges = calibrate.ranges(model, drawn, streams, method=options.ranges, percentile=options.percentile)
    job.activations.extend(seen(model, drawn, streams, ranges))
    return Calibrated(drawn, ranges)


def written(
    model: LiteModel,
    plan: Plan,
    drawn: Chain,
    ranges: Mapping[int, Range],
    *,
    bounds: Mapping[int, Array] | None = None,
) -> bytes:
    """The finished file: integers by ai-edge-quantizer, made small, and checked against the plan.

    ``bounds`` are the largest magnitudes that the integers of the weights cover, by tensor.
    """
    if bounds is None:
        bounds = aeq.weight_bounds(model, plan, drawn, ranges)
    made = aeq.restored(aeq.write(model, plan, drawn, ranges, bounds), model)
    table.write(made, plan)
    content = flat.serialize(compact.compact(made))
    verify(content, plan)
    return content


def verify(content: bytes, plan: Plan, *, hint: str = "") -> None:
    """Check what each layer is in.

    Raises:
        PluginError: a layer is not in what the plan asks for.
    """
    there = scheme.schemes(flat.parse(content))
    for layer, asked in plan.layers.items():
        got = there.get(layer)
        if got is None:
            raise PluginError("tf", f"layer {layer!r} is not in the quantized model")
        if (got.weight_bits, got.activations, got.activation_bits) != (
            asked.weight_bits,
            asked.activations,
            asked.activation_bits,
        ):
            raise PluginError("tf", f"layer {layer!r} was to be {asked} and is {got} in the quantized model", hint=hint)


def _by_converter(job: QuantizeJob, model: LiteModel, plan: Plan, options: PtqOptions) -> LiteModel:
    from qm_tf import converter

    content = converter.quantize(model, plan, job.data, io=options.io, progress=job.progress, notes=job.notes)
    content = compact.compacted(content)
    verify(content, plan, hint="Use engine=aeq, which quantizes layers of any size.")
    return model.with_content(content)


def _better(job: QuantizeJob, model: LiteModel, plan: Plan, options: PtqOptions) -> LiteModel:
    """The better of both engines on the samples at hand."""
    ours = _by_aeq(job, model, plan, options)
    try:
        theirs = _by_converter(job, model, plan, options)
    except (NotReady, PluginError, Unsupported, UsageError) as e:
        job.notes.say(f"engine=best is ai-edge-quantizer here: {e.message}")
        return ours
    if job.data is None:
        job.notes.say("engine=best is ai-edge-quantizer here: without samples nothing can be measured")
        return ours
    figures = [_sqnr_db(job, model, made) for made in (ours, theirs)]
    winner = "ai-edge-quantizer" if figures[0] >= figures[1] else "TensorFlow's converter"
    job.notes.say(
        f"engine=best is {winner}: ai-edge-quantizer {figures[0]:.1f} dB, TensorFlow's converter {figures[1]:.1f} dB "
        f"on {min(JUDGES, len(job.data))} samples"
    )
    return ours if figures[0] >= figures[1] else theirs


def _sqnr_db(job: QuantizeJob, model: LiteModel, made: LiteModel) -> float:
    assert job.data is not None
    comparison = Comparison()
    tracked = job.progress.track(islice(job.data, JUDGES), "comparing engines", total=min(JUDGES, len(job.data)))
    for batch in tracked:
        comparison.update(model.run(batch), made.run(batch))
    return comparison.sqnr_db
