"""Constants folded and ranges moved between channels before calibration: what is changed, and that results stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import qm.target
from qm.numerics import sqnr_db
from qm.plugin import Array, LoadJob, Notes, Plan, QuantizeJob, Scheme
from qm.testing import Drawn
from qm_onnx import chain, ptq
from qm_onnx.load import load
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize
from qm_onnx.option import PtqOptions
from qm_onnx.prepare import prepare

Build = Callable[..., ModelProto]
ALL = {"equalize": True, "smooth": 0.5, "balance": True}

SAME_DB = 100.0
"""Float32 rounds to 2**-24, about 150 dB below the value; some dozen operations in another order lose a third of it."""


def normal(*shape: int, seed: int = 0, scale: float = 0.3) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def uneven(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Weights whose outputs reach from 1/8 to 8 times as far as others."""
    spread = np.exp2(np.linspace(-3, 3, shape[0])).astype(np.float32)
    return normal(*shape, seed=seed) * spread.reshape(-1, *[1] * (len(shape) - 1))


def node(kind: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"{output}_{kind.lower()}", **attributes)


def job(model: OnnxModel, data: Drawn, **options: object) -> QuantizeJob:
    kinds = {"Conv", "MatMul", "Gemm"}
    return QuantizeJob(
        model=model,
        plan=Plan({f.name: Scheme.parse("w8a8") for f in model.layers() if f.kind in kinds}),
        data=data,
        target=qm.target.find("x86-avx2"),
        options=PtqOptions.model_validate(options),
        notes=Notes(),
    )


def reworked(model: OnnxModel, data: Drawn, **options: object) -> OnnxModel:
    """The float model after all that comes before calibration."""
    made = job(model, data, **options)
    prepared = prepare(made)
    assert isinstance(made.options, PtqOptions)
    ptq.rework(made, prepared, chain.kinds("auto"), made.options)
    return prepared.sorted()


def outputs(model: OnnxModel, data: Drawn) -> Array:
    return np.concatenate([v.ravel() for b in data for v in model.run(b).values()])


def kinds(model: OnnxModel) -> Counter[str]:
    return Counter(n.op_type for n in model.native.graph.node)


def weights(model: OnnxModel) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in model.native.graph.initializer}


def pictures(count: int = 4, channels: int = 3) -> Drawn:
    return Drawn([{"x": normal(1, channels, 8, 8, seed=50 + i, scale=1)} for i in range(count)])


def made(build: Build, nodes: list[NodeProto], values: dict[str, Array], channels: int = 3) -> OnnxModel:
    return OnnxModel(normalize(build(nodes, values, inputs={"x": [1, channels, 8, 8]}))[0])


CONVOLUTIONS = {"w0": uneven(8, 3, 3, 3), "b0": normal(8, seed=1), "w1": normal(6, 8, 1, 1, seed=2)}


def two(*between: NodeProto) -> list[NodeProto]:
    return [node("Conv", "x w0 b0", "c0", pads=[1] * 4), *between, node("Conv", "h w1", "y")]


RELU = [node("Relu", "c0", "h")]
HARD_SWISH = [
    node("Mul", "two c0", "m0"),
    node("Add", "m0 half", "a0"),
    node("Add", "a0 three", "a1"),
    node("Clip", "a1 zero six", "k"),
    node("Mul", "a0 k", "m1"),
    node("Div", "m1 six", "s"),
    node("Mul", "s two", "m2"),
    node("Add", "m2 half", "h"),
]
NUMBERS = {n: np.array([v], np.float32) for n, v in {"two": 2.0, "half": 0.5, "three": 3.0}.items()}
NUMBERS |= {n: np.array(v, np.float32) for n, v in {"zero": 0.0, "six": 6.0}.items()}


@pytest.mark.parametrize("options", [{"equalize": True}, {"smooth": 0.5}, {"smooth": 1.0}, {"balance": True}, ALL])
@pytest.mark.parametrize("between", [RELU, HARD_SWISH], ids=["relu", "hard swish"])
def test_the_float_results_stay(build: Build, between: list[NodeProto], options: dict[str, object]) -> None:
    model, data = made(build, two(*between), CONVOLUTIONS | NUMBERS), pictures()
    changed = reworked(model, data, **options)
    assert sqnr_db(outputs(model, data), outputs(changed, data)) > SAME_DB


@pytest.mark.parametrize("options", [{"equalize": True}, {"smooth": 1.0}])
def test_a_relu_lets_scales_through(build: Build, options: dict[str, object]) -> None:
    model, data = made(build, two(*RELU), CONVOLUTIONS), pictures()
    changed = reworked(model, data, **options)
    assert kinds(changed) == kinds(model)
    assert not np.allclose(weights(changed)["w0"], weights(model)["w0"], rtol=0.1)


def test_equalized_layers_reach_equally_far(build: Build) -> None:
    changed = weights(reworked(made(build, two(*RELU), CONVOLUTIONS), pictures(), equalize=True))
    first, second = np.abs(changed["w0"]).max(axis=(1, 2, 3)), np.abs(changed["w1"]).max(axis=(0, 2, 3))
    assert first == pytest.approx(second, rel=2e-3)  # Rounds end where scales are within a thousandth of 1.


