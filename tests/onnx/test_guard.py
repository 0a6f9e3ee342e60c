"""What goes wrong in silence, caught."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import qm.target
from qm.plugin import Notes, Plan, PluginError, QuantizeJob, Scheme, Unsupported
from qm_onnx import guard
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize
from qm_onnx.option import PtqOptions
from qm_onnx.ptq import quantize
from qm_onnx.safe import Site

Build = Callable[..., ModelProto]
W8A8 = Scheme.parse("w8a8")


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def head(build: Build, spread: float) -> OnnxModel:
    """Boxes and scores, ``spread`` times apart, joined, then moved and convolved."""
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["boxes"], name="boxes"),
        helper.make_node("Conv", ["x", "w1"], ["scores"], name="scores"),
        helper.make_node("Concat", ["boxes", "scores"], ["j"], name="join", axis=1),
        helper.make_node("Transpose", ["j"], ["t"], name="move", perm=[0, 1, 3, 2]),
        helper.make_node("Conv", ["t", "w2"], ["y"], name="last"),
    ]
    weights = {"w0": normal(4, 3, 1, 1) * np.float32(spread), "w1": normal(4, 3, 1, 1), "w2": normal(4, 8, 1, 1)}
    return OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 3, 6, 6]}))[0])


def quantized(model: OnnxModel, notes: Notes, **options: str) -> OnnxModel:
    job = QuantizeJob(
        model=model,
        plan=Plan({layer.name: W8A8 for layer in model.layers()}),
        data=[{"x": normal(1, 3, 6, 6, seed=i)} for i in range(4)],  # type: ignore[arg-type]
        target=qm.target.find("x86-vnni"),
        options=PtqOptions.model_validate(options),
        notes=notes,
    )
    return quantize(job)


def named(model: OnnxModel, name: str) -> NodeProto:
    return next(n for n in model.native.graph.node if n.name == name)


def makers(model: OnnxModel, node: NodeProto) -> set[str]:
    made = {t: n.op_type for n in model.native.graph.node for t in n.output}
    return {made[name] for name in node.input if name in made}


def readers(model: OnnxModel, node: NodeProto) -> set[str]:
    return {n.op_type for n in model.native.graph.node if node.output[0] in n.input}


@pytest.mark.parametrize("operators", ["auto", "Concat,Transpose"])
def test_a_concat_of_very_different_ranges_stays_in_float_with_what_follows(build: Build, operators: str) -> None:
    notes = Notes()
    made = quantized(head(build, 100), notes, operators=operators)
    assert readers(made, named(made, "join")) == {"Transpose"}
    assert any("join stays in float: it joins 'boxes'" in n and "'scores'" in n for n in notes)


def test_a_concat_of_like_ranges_becomes_integer(build: Build) -> None:
    notes = Notes()
    made = quantized(head(build, 2), notes)
    assert readers(made, named(made, "join")) == {"QuantizeLinear"}
    assert makers(made, named(made, "join")) == {"DequantizeLinear"}
    assert not any("float" in n for n in notes)


def test_a_float_concat_keeps_small_scores_apart(build: Build) -> None:
    model = head(build, 100)
    proto = ModelProto()
    proto.CopyFrom(model.native)
    proto.graph.output.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, None))
    joined = OnnxModel(proto)
    batch = {"x": normal(1, 3, 6, 6)}
    before = joined.run(batch)["t"][:, 4:]
    after = quantized(joined, Notes()).run(batch)["t"][:, 4:]
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()


@pytest.fixture
def single(build: Build) -> tuple[ModelProto, Site]:
    proto = normalize(build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": normal(4, 6)}))[0]
    return proto, Site(name="fc", node=proto.graph.node[0], position=1, scheme=W8A8)


def test_a_layer_that_came_out_in_another_scheme_is_an_error(single: tuple[ModelProto, Site]) -> None:
    with pytest.raises(PluginError, match="layer 'fc' should be in w8a8, and came out float"):
        guard.verify(single[0], [single[1]], pair_safe=False)


def test_a_layer_that_is_gone_is_an_error(single: tuple[ModelProto, Site], build: Build) -> None:
    other = build([helper.make_node("Relu", ["x"], ["y"], name="relu")], {})
    with pytest.raises(PluginError, match="should be in w8a8, and came out missing"):
        guard.verify(other, [single[1]], pair_safe=False)


def test_weights_that_can_still_saturate_are_an_error(build: Build) -> None:
    model = OnnxModel(
        normalize(build([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], {"w": normal(4, 6)}))[0]
    )
    job = QuantizeJob(
        model=model,
        plan=Plan({"fc": W8A8}),
        data=[{"x": normal(1, 4)}],  # type: ignore[arg-type]
        target=qm.target.find("x86-avx2"),
    )
    proto = quantize(job).native
    site = Site(name="fc", node=model.native.graph.node[0], position=1, scheme=W8A8)
    guard.verify(proto, [site], pair_safe=True)
    weight = next(t for t in proto.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 2)
    weight.CopyFrom(numpy_helper.from_array(np.full((4, 6), 65, np.int8), weight.name))
    with pytest.raises(PluginError, match="a pair of weights of layer 'fc' can still saturate"):
        guard.verify(proto, [site], pair_safe=True)


def test_a_plan_for_another_model_is_refused(single: tuple[ModelProto, Site]) -> None:
    with pytest.raises(Unsupported, match="the plan names the layer 'conv', which the model does not have"):
        quantize(QuantizeJob(model=OnnxModel(single[0]), plan=Plan({"conv": W8A8})))
