"""Which operations compute in integers, on graphs built by hand: each kind of layer and operation in LiteRT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from qm.numerics import sqnr_db
from qm.plugin import Array, Plan, QuantizeJob, Scheme
from qm_tf import flat
from qm_tf.model import LiteModel
from qm_tf.option import KINDS, PtqOptions
from qm_tf.ptq import quantize


class Samples(list[dict[str, Array]]):
    labels = None


def normal(*shape: int, seed: int = 0, scale: float = 0.3) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


class Drawing:
    """A model in the making."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.operatorCodes, self.model.buffers = 3, [], [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(self, name: str, shape: Sequence[int], values: Array | None = None, kind: str = "FLOAT32") -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type = name.encode(), list(shape), getattr(schema.TensorType, kind)
        made.buffer = 0
        if values is not None:
            self.model.buffers.append(schema.BufferT())
            made.buffer = len(self.model.buffers) - 1
            self.model.buffers[-1].data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, values: Array) -> int:
        return self.tensor(name, values.shape, values, {"f": "FLOAT32", "i": "INT32"}[values.dtype.kind])

    def op(self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", **values: Any) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        self.model.operatorCodes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = len(self.model.operatorCodes) - 1
        made.inputs, made.outputs = list(inputs), list(outputs)
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in values.items():
                setattr(made.builtinOptions, name, value)
        self.graph.operators.append(made)

    def dense(self, name: str, data: int, weight: Array | int, *, bias: Array | None = None) -> int:
        kernel = weight if isinstance(weight, int) else self.constant(f"{name}/kernel", weight)
        result = self.tensor(name, (1, self.graph.tensors[kernel].shape[0]))
        more = [self.constant(f"{name}/bias", bias)] if bias is not None else []
        self.op("FULLY_CONNECTED", [data, kernel, *more], [result], "FullyConnectedOptions")
        return result

    def done(self, inputs: Sequence[int], outputs: Sequence[int]) -> LiteModel:
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)
        return LiteModel(flat.serialize(self.model))


def layer(kind: str) -> LiteModel:
    """One layer of that kind."""
    d = Drawing()
    conv = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    if kind in ("EMBEDDING_LOOKUP", "GATHER"):
        ids, out = d.tensor("ids", (5,), kind="INT32"), d.tensor("rows", (5, 16))
        table = d.constant("only/kernel", normal(20, 16))
        if kind == "GATHER":
            d.op(kind, [table, ids], [out], "GatherOptions")
        else:
            d.op(kind, [ids, table], [out])
        return d.done([ids], [out])
    if kind == "FULLY_CONNECTED":
        x = d.tensor("x", (1, 16))
        return d.done([x], [d.dense("only", x, normal(8, 16))])
    if kind == "BATCH_MATMUL":
        x, out = d.tensor("x", (1, 4, 16)), d.tensor("y", (1, 4, 8))
        d.op(kind, [x, d.constant("only/kernel", normal(1, 16, 8))], [out], "BatchMatMulOptions")
        return d.done([x], [out])
    x = d.tensor("x", (1, 6, 6, 4))
    if kind == "TRANSPOSE_CONV":
        out, shape = d.tensor("y", (1, 12, 12, 8)), d.constant("shape", np.array([1, 12, 12, 8], np.int32))
        weight = d.constant("only/kernel", normal(8, 3, 3, 4))
        d.op(kind, [shape, weight, x], [out], "TransposeConvOptions", strideH=2, strideW=2)
        return d.done([x], [out])
    deep = kind == "DEPTHWISE_CONV_2D"
    out = d.tensor("y", (1, 6, 6, 4 if deep else 8))
    weight = d.constant("only/kernel", normal(1, 3, 3, 4) if deep else normal(8, 3, 3, 4))
    bias = d.constant("only/bias", normal(4 if deep else 8))
    more = {"depthMultiplier": 1} if deep else {}
    d.op(kind, [x, weight, bias], [out], "DepthwiseConv2DOptions" if deep else "Conv2DOptions", **conv, **more)
    return d.done([x], [out])


def samples(model: LiteModel, count: int = 16) -> Samples:
    rng = np.random.default_rng(5)
    made = Samples()
    for _ in range(count):
        made.append(
            {
                s.name: rng.normal(0, 1, [n or 1 for n in s.shape]).astype(np.float32)
                if s.dtype == "float32"
                else rng.integers(0, 20, [n or 1 for n in s.shape]).astype(s.dtype)
                for s in model.inputs()
            }
        )
    return made


def run(model: LiteModel, schemes: str | dict[str, str] = "w8a8", **options: Any) -> LiteModel:
    names = [f.name for f in model.found]
    plan = dict.fromkeys(names, schemes) if isinstance(schemes, str) else schemes
    job = QuantizeJob(
        model=model,
        plan=Plan({n: Scheme.parse(s) for n, s in plan.items()}),
        data=samples(model),
        options=PtqOptions(**options),
    )
    return quantize(job)