def test_full_strength_makes_the_channels_of_the_inputs_alike(build: Build) -> None:
    model, data = made(build, two(*RELU), CONVOLUTIONS), pictures()
    changed = reworked(model, data, smooth=1.0)
    seen = [changed.run(b, watch=["c0_conv"]) for b in data]
    session = changed.session(extra_outputs=["h"])
    reach = np.max([session.run(["h"], dict(b))[0].max(axis=(0, 2, 3)) for b in data], axis=0)
    assert np.ptp(reach) < 1e-3 * reach.max()
    told = np.concatenate([s["c0_conv"].ravel() for s in seen])
    assert sqnr_db(np.concatenate([model.run(b, watch=["c0_conv"])["c0_conv"].ravel() for b in data]), told) > SAME_DB


def test_what_a_sum_reads_too_is_not_scaled(build: Build) -> None:
    nodes = [*two(*RELU)[:-1], node("Conv", "h w1", "c1"), node("Add", "c1 h", "y")]
    model, data = made(build, nodes, CONVOLUTIONS | {"w1": normal(8, 8, 1, 1, seed=2)}), pictures()
    changed = reworked(model, data, equalize=True, smooth=0.5)
    assert kinds(changed)["Mul"] <= 1  # Smoothing may divide the branch of the layer alone.
    assert np.array_equal(weights(changed)["w0"], weights(model)["w0"])
    assert sqnr_db(outputs(model, data), outputs(changed, data)) > SAME_DB


def test_layers_that_share_their_weights_are_left_alone(build: Build) -> None:
    nodes = [node("Conv", "x w0", "c0"), node("Relu", "c0", "h"), node("Conv", "h w0", "y")]
    model, data = made(build, nodes, {"w0": uneven(3, 3, 1, 1)}), pictures()
    assert np.array_equal(weights(reworked(model, data, **ALL))["w0"], weights(model)["w0"])


def test_what_a_graph_inside_reads_is_not_scaled(build: Build) -> None:
    inner = [helper.make_graph([node("Neg", "h", f"n{i}")], f"g{i}", [], [value(f"n{i}")]) for i in range(2)]
    nodes = [
        *two(*RELU)[:-1],
        node("Conv", "h w1", "c1"),
        node("If", "flag", "n", then_branch=inner[0], else_branch=inner[1]),
    ]
    proto = build(
        nodes, CONVOLUTIONS | {"flag": np.ones((), np.bool_)}, inputs={"x": [1, 3, 8, 8]}, outputs=["c1", "n"]
    )
    model, data = OnnxModel(proto), pictures()
    changed = reworked(model, data, equalize=True, smooth=0.5)
    assert sqnr_db(outputs(model, data), outputs(changed, data)) > SAME_DB


def value(name: str) -> object:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def test_a_relu6_lets_through_only_channels_that_cannot_reach_its_limit(build: Build) -> None:
    nodes = [
        node("Clip", "x zero one", "k"),
        node("Conv", "k w0 b0", "c0"),
        node("Clip", "c0 zero six", "h"),
        node("Conv", "h w1", "y"),
    ]
    # Inputs are 0 to 1, so that channel 0 stays below 2 * 3 = 6 and channel 1 may pass it.
    w0 = np.repeat(np.array([1.9, 2.1], np.float32), 3).reshape(2, 3, 1, 1)
    values = NUMBERS | {"one": np.array(1, np.float32), "w0": w0, "b0": np.zeros(2, np.float32)}
    model = made(build, nodes, values | {"w1": np.full((1, 2, 1, 1), 0.1, np.float32)})
    changed = reworked(model, pictures(), equalize=True)
    now = weights(changed)["w0"]
    assert np.array_equal(now[1], w0[1])
    assert now[0].ravel() == pytest.approx([np.sqrt(1.9 * 0.1)] * 3, rel=2e-3)
    loud = Drawn([{"x": np.full((1, 3, 8, 8), v, np.float32)} for v in (-3.0, 0.5, 9.0)])
    assert sqnr_db(outputs(model, loud), outputs(changed, loud)) > SAME_DB


def test_a_channel_is_never_widened_past_the_limit_of_a_relu6(build: Build) -> None:
    nodes = [node("Clip", "x zero one", "k"), node("Conv", "k w0", "c0"), node("Clip", "c0 zero six", "h")]
    values = NUMBERS | {"one": np.array(1, np.float32), "w0": np.full((1, 3, 1, 1), 1.5, np.float32)}
    model = made(build, [*nodes, node("Conv", "h w1", "y")], values | {"w1": np.full((1, 1, 1, 1), 99, np.float32)})
    changed = reworked(model, pictures(), equalize=True)
    assert weights(changed)["w0"].ravel() == pytest.approx([2.0] * 3)  # 3 * 2 is the limit, for inputs up to 1.


