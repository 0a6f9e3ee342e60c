"""Keras files and SavedModels as float .tflite models: by the real converter, beside Keras' own answers."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from qm.plugin import LoadJob, PluginError, Unsupported, UsageError

if "tensorflow" not in importlib.metadata.packages_distributions():
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

from qm_tf import cache, convert, flat
from qm_tf.model import KerasModel, LiteModel, SavedModel

Told = dict[str, dict[str, Any]]

TRIAL = Path(__file__).parent / "models" / "trial.py"
"""Writes models of many kinds and converts each, all in one process, so that TensorFlow starts once."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="module")
def told(place: Path) -> Told:
    """What came of each model by its name."""
    done = subprocess.run([sys.executable, TRIAL, place], capture_output=True, text=True, check=False)
    assert (place / "told.json").is_file(), done.stderr[-2000:]
    found: Told = json.loads((place / "told.json").read_text())
    return found


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def old(models: Path, _own_cache: None) -> KerasModel:
    return convert.load_keras(LoadJob(path=models / "keras2.h5"))


# A file of the old Keras, by the whole way


def test_a_file_of_the_old_keras_keeps_its_names(old: KerasModel, models: Path) -> None:
    assert [layer.name for layer in old.layers()] == ["conv", "depthwise", "answer"]
    assert [str(spec) for spec in (*old.inputs(), *old.outputs())] == [
        "image float32 [1, 8, 8, 3]",
        "answer float32 [1, 32]",
    ]
    assert old.source == models / "keras2.h5"


def test_a_repair_is_noted(old: KerasModel) -> None:
    assert any("'groups' of DepthwiseConv2D layers was dropped" in note for note in old.notes)


