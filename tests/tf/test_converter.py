"""TensorFlow's own converter as the engine: what it is asked, what it makes, and what it leaves out."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qm.plugin import LoadJob, Notes, Plan, PluginError, Scheme, Silent, Unsupported, UsageError

if "tensorflow" not in importlib.metadata.packages_distributions():
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

from qm_tf import convert, converter, flat
from qm_tf.model import KerasModel, LiteModel

Quantize = Callable[..., bytes]


class Listed(list[dict[str, Any]]):
    labels = None


def uniform(model: LiteModel, scheme: str) -> Plan:
    return Plan({layer.name: Scheme.parse(scheme) for layer in model.layers()})


def quantize(
    model: LiteModel, plan: Plan, data: Listed | None = None, *, io: str = "float", notes: Any = None
) -> bytes:
    return converter.quantize(model, plan, data, io=io, progress=Silent(), notes=Notes() if notes is None else notes)


@pytest.fixture
def unconverted(small: LiteModel, tmp_path: Path) -> KerasModel:
    """A model whose source is not there: what is refused in time never looks for it."""
    return KerasModel(small.content, source=tmp_path / "none.keras", name="none.keras")


# Refused before the converter is started


def test_a_tflite_file_has_no_source_to_convert(small: LiteModel, images: Listed) -> None:
    with pytest.raises(Unsupported, match="starts from a Keras file or a SavedModel") as caught:
        quantize(small, uniform(small, "w8a8"), images)
    assert "engine=converter" in caught.value.hint


def test_no_calibration_data_is_refused(unconverted: KerasModel) -> None:
    with pytest.raises(UsageError, match="no calibration data was given"):
        quantize(unconverted, uniform(unconverted, "w8a8"))


def test_empty_calibration_data_is_refused(unconverted: KerasModel) -> None:
    with pytest.raises(UsageError, match="the calibration data is empty"):
        quantize(unconverted, uniform(unconverted, "w8a8"), Listed())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_calibration_data_that_is_not_finite_is_refused(unconverted: KerasModel, images: Listed, value: float) -> None:
    images[3]["image"][0, 2, 2, 1] = value
    with pytest.raises(UsageError, match="sample 3 of the calibration data holds NaN or infinity in 'image'"):
        quantize(unconverted, uniform(unconverted, "w8a8"), images)


def test_samples_of_another_shape_are_refused(unconverted: KerasModel) -> None:
    data = Listed([{"image": np.zeros((1, 8, 16, 3), np.float32)}])
    with pytest.raises(UsageError, match=r"sample 0: the input 'image' must have the shape \[1, 16, 16, 3\]"):
        quantize(unconverted, uniform(unconverted, "w8a8"), data)


def test_a_mixed_plan_is_refused(unconverted: KerasModel, images: Listed) -> None:
    plan = Plan(dict(uniform(unconverted, "w8a8").layers) | {"hidden_1": Scheme.parse("w8d8")})
    with pytest.raises(Unsupported, match="quantizes all layers alike, and the plan has "):
        quantize(unconverted, plan, images)


def test_a_layer_left_in_float_is_refused(unconverted: KerasModel, images: Listed) -> None:
    plan = Plan({k: v for k, v in uniform(unconverted, "w8a8").layers.items() if k != "stem_1"})
    with pytest.raises(Unsupported, match="the plan has float for 'stem_1' beside w8a8"):
        quantize(unconverted, plan, images)


@pytest.mark.parametrize("scheme", ["w4a8", "w8", "float"])
def test_a_scheme_that_it_does_not_have_is_refused(unconverted: KerasModel, images: Listed, scheme: str) -> None:
    with pytest.raises(Unsupported, match=f"and the plan asks for {scheme}"):
        quantize(unconverted, uniform(unconverted, scheme), images)


def test_int8_inputs_come_with_w8a8_only(unconverted: KerasModel) -> None:
    with pytest.raises(Unsupported, match="gives int8 inputs and outputs with w8a8 only, not with w8d8"):
        quantize(unconverted, uniform(unconverted, "w8d8"), io="int8")


# By the converter


@pytest.fixture(scope="module")
def old(models: Path, tmp_path_factory: pytest.TempPathFactory) -> KerasModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return convert.load_keras(LoadJob(path=models / "keras2.h5"))


@pytest.fixture(scope="module")
def samples() -> Listed:
    rng = np.random.default_rng(3)
    return Listed({"image": rng.normal(0, 1, (1, 8, 8, 3)).astype(np.float32)} for _ in range(32))


@pytest.fixture(scope="module")
def integers(old: KerasModel, samples: Listed) -> LiteModel:
    return LiteModel(quantize(old, uniform(old, "w8a8"), samples, io="int8"))


def test_every_layer_is_int8_under_its_own_name(old: KerasModel, integers: LiteModel) -> None:
    assert integers.schemes().keys() == {layer.name for layer in old.layers()}
    assert {(s.weight_bits, s.activation_bits) for s in integers.schemes().values()} == {(8, 8)}


def test_inputs_and_outputs_are_int8_where_asked(integers: LiteModel) -> None:
    graph = integers.graph
    assert [(graph.name(t), graph.type(t)) for t in (*graph.inputs, *graph.outputs)] == [
        ("image", "INT8"),
        ("answer", "INT8"),
    ]


def test_it_answers_nearly_as_the_float_model(old: KerasModel, integers: LiteModel, samples: Listed) -> None:
    exact = np.concatenate([old.run(x)["answer"] for x in samples])
    got = np.concatenate([integers.run(x)["answer"] for x in samples])
    sqnr_db = 10 * np.log10((exact**2).sum() / ((exact - got) ** 2).sum())
    assert sqnr_db > 25  # Three layers of 8 bits leave about 35 dB.


def test_what_stays_in_float_is_said(old: KerasModel) -> None:
    notes = Notes()
    made = LiteModel(quantize(old, uniform(old, "w8d8"), notes=notes))
    assert {name: str(s) for name, s in made.schemes().items()} == {
        "conv": "float",
        "depthwise": "float",
        "answer": "w8d8",
    }
    assert notes == [
        "TensorFlow's converter left conv, depthwise in float, whose weights have under 1,024 elements; w8d8 was asked"
    ]


def test_other_layers_than_the_model_has_are_refused(integers: LiteModel, mlp: LiteModel) -> None:
    with pytest.raises(PluginError, match="made other layers of .*: where 'first_1' is a FULLY_CONNECTED") as caught:
        converter.named(flat.parse(integers.content), mlp)
    assert "CONV_2D" in caught.value.message


@pytest.mark.slow
def test_keyword_spotting_keeps_its_accuracy(shared: Path) -> None:
    model = convert.load_saved_model(LoadJob(path=shared / "models" / "kws_saved_model"))
    with np.load(shared / "data" / "kws.npz") as data:
        samples = Listed({"input_1": x[None]} for x in data["x_calib"][:100])
        made = LiteModel(quantize(model, uniform(model, "w8a8"), samples))
        answers = [int(made.run({"input_1": x[None]})["dense"].argmax()) for x in data["x_test"]]
        assert np.mean(answers == data["y_test"]) >= 0.9
    assert made.nbytes() < 54_000