def worst_db(model: LiteModel, made: LiteModel) -> float:
    rows = [(model.run(batch), made.run(batch)) for batch in samples(model, 4)]
    return min(sqnr_db(a[name], b[name]) for a, b in rows for name in a)


def kinds(model: LiteModel) -> list[str]:
    return [op.kind for op in model.graph.ops]


@pytest.mark.parametrize(("kind", "scheme"), [(k, s) for k, offered in KINDS.items() for s in sorted(offered)])
def test_each_kind_of_layer_runs_in_every_scheme_that_it_is_offered(kind: str, scheme: str) -> None:
    model = layer(kind)
    made = run(model, scheme)
    (got,) = made.schemes().values()
    assert str(got).removesuffix("t") == scheme
    # Four bits leave about 20 dB of weights of a normal distribution, eight about 40.
    assert worst_db(model, made) > (10 if got.weight_bits == 4 else 25)


def between(build: Callable[[Drawing, int], int]) -> LiteModel:
    """A dense layer, what ``build`` adds, and a dense layer."""
    d = Drawing()
    x = d.tensor("x", (1, 16))
    inner = build(d, d.dense("first", x, normal(16, 16, seed=1), bias=normal(16, seed=2)))
    return d.done([x], [d.dense("last", inner, normal(8, d.graph.tensors[inner].shape[-1], seed=3))])


def unary(kind: str, options: str = "", **values: Any) -> Callable[[Drawing, int], int]:
    def build(d: Drawing, x: int) -> int:
        result = d.tensor("inner", d.graph.tensors[x].shape)
        d.op(kind, [x], [result], options, **values)
        return result

    return build


def with_constant(kind: str, options: str, values: Array) -> Callable[[Drawing, int], int]:
    def build(d: Drawing, x: int) -> int:
        result = d.tensor("inner", (1, 16))
        d.op(kind, [x, d.constant("c", values)], [result], options)
        return result

    return build


def joined(d: Drawing, x: int) -> int:
    small, wide, result = d.tensor("small", (1, 16)), d.tensor("wide", (1, 16)), d.tensor("inner", (1, 48))
    d.op("LOGISTIC", [x], [small])
    d.op("MUL", [x, d.constant("c", np.float32([9.0]))], [wide], "MulOptions")
    d.op("CONCATENATION", [small, wide, x], [result], "ConcatenationOptions", axis=1)
    return result


UNARY = {
    "abs": unary("ABS", "AbsOptions"),
    "elu": unary("ELU"),
    "gelu": unary("GELU", "GeluOptions"),
    "hard_swish": unary("HARD_SWISH", "HardSwishOptions"),
    "l2_normalization": unary("L2_NORMALIZATION", "L2NormOptions"),
    "leaky_relu": unary("LEAKY_RELU", "LeakyReluOptions", alpha=0.2),
    "logistic": unary("LOGISTIC"),
    "relu": unary("RELU"),
    "relu6": unary("RELU6"),
    "softmax": unary("SOFTMAX", "SoftmaxOptions", beta=1.0),
    "tanh": unary("TANH"),
    "add": with_constant("ADD", "AddOptions", normal(16)),
    "maximum": with_constant("MAXIMUM", "MaximumMinimumOptions", np.float32([0.1])),
    "minimum": with_constant("MINIMUM", "MaximumMinimumOptions", np.float32([0.1])),
    "mul": with_constant("MUL", "MulOptions", normal(16)),
    "prelu": with_constant("PRELU", "", np.abs(normal(1, 16))),
    "sub": with_constant("SUB", "SubOptions", normal(16)),
}


@pytest.mark.parametrize("name", UNARY)
def test_an_operation_between_integer_layers_is_in_integers_without_a_way_through_floats(name: str) -> None:
    model = between(UNARY[name])
    made = run(model)
    assert kinds(made) == ["QUANTIZE", *kinds(model), "DEQUANTIZE"]
    assert worst_db(model, made) > 25


@pytest.mark.parametrize("name", ["leaky_relu", "logistic", "relu6", "tanh"])
def test_and_in_16_bits_where_its_neighbours_are(name: str) -> None:
    model = between(UNARY[name])
    made = run(model, "w8a16")
    assert kinds(made) == ["QUANTIZE", *kinds(model), "DEQUANTIZE"]
    assert worst_db(model, made) > 35


def test_what_has_no_16_bit_kernel_stays_in_float_there() -> None:
    made = run(between(UNARY["gelu"]), "w8a16")
    assert kinds(made).count("QUANTIZE") == kinds(made).count("DEQUANTIZE") == 2


def test_what_is_concatenated_shares_the_widest_range_and_nothing_is_clipped() -> None:
    model = between(joined)
    made = run(model)
    # The range of LOGISTIC is prescribed, so that it alone is rescaled.
    assert kinds(made).count("QUANTIZE") == 2
    assert worst_db(model, made) > 20