def test_a_layer_norm_takes_on_the_scales_of_the_layer_behind(build: Build) -> None:
    nodes = [node("LayerNormalization", "x g n", "h"), node("MatMul", "h w", "y")]
    values = {"g": np.exp2(np.arange(-4, 4, dtype=np.float32)), "n": normal(8, seed=1), "w": normal(8, 5, seed=2)}
    model = OnnxModel(normalize(build(nodes, values, inputs={"x": [1, 4, 8]}))[0])
    data = Drawn([{"x": normal(1, 4, 8, seed=i, scale=1)} for i in range(4)])
    changed = reworked(model, data, smooth=0.5)
    assert kinds(changed) == kinds(model)
    assert not np.allclose(weights(changed)["w"], values["w"], rtol=0.1)
    assert sqnr_db(outputs(model, data), outputs(changed, data)) > SAME_DB


def test_behind_an_operation_in_float_a_product_divides(build: Build) -> None:
    model, data = made(build, two(node("Sin", "c0", "s"), node("Mul", "s per", "h")), SCALED), pictures()
    changed = reworked(model, data, smooth=0.5)
    assert kinds(changed)["Mul"] == kinds(model)["Mul"] + 1
    assert sqnr_db(outputs(model, data), outputs(changed, data)) > SAME_DB


SCALED = CONVOLUTIONS | {"per": np.exp2(np.arange(-4, 4, dtype=np.float32)).reshape(1, 8, 1, 1)}


def test_constants_beside_layers_are_folded_and_hard_swishes_written_short(build: Build) -> None:
    model, data = made(build, two(*HARD_SWISH), CONVOLUTIONS | NUMBERS), pictures()
    changed = reworked(model, data)
    assert kinds(changed) == {"Conv": 2, "HardSigmoid": 1, "Mul": 1}
    assert sqnr_db(outputs(model, data), outputs(changed, data)) > SAME_DB
    assert kinds(reworked(model, data, fold=False)) == kinds(model)


def test_a_sum_before_padding_stays(build: Build) -> None:
    nodes = [node("Sin", "x", "s"), node("Mul", "s two", "m"), node("Add", "m half", "h")]
    model = made(build, [*nodes, node("Conv", "h w0", "y", pads=[1] * 4)], CONVOLUTIONS | NUMBERS)
    changed = reworked(model, pictures())
    assert kinds(changed) == {"Sin": 1, "Add": 1, "Conv": 1}
    assert sqnr_db(outputs(model, pictures()), outputs(changed, pictures())) > SAME_DB


def test_a_factor_of_zero_before_a_sum_that_has_to_stay_is_not_divided_by(build: Build) -> None:
    nodes = [node("Sin", "x", "s"), node("Mul", "s zero", "m"), node("Add", "m half", "h")]
    model = made(build, [*nodes, node("Conv", "h w0", "y", pads=[1] * 4)], CONVOLUTIONS | NUMBERS)
    assert sqnr_db(outputs(model, pictures()), outputs(reworked(model, pictures()), pictures())) > SAME_DB


def test_constants_that_others_read_too_are_not_folded(build: Build) -> None:
    nodes = [node("Conv", "x w0", "c"), node("Mul", "c two", "m"), node("Add", "c m", "y")]
    model = made(build, nodes, CONVOLUTIONS | NUMBERS)
    assert kinds(reworked(model, pictures())) == kinds(model)


def test_balanced_and_smoothed_layers_lose_less_and_tell_their_float_activations(build: Build) -> None:
    values = CONVOLUTIONS | NUMBERS | {"w0": uneven(8, 3, 3, 3)}
    model, data = made(build, two(*HARD_SWISH), values), pictures(16)
    plain = ptq.quantize(job(model, data))
    better = ptq.quantize(job(model, data, smooth=0.5, balance=True))
    exact = outputs(model, data)
    losses = [sqnr_db(exact, np.concatenate([m.run_exact(b)["y"].ravel() for b in data])) for m in (plain, better)]
    assert (
        losses[1] > losses[0] + 3
    )  # Outputs spread over 6 octaves, of which one range for all leaves the small few bits.
    for m in (plain, better):
        told = np.concatenate([m.run_exact(b, watch=["c0_conv"])["c0_conv"].ravel() for b in data])
        true = np.concatenate([model.run(b, watch=["c0_conv"])["c0_conv"].ravel() for b in data])
        assert sqnr_db(true, told) > 25  # 8 bits leave 30 dB and more; a lost factor leaves none.


def test_a_real_recogniser_keeps_its_float_results(real_model: Callable[[str], Path]) -> None:
    model = load(LoadJob(path=real_model("ch_PP-OCRv4_rec_infer.onnx")))
    data = Drawn([{"x": np.random.default_rng(i).uniform(-1, 1, (1, 3, 48, 96)).astype(np.float32)} for i in range(2)])
    changed = reworked(model, data, **ALL)
    assert kinds(changed).total() < kinds(model).total()
    assert (
        sqnr_db(outputs(model, data), outputs(changed, data)) > 80
    )  # Sixty layers, and a softmax of 6,625 at the end.