def test_the_second_load_comes_from_the_cache(old: KerasModel, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")  # Nothing could be converted now.
    again = convert.load_keras(LoadJob(path=models / "keras2.h5"))
    assert (again.content, again.notes) == (old.content, old.notes)


def test_the_same_content_under_another_name_is_not_converted_again(
    old: KerasModel, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    (tmp_path / "copy.h5").write_bytes((models / "keras2.h5").read_bytes())
    again = convert.load_keras(LoadJob(path=tmp_path / "copy.h5"))
    assert again.content == old.content
    assert again.source == tmp_path / "copy.h5"


# A SavedModel, by the whole way


def test_a_saved_model_gets_the_names_of_its_signature(told: Told, place: Path) -> None:
    model = convert.load_saved_model(LoadJob(path=place / "exported"))
    assert isinstance(model, SavedModel)
    assert [str(s) for s in model.inputs()] == ["image float32 [1, 8, 8, 3]"]
    assert [layer.name for layer in model.layers()] == ["conv", "depthwise", "answer"]
    assert told["exported"]["difference"] < 1e-5


# What TensorFlow and Keras do with models of many kinds


@pytest.mark.parametrize("name", ["plain", "plain_h5", "mixed", "lists", "dicts", "free", "recurrent", "nested"])
def test_a_converted_model_is_finite_and_answers_as_keras_does(told: Told, name: str) -> None:
    # Float arithmetic in another order; the answers are of size 1.
    assert told[name]["difference"] < 1e-5


def test_inputs_and_outputs_keep_the_order_and_names_of_keras(told: Told) -> None:
    assert told["lists"]["inputs"] == ["right float32 [1, 8]", "left float32 [1, 4]"]
    assert told["lists"]["outputs"] == ["second float32 [1, 2]", "first float32 [1, 3]"]


def test_outputs_in_a_dict_are_named_by_its_keys(told: Told) -> None:
    assert told["dicts"]["outputs"] == ["one float32 [1, 3]", "two float32 [1, 2]"]


def test_free_lengths_stay_free(told: Told) -> None:
    assert told["free"]["inputs"] == ["image float32 [1, ?, ?, 3]"]


def test_mixed_precision_is_converted_in_float32(told: Told) -> None:
    assert "mixed_float16" in told["mixed"]["notes"][0]


def test_weights_inside_loops_are_told(told: Told) -> None:
    assert "stand inside loops" in told["recurrent"]["notes"][0]


def test_layers_of_a_model_in_a_model_have_its_path(told: Told) -> None:
    assert told["nested"]["layers"] == ["inner/deep", "answer"]


def test_a_saved_model_that_cannot_be_restored_whole_is_converted_from_its_graph(told: Told) -> None:
    assert told["first_tensorflow"]["outputs"] == ["answer float32 [1, 3]"]
    assert told["first_tensorflow"]["difference"] < 1e-5


def test_the_only_signature_is_taken(told: Told) -> None:
    assert told["only"]["inputs"] == ["x float32 [1, 4]"]


def test_a_model_that_answers_at_random_is_said_to(told: Told) -> None:
    assert told["random"]["notes"] == ["the model answers at random: its conversion was not compared with TensorFlow"]


@pytest.mark.parametrize(
    ("name", "kind", "words", "way_out"),
    [
        ("inverse", "Unsupported", "LiteRT has no operation for TensorFlow's MatrixInverse", "Take it out"),
        ("custom_h5", "Unsupported", "holds custom objects: Triple, whose code is not in the file", "export"),
        ("function", "Unsupported", "holds custom objects: square, whose code is not in the file", "export"),
        ("unbuilt", "UsageError", "does not tell the shapes of its inputs", "keras.Input"),
        ("text", "Unsupported", "the input 'words' of ", "without its text preprocessing"),
        ("broken_weights", "UsageError", "lack 'conv': the file is damaged", "Download it"),
        ("identity", "UsageError", "has no operations", "computes something"),
        ("fake_quantized", "Unsupported", "is quantized already", "float model"),
        ("several", "UsageError", "no signature 'serving_default' to convert: there are a, b", "Save it with"),
        ("no_signature", "UsageError", "has no signature 'serving_default' to convert", "Save it with"),
        ("no_variables", "UsageError", "does not load ", "its folder 'variables' beside"),
        ("cut", "UsageError", "saved_model.pb' is damaged", "Download it"),
        ("free_loop", "Unsupported", "has a recurrent layer whose batch is free", "a batch of 1"),
    ],
)
def test_a_refusal_is_one_sentence_with_a_way_out(told: Told, name: str, kind: str, words: str, way_out: str) -> None:
    assert told[name]["kind"] == kind
    assert words in told[name]["message"]
    assert "\n" not in told[name]["message"] and len(told[name]["message"]) < 500
    assert way_out in told[name]["hint"]


# Refused before anything is started


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no saved_model.pb"),
        ({"checkpoint": b"x", "x.index": b"x"}, "is a checkpoint: it holds only the weights"),
        ({"saved_model.pb": b""}, "saved_model.pb' is empty"),
    ],
)
def test_a_folder_that_is_no_saved_model_is_told_apart(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        convert.load_saved_model(LoadJob(path=tmp_path))


def test_a_file_or_nothing_is_no_saved_model(tmp_path: Path, models: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        convert.load_saved_model(LoadJob(path=tmp_path / "none"))
    with pytest.raises(UsageError, match="is a file, not a SavedModel folder"):
        convert.load_saved_model(LoadJob(path=models / "keras2.h5"))


# What a conversion may not be


def with_custom(model: LiteModel, name: str) -> LiteModel:
    native = flat.parse(model.content)
    code = native.operatorCodes[native.subgraphs[0].operators[-1].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = name.encode()
    return LiteModel(flat.serialize(native), name="made")


def test_select_operations_are_refused_by_name(small: LiteModel) -> None:
    with pytest.raises(Unsupported, match=r"needs TensorFlow's own Inv \(SELECT_TF_OPS\), which LiteRT does not run"):
        convert.check(with_custom(small, "FlexInv"))


def test_custom_operations_are_refused_by_name(small: LiteModel) -> None:
    with pytest.raises(Unsupported, match="needs custom Mine, which LiteRT does not run"):
        convert.check(with_custom(small, "Mine"))


def probe(model: LiteModel, **changed: float) -> dict[str, np.ndarray]:
    image = np.ones((1, 16, 16, 3), np.float32)
    answer = next(iter(model.run({"image": image}).values()))
    return {"i000": image, "o000": answer * changed.get("times", 1.0) + changed.get("plus", 0.0)}


def test_a_conversion_that_answers_alike_is_taken(small: LiteModel) -> None:
    assert convert.compared(small, probe(small), repeatable=True) == ""


def test_a_conversion_that_answers_otherwise_is_refused(small: LiteModel) -> None:
    with pytest.raises(PluginError, match="answers differently once converted: by 0.01 of its largest output"):
        convert.compared(small, probe(small, times=1 / 1.01), repeatable=True)


def test_a_conversion_that_gives_nan_is_refused(small: LiteModel) -> None:
    native = flat.parse(small.content)
    kernel = native.subgraphs[0].tensors[small.found[-1].weights[0]]
    flat.store(native, kernel, np.full(flat.shape(kernel), np.nan, np.float32))
    spoilt = LiteModel(flat.serialize(native), name="spoilt")
    with pytest.raises(PluginError, match="'spoilt' gives NaN or infinity once converted"):
        convert.compared(spoilt, probe(small), repeatable=True)


def test_a_model_that_gave_nan_before_is_said_to(small: LiteModel) -> None:
    assert "not finite on made-up inputs, before conversion too" in convert.compared(
        small, probe(small, plus=np.nan), repeatable=True
    )


def test_the_parent_imports_no_tensorflow() -> None:
    code = "import sys, qm_tf.convert, qm_tf.converter; print({'keras', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# The cache


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QM_CACHE", str(tmp_path))
    return tmp_path / "tf"


def test_an_entry_comes_back_whole(kept: Path) -> None:
    entry = cache.Entry(content=b"a\nb\x00", notes=("said",))
    cache.put("k", entry)
    assert cache.get("k") == entry
    assert cache.get("other") is None


@pytest.mark.parametrize("damage", [b"", b"{}\nx", b"no json\n", b'{"sha256": "0", "notes": []}\ncontent'])
def test_a_damaged_entry_is_none(kept: Path, damage: bytes) -> None:
    cache.put("k", cache.Entry(content=b"content"))
    next(kept.iterdir()).write_bytes(damage)
    assert cache.get("k") is None


def test_a_cut_entry_is_none(kept: Path) -> None:
    cache.put("k", cache.Entry(content=b"content" * 100))
    file = next(kept.iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    assert cache.get("k") is None


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("QM_CACHE", str(tmp_path / "file"))
    cache.put("k", cache.Entry(content=b"content"))
    assert cache.get("k") is None


def test_what_was_used_longest_ago_goes_first(kept: Path) -> None:
    for name in ("a", "b"):
        cache.put(name, cache.Entry(content=bytes(1000)))
    assert cache.get("a") is not None  # Used again: "b" is the older now.
    cache.put("c", cache.Entry(content=bytes(1000)), largest=2500)
    assert [cache.get(name) is not None for name in ("a", "b", "c")] == [True, False, True]


def test_the_newest_entry_stays_however_large(kept: Path) -> None:
    cache.put("k", cache.Entry(content=bytes(1000)), largest=10)
    assert cache.get("k") is not None


# Real models


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet8_cifar10.h5", ["conv2d", *(f"conv2d_{n}" for n in range(1, 9)), "dense"]),
        ("ad01.h5", ["dense", *(f"dense_{n}" for n in range(1, 10))]),
    ],
)
@pytest.mark.slow
def test_real_keras_models_have_the_layers_that_keras_names(shared: Path, name: str, layers: list[str]) -> None:
    model = convert.load_keras(LoadJob(path=shared / "models" / name))
    assert [layer.name for layer in model.layers()] == layers


@pytest.mark.slow
def test_a_saved_model_with_an_old_optimizer_is_loaded(shared: Path) -> None:
    model = convert.load_saved_model(LoadJob(path=shared / "models" / "kws_saved_model"))
    assert [str(s) for s in (*model.inputs(), *model.outputs())] == [
        "input_1 float32 [1, 49, 10, 1]",
        "dense float32 [1, 12]",
    ]
    assert len(model.layers()) == 10
