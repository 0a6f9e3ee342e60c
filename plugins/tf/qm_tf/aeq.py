"""Integers written by ai-edge-quantizer, with ranges that are given, for each operation by a rule of its own.

ai-edge-quantizer picks an operation's rule by a search for a regular expression in the names of its results, each with
a semicolon after it; the last rule that is found holds, and one that it does not support is passed over in silence.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_quantizer import qtyping, quantizer

from qm.plugin import F16, Activations, Array, Plan, PluginError, Scheme, unique
from qm_tf import flat, runtime, weight
from qm_tf.calibrate import Range
from qm_tf.chain import BLIND, Chain
from qm_tf.graph import Graph
from qm_tf.layer import Found
from qm_tf.model import LiteModel

NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
"""What ai-edge-quantizer calls kinds of operations, where it does not say what TensorFlow Lite does."""

STAND_INS = {
    "ABS": "RELU",
    "BATCH_TO_SPACE_ND": "STRIDED_SLICE",
    "DEPTH_TO_SPACE": "SPACE_TO_DEPTH",
    "ELU": "RELU",
    "EXPAND_DIMS": "RESHAPE",
    "L2_NORMALIZATION": "TANH",
    "LEAKY_RELU": "RELU",
    "MINIMUM": "MAXIMUM",
    "PRELU": "MUL",
    "REDUCE_MAX": "REDUCE_MIN",
    "RELU6": "RELU",
    "SPACE_TO_BATCH_ND": "STRIDED_SLICE",
    "SQUEEZE": "RESHAPE",
    "TILE": "RESHAPE",
}
"""Operations that LiteRT has integer kernels for and ai-edge-quantizer does not know, and those that it does know and
whose scales follow the same rule: it is shown these in their place."""

CODES = {kind: code for code, kind in flat.OPERATORS.items()}

FEW = "mse"
"""How far weights of few bits reach where nothing is said: ResNet-8 keeps 86.2 % so, and 85.7 % with hessian."""

_LONGEST_SCOPE = 10_000


@dataclass(frozen=True)
class Rule:
    """What one operation gets; ``scope`` is the text that ai-edge-quantizer knows it by."""

    kind: str
    scope: str
    scheme: Scheme


def rules(model: LiteModel, plan: Plan, chain: Chain) -> list[Rule]:
    """One a layer, operation in integers, and border in integers."""
    graph = model.graph
    layers = {f.op.number: plan[f.name] for f in model.found if f.kind != "GATHER"}
    made: list[Rule] = []
    for op in graph.ops:
        given = layers.get(op.number)
        if given is None and op.number in chain.widths:
            given = Scheme.parse(f"w8a{chain.widths[op.number]}")
        if given is not None and not given.is_float:
            kind = STAND_INS.get(op.kind, NAMES.get(op.kind, op.kind))
            made.append(Rule(kind, scope(graph, op.outputs), given))
    if chain.border:
        both = Scheme.parse(f"w8a{chain.border}")
        made.append(Rule("INPUT", scope(graph, graph.inputs), both))
        made.append(Rule("OUTPUT", scope(graph, graph.outputs), both))
    return made


def scope(graph: Graph, tensors: tuple[int, ...]) -> str:
    """The text that ai-edge-quantizer searches."""
    return "".join(graph.name(t) + ";" for t in tensors if t >= 0)[:_LONGEST_SCOPE]


def write(
    model: LiteModel, plan: Plan, chain: Chain, ranges: Mapping[int, Range], bounds: Mapping[int, Array]
) -> bytes:
    """The model with layers, and the operations of the chain, in integers; ``bounds`` as of ``weight_bounds``.

    Raises:
        PluginError: ai-edge-quantizer refuses.
    """
    graph = model.graph
    statistics = {graph.name(t): _statistics(np.float32(low), np.float32(high)) for t, (low, high) in ranges.items()}
    for t, most in bounds.items():
        statistics[graph.name(t)] = {"min": -most, "max": most}
    asked = rules(model, plan, chain)
    if not asked:
        return model.content
    try:
        with runtime.quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            maker = _Maker(prepared(model))
            for rule in asked:
                _add(maker, rule)
            made = maker.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    except (KeyError, RuntimeError, ValueError) as e:
        raise PluginError("tf", f"ai-edge-quantizer refuses the model: {' '.join(str(e).split())[:300]}") from e
    return bytes(made.quantized_model or b"")


class _Maker(quantizer.Quantizer):  # type: ignore[misc]
    def _ensure_model_qsv_sufficient(self, calibration_result: object) -> None:
        """Not checked: the check opens the model, which does not run with stand-ins in it."""


def _statistics(low: Any, high: Any) -> dict[str, Array]:
    return {"min": np.full((), low, np.float32), "max": np.full((), high, np.float32)}


def _add(maker: Any, rule: Rule) -> None:
    pattern = f"^{re.escape(rule.scope)}\\Z"
    kind = qtyping.TFLOperationName(rule.kind)
    scheme = rule.scheme
    if scheme == F16:
        casting = quantizer.AlgorithmName.FLOAT_CASTING
        maker.add_weight_only_config(
            pattern, kind, 16, granularity=qtyping.QuantGranularity.TENSORWISE, algorithm_key=casting
        )
    elif scheme.is_static:
        maker.add_static_config(pattern, kind, scheme.activation_bits, scheme.weight_bits, _granularity(rule))
    elif scheme.activations is Activations.DYNAMIC:
        maker.add_dynamic_config(pattern, kind, scheme.weight_bits)
    else:
        maker.add_weight_only_config(pattern, kind, scheme.weight_bits)


def _granularity(rule: Rule) -> Any:
    # LiteRT's integer kernel of BATCH_MATMUL takes the first scale for all channels, and no error is raised.
    per_tensor = rule.kind == "BATCH_MATMUL"
    return qtyping.QuantGranularity.TENSORWISE if per_tensor else qtyping.QuantGranularity.CHANNELWISE


def weight_bounds(
    model: LiteModel, plan: Plan, chain: Chain, ranges: Mapping[int, Range], *, weights: str = "auto"
) -> dict[int, Array]:
    """The largest magnitudes that the integers of each weight cover, by its tensor; those of one buffer agree."""
    graph = model.graph
    by_buffer: dict[int, Array] = {}
    buffers: dict[int, int] = {}
    for f in model.found:
        scheme = plan[f.name]
        if not scheme.is_integer or f.kind == "GATHER":
            continue
        buffers[f.weights[0]] = buffer = graph.tensor(f.weights[0]).buffer
        most = bound(model, f, scheme, chain, ranges, weights)
        there = by_buffer.get(buffer)
        by_buffer[buffer] = most if there is None or there.shape != most.shape else np.maximum(there, most)
    return {t: by_buffer[b] for t, b in buffers.items()}


def bound(
    model: LiteModel,
    f: Found,
    scheme: Scheme,
    chain: Chain,
    ranges: Mapping[int, Range],
    weights: str,
    power: Array | None = None,
) -> Array:
    """The largest magnitudes that the integers of one weight cover; ``power`` as of ``weight.bounds``."""
    graph = model.graph
    values = graph.array(f.weights[0])
    assert values is not None
    bias = graph.array(f.bias) if scheme.is_static and f.bias >= 0 else None
    step = 0.0
    if bias is not None and f.data in ranges:
        low, high = ranges[f.data]
        step = (high - low) / 255 if scheme.activation_bits == 8 else max(-low, high) / 32767
    method = method_for(scheme, weights)
    if power is not None:
        method = "hessian"
    axis = None if f.kind == "BATCH_MATMUL" and scheme.is_static else weight.axis(graph, f)
    return weight.bounds(values, axis, bits=scheme.weight_bits, method=method, bias=bias, step=step, power=power)


def method_for(scheme: Scheme, weights: str) -> str:
    """How the ranges of weights of a scheme are chosen where nothing is known of what they meet."""
    if weights == "auto":
        return "minmax" if scheme.weight_bits >= 8 else FEW
    return "mse" if weights == "hessian" else weights


def prepared(model: LiteModel) -> bytes:
    """The model as ai-edge-quantizer wants it: codes in the new field, names unique in all subgraphs, a signature list.

    In files of old converters it would take every operation for an ADD, whose code is 0.
    """
    made = flat.parse(model.content)
    for code, kind in zip(made.operatorCodes, _kinds(made), strict=True):
        code.builtinCode = CODES.get(STAND_INS.get(kind, ""), max(code.builtinCode, code.deprecatedBuiltinCode))
    tensors = [t for graph in made.subgraphs for t in graph.tensors]
    for tensor, text in zip(tensors, unique(flat.text(t.name) for t in tensors), strict=True):
        tensor.name = text.encode()
    made.signatureDefs = made.signatureDefs or []
    for signature in made.signatureDefs:
        signature.signatureKey = signature.signatureKey or b"serving_default"
    return flat.serialize(made)


def _kinds(model: Any) -> list[str]:
    return [flat.OPERATORS.get(max(c.builtinCode, c.deprecatedBuiltinCode), "") for c in model.operatorCodes]


def restored(content: bytes, model: LiteModel) -> Any:
    """What ai-edge-quantizer wrote, with the operations that others stood in for, and outputs under their names."""
    made = flat.parse(content)
    for number, kind in enumerate(_kinds(model.native)):
        if kind in STAND_INS:
            made.operatorCodes[number].builtinCode = CODES[kind]
    renamed(made, model)
    _unblind(made)
    return made


def _unblind(quantized: Any) -> None:
    """Let what looks at a tensor's shape alone look at its integers: ai-edge-quantizer turns them to floats for it."""
    graph = Graph(quantized)
    for op in graph.ops:
        maker = graph.producer.get(op.inputs[0]) if op.kind in BLIND else None
        if maker is not None and maker.kind == "DEQUANTIZE":
            op.native.inputs = [maker.inputs[0]]
    after = Graph(quantized)
    idle = {
        op.number
        for op in after.ops
        if op.kind == "DEQUANTIZE" and op.outputs[0] not in after.consumers and op.outputs[0] not in after.outputs
    }
    after.native.operators = [op.native for op in after.ops if op.number not in idle]


def renamed(quantized: Any, model: LiteModel) -> None:
    """Give outputs the names that they had: ai-edge-quantizer names the tensor behind a new operation anew."""
    graph = Graph(quantized)
    taken = {graph.name(t): t for t in range(len(graph.native.tensors))}
    for now, before in zip(graph.outputs, model.graph.outputs, strict=True):
        wanted = model.graph.name(before)
        if graph.name(now) == wanted:
            continue
        inner = taken.get(wanted)
        if inner is not None:
            graph.tensor(inner).name = graph.tensor(now).name
        graph.tensor(now).name = wanted.encode()