def test_what_lies_beside_a_float_layer_stays_in_float() -> None:
    model = between(UNARY["leaky_relu"])
    made = run(model, {"first": "float", "last": "w8a8"})
    assert kinds(made) == ["FULLY_CONNECTED", "LEAKY_RELU", "QUANTIZE", "FULLY_CONNECTED", "DEQUANTIZE"]


def with_free_shape(d: Drawing, x: int) -> int:
    shape, result = d.tensor("shape", (2,), kind="INT32"), d.tensor("inner", (1, 16))
    relu = d.tensor("relu", (1, 16))
    d.op("LEAKY_RELU", [x], [relu], "LeakyReluOptions", alpha=0.2)
    d.op("SHAPE", [relu], [shape], "ShapeOptions", outType=schema.TensorType.INT32)
    d.op("RESHAPE", [relu, shape], [result], "ReshapeOptions")
    return result


def test_what_looks_at_a_shape_alone_breaks_no_chain() -> None:
    model = between(with_free_shape)
    made = run(model)
    assert kinds(made) == ["QUANTIZE", *kinds(model), "DEQUANTIZE"]
    assert worst_db(model, made) > 25


def test_a_channel_of_zeros_keeps_its_bias() -> None:
    weight, bias = normal(16, 16), normal(16, scale=3.0)
    weight[4] = 0.0
    d = Drawing()
    x = d.tensor("x", (1, 16))
    model = d.done([x], [d.dense("only", x, weight, bias=bias)])
    made = run(model)
    ((_, reference),), ((_, got),) = (m.run(samples(model)[0]).items() for m in (model, made))
    assert got[0, 4] == pytest.approx(bias[4], abs=float(np.abs(reference).max()) / 100)


def test_layers_that_share_a_weight_still_share_it() -> None:
    d = Drawing()
    x = d.tensor("x", (1, 16))
    weight = d.constant("tied/kernel", normal(16, 16))
    model = d.done([x], [d.dense("two", d.dense("one", x, weight), weight)])
    made = run(model)
    assert len({made.graph.tensor(f.weights[0]).buffer for f in made.found}) == 1
    assert worst_db(model, made) > 25


def test_a_model_without_signatures_is_quantized() -> None:
    assert {str(s) for s in run(layer("CONV_2D")).schemes().values()} == {"w8a8"}


def test_a_table_is_stored_in_a_quarter_and_looked_up_in_int8() -> None:
    made = run(layer("GATHER"), "w8")
    assert kinds(made) == ["GATHER", "DEQUANTIZE"]
    assert made.graph.type(made.graph.ops[0].outputs[0]) == "INT8"


def test_codes_of_old_files_are_understood() -> None:
    model = layer("FULLY_CONNECTED")
    native = flat.parse(model.content)
    for code in native.operatorCodes:
        code.builtinCode = 0
    old = LiteModel(flat.serialize(native))
    assert {str(s) for s in run(old).schemes().values()} == {"w8a8"}


def test_what_is_inside_control_flow_stays_in_float_and_that_is_said() -> None:
    d = Drawing()
    x, count = d.tensor("x", (1, 16)), d.constant("count", np.array([0], np.int32))
    first = d.dense("first", x, normal(16, 16, seed=1))
    passed, looped = d.tensor("passed", (1,), kind="INT32"), d.tensor("looped", (1, 16))
    d.op("WHILE", [count, first], [passed, looped], "WhileOptions", condSubgraphIndex=1, bodySubgraphIndex=2)
    last = d.dense("last", looped, normal(8, 16, seed=2))
    main = d.graph

    def inner(build: Callable[[int, int], list[int]]) -> None:
        d.graph = schema.SubGraphT()
        d.graph.tensors, d.graph.operators = [], []
        d.model.subgraphs.append(d.graph)
        # Names that the main graph has too.
        d.graph.inputs = [d.tensor("count", (1,), kind="INT32"), d.tensor("x", (1, 16))]
        d.graph.outputs = build(*d.graph.inputs)

    def goes_on(i: int, _: int) -> list[int]:
        result = d.tensor("goes_on", (1,), kind="BOOL")
        d.op("LESS", [i, d.constant("limit", np.array([2], np.int32))], [result], "LessOptions")
        return [result]

    def body(i: int, inner_x: int) -> list[int]:
        more = d.tensor("more", (1,), kind="INT32")
        d.op("ADD", [i, d.constant("one", np.array([1], np.int32))], [more], "AddOptions")
        return [more, d.dense("inside", inner_x, normal(16, 16, seed=3))]

    inner(goes_on)
    inner(body)
    d.graph = main
    model = d.done([x], [last])
    plan = Plan(dict.fromkeys(["first", "last"], Scheme.parse("w8a8")))
    job = QuantizeJob(model=model, plan=plan, data=samples(model))
    made = quantize(job)
    assert job.notes == ["the model has 2 graphs inside control flow; what they hold stays in float"]
    assert {str(s) for s in made.schemes().values()} == {"w8a8"}
    assert all(flat.type_name(t) in ("FLOAT32", "INT32") for t in made.native.subgraphs[2].tensors)
    assert worst_db(model, made) > 25
