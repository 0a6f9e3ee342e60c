"""Weights rounded by onnx.ptq so that the results of their layers stay, and biases that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import qm.target
from qm.numerics import sqnr_db, worst_pair_sum
from qm.plugin import Array, Notes, Plan, QuantizeJob, Scheme
from qm.testing import Drawn
from qm_onnx import rows
from qm_onnx.model import OnnxModel
from qm_onnx.normalize import normalize
from qm_onnx.option import PtqOptions
from qm_onnx.ptq import quantize
from qm_onnx.site import Site

Build = Callable[..., ModelProto]
PLAIN: dict[str, Any] = {"rounding": "nearest", "bias_correction": False}
BIASES: dict[str, Any] = {"bias_correction": True}
BOTH: dict[str, Any] = {"rounding": "gptq", "bias_correction": True}


def normal(*shape: int, seed: int = 0, scale: float = 0.3) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def node(kind: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"{output}_{kind.lower()}", **attributes)


def smooth(count: int) -> Drawn:
    """Pictures whose neighbours are alike, as those of cameras are, and brighter than they are dark."""
    noise = normal(count, 3, 14, 14, seed=7, scale=1)
    soft = np.sum([np.roll(noise, (i, j), (2, 3)) for i in range(3) for j in range(3)], axis=0)[:, :, 2:, 2:]
    return Drawn([{"x": (s[None] / 3 + 0.5).astype(np.float32)} for s in soft])


def run(
    model: OnnxModel,
    data: Drawn,
    *,
    scheme: str = "w8a8",
    target: str = "x86-avx2",
    notes: Notes | None = None,
    **options: object,
) -> OnnxModel:
    job = QuantizeJob(
        model=model,
        plan=Plan({f.name: Scheme.parse(scheme) for f in model.layers()}),
        data=data,
        target=qm.target.find(target),
        options=PtqOptions.model_validate(options),
        notes=notes if notes is not None else Notes(),
    )
    return quantize(job)


def results(model: OnnxModel, data: Drawn, layer: str) -> Array:
    return np.concatenate([model.run_exact(b, watch=[layer])[layer] for b in data])


def integers(model: OnnxModel) -> dict[str, Array]:
    stored = (t for t in model.native.graph.initializer if t.name.endswith("_quantized") and len(t.dims) > 1)
    return {t.name: numpy_helper.to_array(t) for t in stored}


@pytest.fixture
def network(build: Build) -> OnnxModel:
    nodes = [
        node("Conv", "x w0 b0", "c0", pads=[1] * 4),
        node("Relu", "c0", "r0"),
        node("Conv", "r0 w1 b1", "c1", pads=[1] * 4, group=16),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2"),
        node("GlobalAveragePool", "c2", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w3 b3", "g", transB=1),
        node("MatMul", "g w4", "y"),
    ]
    weights = {"w0": normal(16, 3, 3, 3), "b0": normal(16, seed=1), "w1": normal(16, 1, 3, 3, seed=2)}
    weights |= {"b1": normal(16, seed=3), "w2": normal(24, 16, 1, 1, seed=4)}
    weights |= {"w3": normal(10, 24, seed=5), "b3": normal(10, seed=6), "w4": normal(10, 6, seed=7)}
    return OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 3, 12, 12]}))[0])


FORMS = [
    ("Conv", {}, (4, 3, 3, 3), (1, 3, 9, 8)),
    ("Conv", {"pads": [1, 0, 2, 1], "strides": [2, 1]}, (4, 3, 3, 2), (2, 3, 9, 8)),
    ("Conv", {"dilations": [2, 1], "pads": [2, 1, 2, 1]}, (4, 3, 3, 3), (1, 3, 9, 8)),
    ("Conv", {"group": 3}, (3, 1, 3, 3), (1, 3, 9, 8)),
    ("Conv", {"group": 2}, (6, 2, 3, 3), (1, 4, 9, 8)),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (4, 3, 3, 3), (1, 3, 9, 8)),
    ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (4, 3, 3, 3), (1, 3, 9, 8)),
    ("Conv", {"auto_pad": "VALID"}, (4, 3, 3, 3), (1, 3, 9, 8)),
    ("Conv", {"pads": [2, 2]}, (4, 3, 5), (1, 3, 9)),
    ("Conv", {}, (4, 3, 2, 2, 2), (1, 3, 4, 5, 6)),
    ("Gemm", {}, (5, 4), (3, 5)),
    ("Gemm", {"transB": 1}, (4, 5), (3, 5)),
    ("Gemm", {"transA": 1}, (5, 4), (5, 3)),
    ("MatMul", {}, (5, 4), (2, 3, 5)),
    ("MatMul left", {}, (4, 5), (5, 3)),
    ("MatMul left", {}, (4, 5), (2, 5, 3)),
]


@pytest.mark.parametrize(("kind", "attributes", "weight", "data"), FORMS)
def test_the_rows_that_are_looked_at_make_the_results_of_the_layer(
    build: Build, kind: str, attributes: dict[str, object], weight: tuple[int, ...], data: tuple[int, ...]
) -> None:
    left = kind.endswith("left")
    made = node(kind.split()[0], "w x" if left else "x w", "y", **attributes)
    model = OnnxModel(normalize(build([made], {"w": normal(*weight)}, inputs={"x": list(data)}))[0])
    x = normal(*data, seed=1, scale=1)
    expected = model.run({"x": x})["y"]
    site = Site(name="y", node=made, position=0 if left else 1, scheme=Scheme.parse("w8a8"))
    found = rows.matrix(site, normal(*weight))
    assert found is not None
    seen = found.data(x, 0, most=1 << 20)
    products = seen @ np.swapaxes(found.rows(normal(*weight)), -1, -2)  # (groups, places, out)
    assert seen.shape[-1] == found.inputs
    assert np.array_equal(found.weight(found.rows(normal(*weight))), normal(*weight))
    # The same numbers, in another order of places and channels.
    assert np.sort(products.ravel()) == pytest.approx(np.sort(expected.ravel()), abs=1e-5)


def test_of_a_large_picture_few_places_are_looked_at() -> None:
    made = node("Conv", "x w", "y", pads=[1] * 4)
    found = rows.matrix(Site(name="y", node=made, position=1, scheme=Scheme.parse("w8a8")), normal(4, 3, 3, 3))
    assert found is not None
    assert found.data(normal(1, 3, 100, 100), 5, most=250).shape == (1, 250, 27)


@pytest.mark.parametrize("scheme", ["w8a8", "w8a8t", "w8a16"])
@pytest.mark.parametrize("target", ["x86-avx2", "x86-vnni"])
@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_it_leaves_less_error_than_the_nearest(network: OnnxModel, scheme: str, target: str, rounding: str) -> None:
    data, judges = smooth(48), Drawn(smooth(80)[48:])
    last = network.layers()[-1].name
    float_results = results(network, judges, last)
    figures = [
        sqnr_db(float_results, results(run(network, data, scheme=scheme, target=target, **options), judges, last))
        for options in (PLAIN, BOTH | {"rounding": rounding})
    ]
    assert figures[1] > figures[0] + 1


@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_pairs_stay_safe_for_kernels_that_saturate(network: OnnxModel, rounding: str) -> None:
    made = integers(run(network, smooth(16), rounding=rounding))
    dense = [w for w in made.values() if w.ndim == 4 and w.shape[1] > 1]
    assert len(dense) == 2
    assert all(worst_pair_sum(np.moveaxis(w, 1, -1).reshape(len(w), -1)) <= 128 for w in dense)


def test_biases_take_back_what_rounding_shifts(network: OnnxModel) -> None:
    data = smooth(48)
    layer = "c1_conv"
    float_mean = results(network, data, layer).mean(axis=(0, 2, 3))
    shifts = [
        np.abs(results(run(network, data, scheme="w8a16", **o), data, layer).mean(axis=(0, 2, 3)) - float_mean).mean()
        for o in (PLAIN, BIASES)
    ]
    assert shifts[1] < shifts[0] / 2


def test_a_layer_without_bias_gets_one(network: OnnxModel) -> None:
    made = run(network, smooth(8), **BIASES)
    convolution = next(n for n in made.native.graph.node if n.name == "c2_conv")
    assert len(convolution.input) == 3


def test_schemes_and_names_are_as_without_it(network: OnnxModel) -> None:
    plain, made = run(network, smooth(8), **PLAIN), run(network, smooth(8), **BOTH)
    assert made.schemes() == plain.schemes()
    assert [f.name for f in made.layers()] == [f.name for f in plain.layers()]


def test_the_same_job_gives_the_same_bytes(network: OnnxModel) -> None:
    first, second = (run(network, smooth(8), **BOTH) for _ in range(2))
    assert first.native.SerializeToString(deterministic=True) == second.native.SerializeToString(deterministic=True)


def test_the_given_model_is_left_unchanged(network: OnnxModel) -> None:
    before = network.native.SerializeToString(deterministic=True)
    run(network, smooth(8), **BOTH)
    assert network.native.SerializeToString(deterministic=True) == before


def test_it_is_said(network: OnnxModel) -> None:
    notes = Notes()
    run(network, smooth(8), **BOTH, notes=notes)
    assert "5 layers with weights rounded so that results stay (rounding=gptq)" in notes


def test_layers_that_share_a_weight_share_its_integers(build: Build) -> None:
    nodes = [node("Gemm", "x w b", "a"), node("Relu", "a", "r"), node("Gemm", "r w b", "y")]
    model = OnnxModel(normalize(build(nodes, {"w": normal(4, 4), "b": normal(4)}))[0])
    data = Drawn([{"x": normal(3, 4, seed=i, scale=1)} for i in range(8)])
    made = run(model, data, **BOTH)
    assert len(integers(made)) == 1
    assert sqnr_db(*(np.concatenate([m.run(b)["y"] for b in data]) for m in (model, made))) > 25


def test_four_bit_weights_take_half_the_bytes_and_run_on_integer_kernels(network: OnnxModel, tmp_path: Path) -> None:
    data = smooth(16)
    made = run(network, data, scheme="w4a8", **BOTH)
    assert {str(s) for s in made.schemes().values()} == {"w4a8"}
    stored = {t.name: t for t in made.native.graph.initializer}
    weights = [t for t in stored.values() if t.data_type == TensorProto.INT4]
    assert len(weights) == 5
    assert all(len(t.raw_data) == (np.prod(t.dims) + 1) // 2 for t in weights)
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(made.native.SerializeToString(), settings, ["CPUExecutionProvider"])
    kinds = Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == 3
    assert kinds["Conv"] == 0


def test_layers_in_turn_make_good_what_those_before_them_lost(network: OnnxModel) -> None:
    data, judges = smooth(48), Drawn(smooth(80)[48:])
    last = network.layers()[-1].name
    wanted = results(network, judges, last)
    figures = [
        sqnr_db(wanted, results(run(network, data, scheme="w4a8", sequential=s), judges, last)) for s in (False, True)
    ]
    assert figures[1] > figures[0] + 0.5


def test_layers_in_turn_of_branches_keep_the_mean_of_results(build: Build) -> None:
    nodes = [
        node("Conv", "x w0 b0", "a", pads=[1] * 4),
        node("Relu", "a", "r"),
        node("Conv", "r w1 b1", "b", pads=[1] * 4),
        node("Conv", "r w2 b2", "c"),
        node("Add", "b c", "s"),
        node("Conv", "s w3 b3", "y"),
    ]
    weights = {"w0": normal(8, 3, 3, 3), "w1": normal(8, 8, 3, 3, seed=1), "w2": normal(8, 8, 1, 1, seed=2)}
    weights |= {"w3": normal(4, 8, 1, 1, seed=3)} | {f"b{i}": normal(4 if i == 3 else 8, seed=4 + i) for i in range(4)}
    model = OnnxModel(normalize(build(nodes, weights, inputs={"x": [1, 3, 12, 12]}))[0])
    data = smooth(16)
    wanted = results(model, data, "y_conv").mean(axis=(0, 2, 3))
    shifts = [
        np.abs(results(run(model, data, scheme="w4a8", **o), data, "y_conv").mean(axis=(0, 2, 3)) - wanted).mean()
        for o in (PLAIN, BOTH)
    ]
    assert shifts[1] < shifts[0] / 4


def test_four_bit_weights_gain_most_from_it(network: OnnxModel) -> None:
    data, judges = smooth(48), Drawn(smooth(80)[48:])
    last = network.layers()[-1].name
    wanted = results(network, judges, last)
    figures = [sqnr_db(wanted, results(run(network, data, scheme="w4a8", **o), judges, last)) for o in (PLAIN, BOTH)]
    assert figures[1] > figures[0] + 6


@pytest.mark.parametrize("weights", ["minmax", "mse", "octav", "hessian"])
def test_every_way_to_choose_the_range_of_weights_gives_a_model_that_stays_close(
    network: OnnxModel, weights: str
) -> None:
    data = smooth(16)
    made = run(network, data, weights=weights)
    assert sqnr_db(results(network, data, "c1_conv"), results(made, data, "c1_conv")) > 25
