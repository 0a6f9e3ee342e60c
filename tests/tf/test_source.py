"""What a Keras file is, read without TensorFlow."""

from __future__ import annotations

import importlib.metadata
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qm.plugin import Unsupported, UsageError

if "tensorflow" not in importlib.metadata.packages_distributions():
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

import h5py

from qm_tf import source

Archive = Callable[..., Path]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """``archive(config)`` is a .keras file with that configuration and no weights worth the name."""

    def write(config: dict[str, Any], *, version: str = "3.15.1", weights: bool = True) -> Path:
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("config.json", json.dumps(config))
            made.writestr("metadata.json", json.dumps({"keras_version": version}))
            if weights:
                made.writestr("model.weights.h5", b"weights")
        return path

    return write


def functional(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras.src.models.functional", "class_name": "Functional", "config": {"layers": list(layers)}}


def layer(kind: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": kind, "config": {"name": kind.lower(), **config}}


def refused(path: Path) -> Unsupported:
    with pytest.raises(Unsupported) as caught:
        source.check(source.read(path))
    return caught.value


def unread(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        source.read(path)
    return caught.value


def test_a_file_tells_its_generation(models: Path, archive: Archive) -> None:
    assert source.read(models / "keras2.h5").generation == 2
    assert source.read(archive(functional())).generation == 3


def test_the_old_hdf5_is_taken(models: Path) -> None:
    source.check(source.read(models / "keras2.h5"))


def test_an_archive_of_the_other_generation_is_refused_with_a_way_out(models: Path) -> None:
    error = refused(models / "keras2.keras")
    assert "was written by Keras 2.21.0 (tf_keras), whose .keras files Keras 3 does not read" in error.message
    assert 'tf_keras.models.load_model(...).save("model.h5")' in error.hint


def test_content_decides_and_not_the_suffix(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "renamed.keras"
    path.write_bytes((models / "keras2.h5").read_bytes())
    assert source.read(path).container == "h5"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"<html>not found</html>", "is no Keras model: it is text"),
        (b"\x1f\x8b\x08\x00", "is a gzip archive"),
        (b"\x20\x00\x00\x00TFL3", "is a TensorFlow Lite model"),
        (b"\x00\xff\x00\xff", "neither HDF5 nor a .keras archive"),
    ],
)
def test_what_is_no_keras_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "model.h5").write_bytes(content)
    error = unread(tmp_path / "model.h5")
    assert words in error.message
    assert error.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "model.h5' does not exist" in unread(tmp_path / "model.h5").message


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "is a folder" in unread(tmp_path).message


@pytest.mark.parametrize("name", ["keras2.h5", "keras2.keras"])
def test_a_file_cut_short_tells_where(models: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes((models / name).read_bytes()[:9000])
    assert "is damaged or cut short at 9,000 bytes" in unread(tmp_path / name).message


def test_weights_alone_are_no_model(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes((models / "keras2.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        del file.attrs["model_config"]
    error = unread(path)
    assert "holds only the weights of a model" in error.message
    assert "model.save(...), not model.save_weights(...)" in error.hint


def test_an_hdf5_file_of_something_else_is_no_model(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = [1, 2, 3]
    assert "is an HDF5 file that holds no Keras model" in unread(tmp_path / "data.h5").message


def test_a_zip_of_something_else_is_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as made:
        made.writestr("data.pkl", b"")
    assert "is a zip archive that holds no Keras model" in unread(tmp_path / "model.keras").message


def test_an_archive_without_weights_is_refused(archive: Archive) -> None:
    assert "holds no weights" in unread(archive(functional(), weights=False)).message


def test_code_in_a_lambda_layer_is_never_run(archive: Archive) -> None:
    code = layer("Lambda", name="twice", function={"class_name": "__lambda__", "config": {"code": "4wEA"}})
    error = refused(archive(functional(layer("Dense"), code)))
    assert "holds Python code in the Lambda layer 'twice', and code from a file is never run" in error.message
    assert 'model.export("folder")' in error.hint


def test_code_in_an_old_lambda_layer_is_never_run(archive: Archive) -> None:
    code = layer("Lambda", name="twice", function=["4wEA", None, None], function_type="lambda")
    assert "the Lambda layer 'twice'" in refused(archive(functional(code))).message


def test_custom_layers_are_all_named(archive: Archive) -> None:
    own = [{"module": None, "class_name": n, "config": {}, "registered_name": f"Custom>{n}"} for n in ("Gate", "Mix")]
    assert (
        "holds custom objects: Gate, Mix, whose code is not in the file" in refused(archive(functional(*own))).message
    )


def test_a_subclassed_model_is_named(archive: Archive) -> None:
    config = {"module": "train", "class_name": "Net", "config": {}, "registered_name": "Net"}
    assert "holds the subclassed model 'Net'" in refused(archive(config)).message


@pytest.mark.parametrize("kind", ["QuantizeWrapperV2", "Custom>QuantizeLayer"])
def test_a_model_wrapped_for_quantization_is_refused(archive: Archive, kind: str) -> None:
    error = refused(archive(functional(layer(kind))))
    assert "is quantized already" in error.message
    assert "float model" in error.hint


def test_a_model_that_keras_quantized_is_refused(archive: Archive) -> None:
    policy = {"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": "float32"}}
    assert "Keras stores it in int8" in refused(archive(functional(layer("Dense", dtype=policy)))).message


def test_a_pruning_wrapper_comes_with_the_way_to_strip_it(archive: Archive) -> None:
    assert "strip_pruning(model)" in refused(archive(functional(layer("PruneLowMagnitude")))).hint


def test_only_idle_arguments_are_dropped() -> None:
    config = functional(layer("DepthwiseConv2D", groups=1), layer("LSTM", time_major=True))
    made, notes = source.repaired(config)
    assert "groups" not in made["config"]["layers"][0]["config"]
    assert made["config"]["layers"][1]["config"]["time_major"] is True
    assert notes == ["the idle argument 'groups' of DepthwiseConv2D layers was dropped: Keras 3 does not know it"]


def test_mixed_precision_becomes_float32_and_is_said() -> None:
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}
    made, notes = source.repaired(functional(layer("Dense", dtype=policy)))
    assert made["config"]["layers"][0]["config"]["dtype"] == "float32"
    assert "mixed_float16" in notes[0]


def test_the_oldest_form_of_a_sequential_model_is_brought_up_to_date() -> None:
    made, _ = source.repaired({"class_name": "Sequential", "config": [layer("Dense")]})
    assert made["config"] == {"name": "sequential", "layers": [layer("Dense")]}
