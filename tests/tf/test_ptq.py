"""Post-training quantization by tf.ptq."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qm.numerics import sqnr_db
from qm.plugin import Array, Notes, Plan, PluginError, QuantizeJob, Scheme, Unsupported, UsageError
from qm_tf import ptq, runtime
from qm_tf.model import LiteModel
from qm_tf.option import PtqOptions
from qm_tf.ptq import quantize

Data = Sequence[dict[str, Array]]
LAYERS = ("stem_1", "depthwise_1", "pointwise_1", "down_1", "hidden_1", "logits_1")


class Listed(list[dict[str, Array]]):
    labels = None


def planned(model: LiteModel, schemes: str | dict[str, str]) -> Plan:
    texts = dict.fromkeys((x.name for x in model.layers()), schemes) if isinstance(schemes, str) else schemes
    return Plan({name: Scheme.parse(text) for name, text in texts.items()})


def run(model: LiteModel, schemes: str | dict[str, str], data: Any = None, **options: Any) -> tuple[LiteModel, Notes]:
    job = QuantizeJob(model=model, plan=planned(model, schemes), data=data, options=PtqOptions(**options))
    return quantize(job), job.notes


def error_db(model: LiteModel, made: LiteModel, data: Data) -> float:
    """Of the logits: after a softmax of an untrained model all look alike."""
    rows = [(model.run(b, watch=["logits_1"]), made.run(b, watch=["logits_1"])) for b in data]
    return sqnr_db(np.stack([a["logits_1"] for a, _ in rows]), np.stack([b["logits_1"] for _, b in rows]))


def texts(model: LiteModel) -> dict[str, str]:
    return {name: str(scheme) for name, scheme in model.schemes().items()}


def kinds(model: LiteModel) -> list[str]:
    return [op.kind for op in model.graph.ops]


@pytest.mark.parametrize(
    ("scheme", "least_db"), [("w8a8", 25), ("w8a16", 35), ("w8d8", 25), ("w8", 35), ("f16", 55), ("w4a8", 10)]
)
def test_a_scheme_for_all_layers_is_what_each_is_in(
    small: LiteModel, images: Data, scheme: str, least_db: float
) -> None:
    made, _ = run(small, scheme, images)
    asked = dict.fromkeys(LAYERS, scheme) | ({"depthwise_1": "w8a8"} if scheme == "w4a8" else {})
    assert texts(made) == asked
    assert error_db(small, made, images) > least_db


def test_4_8_and_16_bits_and_float_live_in_one_file(small: LiteModel, images: Data) -> None:
    plan = dict(zip(LAYERS, ("w8a16", "w8a8", "w4a8", "w8d8", "float", "f16"), strict=True))
    made, _ = run(small, plan, images)
    assert texts(made) == plan
    assert error_db(small, made, images) > 10


def test_dynamic_and_weight_only_layers_of_4_bits_too(small: LiteModel) -> None:
    plan = dict(zip(LAYERS, ("w8d8", "w8", "w4d8", "w4", "w4d8", "float"), strict=True))
    assert texts(run(small, plan)[0]) == plan


def test_all_between_integer_layers_is_in_integers(small: LiteModel, images: Data) -> None:
    made, _ = run(small, "w8a8", images)
    # The softmax at the end gives floats in any case.
    assert kinds(made) == ["QUANTIZE", *kinds(small)[:-1], "DEQUANTIZE", "SOFTMAX"]


def test_with_int8_borders_all_is_in_integers(small: LiteModel, images: Data) -> None:
    made, _ = run(small, "w8a8", images, io="int8")
    assert kinds(made) == kinds(small)
    assert {made.graph.type(t) for t in (*made.graph.inputs, *made.graph.outputs)} == {"INT8"}
    assert made.outputs() == small.outputs()
    assert error_db(small, made, images) > 25


def test_inputs_and_outputs_keep_their_names(small: LiteModel, images: Data) -> None:
    made, _ = run(small, "w8a8", images)
    assert (made.inputs(), made.outputs()) == (small.inputs(), small.outputs())


def test_the_same_job_gives_the_same_bytes(small: LiteModel, images: Data) -> None:
    first, _ = run(small, "w8a8", images)
    assert run(small, "w8a8", images)[0].content == first.content


def test_a_layer_left_out_of_the_plan_stays_in_float(small: LiteModel, images: Data) -> None:
    made, _ = run(small, {"down_1": "w8a8"}, images)
    assert texts(made) == dict.fromkeys(LAYERS, "float") | {"down_1": "w8a8"}


def test_an_empty_plan_changes_nothing(small: LiteModel) -> None:
    assert run(small, {})[0].content == small.content


def test_what_a_layer_has_no_kernel_for_is_replaced_and_said(small: LiteModel) -> None:
    made, notes = run(small, "w4d8")
    assert texts(made)["depthwise_1"] == "w8d8"
    assert "LiteRT has no kernel for DEPTHWISE_CONV_2D in w4d8: w8d8 instead for depthwise_1" in notes


def test_and_said_where_the_plan_holds_the_replacement_already(small: LiteModel) -> None:
    _, notes = run(small, dict.fromkeys(LAYERS, "w4d8") | {"depthwise_1": "w8d8"})
    assert "LiteRT has no kernel for DEPTHWISE_CONV_2D in w4d8: w8d8 instead for depthwise_1" in notes


def test_a_table_gets_8_bit_weights_in_a_static_plan(loaded: Callable[[str], LiteModel]) -> None:
    words = loaded("words")
    data = Listed({"ids": np.arange(i, i + 12, dtype=np.int32)[None]} for i in range(20))
    made, notes = run(words, "w8a8", data)
    assert texts(made) == {"table_1": "w8", "answer_1": "w8a8"}
    assert any("w8 instead for table_1" in note for note in notes)
    got, reference = (np.stack([m.run(b)["output_0"] for b in data]) for m in (made, words))
    assert sqnr_db(reference, got) > 30


def test_integer_inputs_stay_integers_with_int8_borders(loaded: Callable[[str], LiteModel]) -> None:
    data = Listed({"ids": np.arange(i, i + 12, dtype=np.int32)[None]} for i in range(20))
    made, _ = run(loaded("words"), "w8a8", data, io="int8")
    assert made.graph.type(made.graph.inputs[0]) == "INT32"


@pytest.mark.parametrize("method", ["minmax", "mse", "octav"])
def test_a_method_for_weights_is_obeyed_at_4_bits(small: LiteModel, method: str) -> None:
    made, _ = run(small, "w4d8", weights=method)
    for f in made.found:
        if f.kind == "CONV_2D":
            values = next(x for x in small.found if x.name == f.name)
            widest = np.abs(np.asarray(small.graph.array(values.weights[0]))).max(axis=(1, 2, 3))
            covered = np.asarray(made.graph.tensor(f.weights[0]).quantization.scale) * 7
            assert np.allclose(covered, widest, rtol=1e-5) == (method == "minmax")


def test_weights_of_4_bits_have_least_squares_ranges_where_nothing_is_said(small: LiteModel) -> None:
    made, notes = run(small, "w4d8")
    assert made.content == run(small, "w4d8", weights="mse")[0].content
    assert "weights of 4 bits have the ranges of least squared error (-o weights=mse)" in notes


def test_weights_of_8_bits_have_the_range_of_their_values(small: LiteModel) -> None:
    assert run(small, "w8d8")[0].content == run(small, "w8d8", weights="minmax")[0].content


def test_a_layer_that_was_passed_over_in_silence_is_caught(small: LiteModel) -> None:
    made, _ = run(small, dict.fromkeys(LAYERS, "w8d8") | {"down_1": "float"})
    with pytest.raises(PluginError, match="layer 'down_1' was to be w8d8 and is float in the quantized model"):
        ptq.verify(made.content, planned(small, "w8d8"))


def test_a_layer_quantized_against_the_plan_is_caught(small: LiteModel) -> None:
    made, _ = run(small, "w8d8")
    with pytest.raises(PluginError, match="layer 'stem_1' was to be float and is w8d8"):
        ptq.verify(made.content, planned(small, dict.fromkeys(LAYERS, "w8d8") | {"stem_1": "float"}))


def test_a_quantized_model_is_refused(small: LiteModel, images: Data) -> None:
    made, _ = run(small, "w8d8")
    with pytest.raises(UsageError, match="is quantized already: its layer 'stem_1' is w8d8") as caught:
        run(made, "w8a8", images)
    assert caught.value.hint == "Quantize the float model that it was made from."


def test_2_bits_are_refused(small: LiteModel) -> None:
    with pytest.raises(Unsupported, match="tf.ptq has no scheme 'w2d8'"):
        run(small, "w2d8")


def test_static_schemes_without_samples_are_refused(small: LiteModel) -> None:
    with pytest.raises(UsageError, match="needs samples to calibrate for a scheme with static activations"):
        run(small, "w8a8")


def test_int8_borders_without_samples_are_refused(small: LiteModel) -> None:
    with pytest.raises(UsageError, match="needs samples to calibrate for io=int8"):
        run(small, "w8d8", io="int8")


@pytest.mark.parametrize("option", [{"ranges": "mse"}, {"weights": "octav"}])
def test_an_option_that_the_converter_has_not_is_an_error(small: LiteModel, option: dict[str, str]) -> None:
    ((name, value),) = option.items()
    with pytest.raises(UsageError, match=f"engine=converter has no {name}={value}"):
        run(small, "w8d8", engine="converter", **option)


def test_the_best_engine_is_the_one_that_can_where_the_other_cannot(small: LiteModel, images: Data) -> None:
    made, notes = run(small, "w8a8", images, engine="best")
    assert made.content == run(small, "w8a8", images)[0].content
    assert any("engine=best is ai-edge-quantizer here: TensorFlow's converter" in note for note in notes)


def test_what_calibration_saw_is_told(small: LiteModel, images: Any) -> None:
    job = QuantizeJob(model=small, plan=planned(small, "w8a8"), data=images)
    quantize(job)
    assert {a.tensor for a in job.activations} >= {"image", "stem_1", "sum_1", "logits_1"}
    assert all(a.bits == 8 and a.low <= 0 <= a.high and a.sqnr_db > 20 for a in job.activations)


def test_exact_kernels_agree_with_the_fast_ones(small: LiteModel, images: Data) -> None:
    made, _ = run(small, "w8a8", images)
    interpreter = runtime.opened(made.content, "plain", xnnpack=False)
    plain = np.stack([next(iter(runtime.run(interpreter, b).values())) for b in images])
    fast = np.stack([made.run(b)["output_0"] for b in images])
    # They may round a sum differently by one step of an 8-bit integer.
    assert sqnr_db(fast, plain) > 40


def test_a_tflite_is_quantized_without_tensorflow(models: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        import numpy as np
        from qm.plugin import LoadJob, Plan, QuantizeJob, Scheme
        from qm_tf.load import load
        from qm_tf.ptq import quantize
        class Listed(list):
            labels = None
        model = load(LoadJob(path=Path(sys.argv[1])))
        data = Listed({"features": np.ones((1, 40), np.float32) * i} for i in range(4))
        plan = Plan({x.name: Scheme.parse("w8a8") for x in model.layers()})
        made = quantize(QuantizeJob(model=model, plan=plan, data=data))
        assert {str(s) for s in made.schemes().values()} == {"w8a8"}
        assert not {"tensorflow", "keras"} & set(sys.modules), "TensorFlow was imported"
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(models / "mlp.tflite")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
