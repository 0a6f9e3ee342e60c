"""Weights rounded so that the results of their layers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qm.numerics import sqnr_db
from qm.plugin import Array, Notes, Plan, QuantizeJob, Scheme, UsageError
from qm_tf import flat, matrix, runtime
from qm_tf.model import LiteModel
from qm_tf.option import PtqOptions
from qm_tf.ptq import quantize

LAYERS = ("stem_1", "depthwise_1", "down_1", "hidden_1")
PLAIN: dict[str, Any] = {"rounding": "nearest", "weights": "mse", "bias_correction": False}


def run(model: LiteModel, scheme: str, data: Any, **options: Any) -> tuple[LiteModel, Notes]:
    plan = Plan({x.name: Scheme.parse(scheme) for x in model.layers()})
    job = QuantizeJob(model=model, plan=plan, data=data, options=PtqOptions(**options))
    return quantize(job), job.notes


def error_db(model: LiteModel, made: LiteModel, data: Any, layer: str) -> float:
    results: list[Array] = [np.stack([m.run(b, watch=[layer])[layer] for b in data]) for m in (model, made)]
    return sqnr_db(*results)


@pytest.mark.parametrize("scheme", ["w4d8", "w4a8", "w4"])
def test_it_leaves_far_less_error_than_the_nearest_at_4_bits(small: LiteModel, images: Any, scheme: str) -> None:
    fit, judge = images[:24], images[24:]
    data = type(images)(fit)
    nearest, _ = run(small, scheme, data, **PLAIN)
    made, _ = run(small, scheme, data, rounding="gptq")
    assert made.schemes() == nearest.schemes()
    assert error_db(small, made, judge, "logits_1") > error_db(small, nearest, judge, "logits_1") + 3


def test_it_is_what_4_bits_get_where_there_are_samples(mlp: LiteModel, features: Any) -> None:
    made, notes = run(mlp, "w4d8", features)
    assert made.content == run(mlp, "w4d8", features, rounding="gptq")[0].content
    assert "3 layers have weights rounded so that their results stay (-o rounding=gptq)" in notes


def test_without_samples_the_nearest_is_taken_and_said(mlp: LiteModel) -> None:
    _, notes = run(mlp, "w4d8", None)
    assert any("rounded to the nearest: with samples (--data) much less would be lost" in note for note in notes)


def test_8_bits_are_rounded_to_the_nearest_where_nothing_is_said(mlp: LiteModel, features: Any) -> None:
    assert run(mlp, "w8a8", features)[0].content == run(mlp, "w8a8", features, rounding="nearest")[0].content


def test_8_bits_gain_too_where_it_is_asked_for(mlp: LiteModel, features: Any) -> None:
    nearest, _ = run(mlp, "w8", features)
    made, _ = run(mlp, "w8", features, rounding="gptq")
    assert error_db(mlp, made, features, "last_1") > error_db(mlp, nearest, features, "last_1") + 3


@pytest.mark.parametrize(("option", "value"), [("rounding", "gptq"), ("rounding", "adaround"), ("weights", "hessian")])
def test_asked_for_without_samples_it_is_an_error(mlp: LiteModel, option: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"{option}={value} needs samples"):
        run(mlp, "w4d8", None, **{option: value})


def stored(model: LiteModel, layer: str) -> tuple[Array, Array]:
    """The integers of a layer's weight, and its scales."""
    f = next(x for x in model.found if x.name == layer)
    scales = np.asarray(model.graph.tensor(f.weights[0]).quantization.scale, np.float32)
    return np.asarray(model.graph.array(f.weights[0])), scales


@pytest.mark.parametrize("layer", LAYERS)
def test_biases_take_back_exactly_what_the_stored_integers_shift(small: LiteModel, images: Any, layer: str) -> None:
    # Of one layer alone, whose weights are integers and whose data are float, so that nothing else is rounded.
    plan = Plan({layer: Scheme.parse("w8")})
    made = quantize(QuantizeJob(model=small, plan=plan, data=images, options=PtqOptions()))
    f = next(x for x in small.found if x.name == layer)
    graph = small.graph
    integers, scales = stored(made, layer)
    spread = [len(scales) if axis == f.place.axis else 1 for axis in range(integers.ndim)]
    held = matrix.rows(graph, f, integers * scales.reshape(spread))
    real = matrix.rows(graph, f, np.asarray(graph.array(f.weights[0])))
    seen = []
    for number, batch in enumerate(images):
        name = graph.name(f.data)
        fed = f.data in graph.inputs
        data = batch[name] if fed else runtime.run(small.interpreter(extra_outputs=[f.data]), batch)[f.data]
        seen.append(matrix.data(graph, f, data, number))
    mean = np.concatenate(seen, axis=1).mean(axis=1)
    other = next(x for x in made.found if x.name == layer)
    before = np.zeros(1) if f.bias < 0 else np.asarray(graph.array(f.bias))
    change = np.asarray(made.graph.array(other.bias)) - before
    # What float32 leaves of sums of some hundred numbers about 1.
    assert np.allclose(change, ((real - held) @ mean[..., None]).reshape(-1), atol=1e-6)
    assert np.abs(change).max() > 1e-5


def test_a_model_that_corrects_biases_is_nearer_to_float(small: LiteModel, images: Any) -> None:
    fit = type(images)(images[:24])
    plain, _ = run(small, "w4d8", fit, **PLAIN)
    made, _ = run(small, "w4d8", fit, **(PLAIN | {"bias_correction": True}))
    assert error_db(small, made, images[24:], "logits_1") > error_db(small, plain, images[24:], "logits_1") + 0.5


def test_ranges_may_follow_what_the_inputs_are(small: LiteModel, images: Any) -> None:
    scales = {
        method: stored(run(small, "w4d8", images, **(PLAIN | {"weights": method}))[0], "down_1")[1]
        for method in ("mse", "hessian")
    }
    assert not np.array_equal(scales["mse"], scales["hessian"])
    assert np.all(scales["hessian"] <= stored(run(small, "w4d8", images, weights="minmax")[0], "down_1")[1] * 1.0001)


def test_the_same_job_gives_the_same_bytes(mlp: LiteModel, features: Any) -> None:
    assert run(mlp, "w4a8", features)[0].content == run(mlp, "w4a8", features)[0].content


def test_the_float_model_stays_as_it_was(mlp: LiteModel, features: Any) -> None:
    before, content = mlp.run(features[0])["output_0"], flat.serialize(mlp.native)
    run(mlp, "w4d8", features)
    assert np.array_equal(mlp.run(features[0])["output_0"], before)
    assert flat.serialize(mlp.native) == content


@pytest.mark.parametrize("layer", LAYERS)
def test_the_rows_that_it_looks_at_make_the_layers_result(small: LiteModel, images: Any, layer: str) -> None:
    graph = small.graph
    f = next(x for x in small.found if x.name == layer)
    weight = np.asarray(graph.array(f.weights[0]))
    if f.data in graph.inputs:
        data = images[0]["image"]
    else:
        interpreter = small.interpreter(extra_outputs=[f.data])
        data = runtime.run(interpreter, images[0])[f.data]
    seen, rows = matrix.data(graph, f, data, most=1 << 20), matrix.rows(graph, f, weight)
    assert np.array_equal(matrix.weight(graph, f, rows), weight)
    bias = 0.0 if f.bias < 0 else np.asarray(graph.array(f.bias))
    results = np.concatenate(list(seen @ rows.swapaxes(-1, -2)), axis=-1)  # (places, groups * out)
    made = np.maximum(results + bias, 0)
    got = small.run(images[0], watch=[layer])[layer]
    assert np.allclose(made.reshape(got.shape), got, atol=1e-5)


def test_it_looks_at_no_more_places_than_it_should(small: LiteModel, images: Any) -> None:
    f = small.found[0]
    for number in range(9):
        assert matrix.data(small.graph, f, images[0]["image"], number, most=100).shape[1] in (85, 86)
