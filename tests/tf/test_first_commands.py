"""quantize_model.py and benchmark.py, as the project's first README tells to type them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qm.cli.beside import data_beside, fitting

ROOT = Path(__file__).parents[2]
CLASSES = 10

Done = subprocess.CompletedProcess[str]


def _installed(*names: str) -> bool:
    for name in names:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return True
    return False


needs_tensorflow = pytest.mark.skipif(
    not _installed("tensorflow", "tensorflow-cpu"), reason="TensorFlow is not installed"
)


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def run(folder: Path, script: str, *words: str | Path) -> Done:
    command = [sys.executable, str(ROOT / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def report(artifact: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(artifact.with_name(f"{artifact.name}.report.json").read_text())
    return found


def samples(seed: int, count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.normal(0, 1, (count, 16, 16, 3)).astype(np.float32),
        "y_train": rng.integers(0, CLASSES, count),
        "x_test": rng.normal(0, 1, (count // 2, 16, 16, 3)).astype(np.float32),
        "y_test": rng.integers(0, CLASSES, count // 2),
    }


@pytest.fixture
def place(tmp_path: Path, models: Path) -> Path:
    """A folder with ``models/net.tflite``, in float, and no data."""
    (tmp_path / "models").mkdir()
    shutil.copyfile(models / "small.tflite", tmp_path / "models" / "net.tflite")
    return tmp_path


@pytest.fixture
def with_data(place: Path) -> Path:
    """The same with ``models/net.npz``: 60 samples to make a model with, and 30 to judge it by."""
    np.savez(place / "models" / "net.npz", **samples(3, 60))
    return place


BARE = ("--model", "net.tflite", "--output", "out/of/nowhere/net_quantized.tflite")
QUANTIZE = ("quantize_model.py", "--model", "./models/net.tflite", "--output", "./models/net_quantized.tflite")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, models: Path) -> tuple[Path, Done]:
    """A folder where ``net.tflite`` was quantized without data, and what was said."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copyfile(models / "small.tflite", folder / "net.tflite")
    done = run(folder, "quantize_model.py", *BARE)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_without_data_the_result_is_dynamic_range_and_it_is_said_so(bare: tuple[Path, Done]) -> None:
    folder, done = bare
    assert "dynamic range" in done.stderr
    assert set(report(folder / BARE[-1])["plan"].values()) == {"w8d8"}


def test_the_folder_of_the_output_is_made(bare: tuple[Path, Done]) -> None:
    assert (bare[0] / "out/of/nowhere").is_dir()


def test_the_report_keeps_the_command_that_qm_takes(bare: tuple[Path, Done]) -> None:
    kept = report(bare[0] / BARE[-1])["command"]
    assert kept == "qm quantize net.tflite -p tf.ptq --to out/of/nowhere/net_quantized.tflite"


def test_a_second_run_replaces_what_the_first_wrote_and_says_so(bare: tuple[Path, Done]) -> None:
    done = run(bare[0], "quantize_model.py", *BARE)
    assert done.returncode == 0, done.stderr
    assert f"replaces {BARE[-1]}, which an earlier run wrote" in done.stderr


def test_a_file_that_no_run_wrote_is_kept_unless_it_is_forced(place: Path) -> None:
    precious = place / "models/net_quantized.tflite"
    precious.write_text("precious")
    done = run(place, *QUANTIZE)
    assert done.returncode == 2
    assert "error: 'models/net_quantized.tflite' exists" in done.stderr
    assert precious.read_text() == "precious"
    assert run(place, *QUANTIZE, "--force").returncode == 0
    assert precious.stat().st_size > 1000


def test_the_model_itself_is_never_replaced(place: Path) -> None:
    before = (place / "models/net.tflite").read_bytes()
    done = run(place, *QUANTIZE[:-1], "./models/net.tflite", "--force")
    assert done.returncode == 2
    assert "is the model itself" in done.stderr
    assert (place / "models/net.tflite").read_bytes() == before


@needs_tensorflow
def test_training_without_data_is_an_error_that_says_how_to_give_them(place: Path) -> None:
    done = run(place, *QUANTIZE, "--method", "quantization_aware")
    assert done.returncode == 2
    assert "error: tf.qat needs samples" in done.stderr
    assert "--data" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "models/net_quantized.tflite").exists()


def test_flags_that_the_script_does_not_know_go_to_qm(with_data: Path) -> None:
    done = run(with_data, *QUANTIZE, "--scheme", "w8a16", "-o", "ranges=mse", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["recipe"]["stages"] == [{"plugin": "tf.ptq", "options": {"ranges": "mse"}}]
    assert set(told["plan"].values()) == {"w8a16"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--model", "none.tflite", "--output", "x.tflite"), "model 'none.tflite' does not exist"),
        (("--model", "models/net.tflite", "--output", "x.onnx"), "cannot be written as '.onnx'"),
        (("--model", "models/net.tflite", "--output", "x.tflite", "--method", "magic"), "invalid choice: 'magic'"),
        (("--model", "models/net.tflite", "--output", "x.tflite", "--speed"), "unrecognized arguments: --speed"),
        (("--model", "models/net.tflite", "--output", "x.tflite", "--data", "no.npz"), "'no.npz' does not exist"),
        (("--model", "models/net.tflite"), "--output"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_and_nothing_is_written(
    place: Path, words: tuple[str, ...], text: str
) -> None:
    before = set(place.rglob("*"))
    done = run(place, "quantize_model.py", *words)
    assert done.returncode == 2
    assert text in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert set(place.rglob("*")) == before


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, models: Path) -> tuple[Path, Done]:
    """A folder where ``net.tflite`` was quantized, ``net.npz`` beside it, and what was said."""
    folder = tmp_path_factory.mktemp("quantized")
    shutil.copyfile(models / "small.tflite", folder / "net.tflite")
    np.savez(folder / "net.npz", **samples(3, 60))
    done = run(folder, "quantize_model.py", "--model", "net.tflite", "--output", "net_quantized.tflite")
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def quantized(full: tuple[Path, Done]) -> Path:
    """A folder with ``net.tflite``, ``net.npz`` and ``net_quantized.tflite`` with its report."""
    return full[0]


def test_data_under_the_name_of_the_model_make_it_full_integer(full: tuple[Path, Done]) -> None:
    folder, done = full
    assert "takes the samples in net.npz:x_train,y_train: it has the model's name" in done.stderr
    made = report(folder / "net_quantized.tflite")
    assert set(made["plan"].values()) == {"w8a8"}
    assert made["data"]["count"] == 60


def test_a_benchmark_gives_time_size_and_accuracy_on_the_test_samples_of_the_data_that_made_it(quantized: Path) -> None:
    done = run(quantized, "benchmark.py", "--model", "net_quantized.tflite", "--time", "2")
    assert done.returncode == 0, done.stderr
    assert "takes the samples in net.npz:x_test,y_test: as the report beside the model names it" in done.stderr
    for word in ("size", "latency"):
        assert word in done.stdout
    assert "% of 30 samples" in done.stdout


def test_a_benchmark_of_a_model_without_a_report_takes_the_data_of_its_name(quantized: Path, tmp_path: Path) -> None:
    for name in ("net_quantized.tflite", "net.npz"):
        shutil.copyfile(quantized / name, tmp_path / name)
    done = run(tmp_path, "benchmark.py", "--model", "net_quantized.tflite", "--time", "2")
    assert "takes the samples in net.npz:x_test,y_test: it has the model's name" in done.stderr
    assert "% of 30 samples" in done.stdout


def test_a_benchmark_without_data_says_how_to_give_them(quantized: Path, tmp_path: Path) -> None:
    shutil.copyfile(quantized / "net_quantized.tflite", tmp_path / "net_quantized.tflite")
    done = run(tmp_path, "benchmark.py", "--model", "net_quantized.tflite", "--time", "2")
    assert done.returncode == 0
    assert "could not measure accuracy: it has no samples; give some with labels, --data" in done.stderr


def test_a_benchmark_against_a_baseline_compares_the_two(quantized: Path) -> None:
    words = ("benchmark.py", "--model", "net_quantized.tflite", "--baseline", "net.tflite", "--time", "4")
    done = run(quantized, *words, "--data", "net.npz")
    assert done.returncode == 0, done.stderr
    assert "against net.tflite" in done.stdout
    assert "McNemar" in done.stdout


def test_a_benchmark_of_a_missing_model_is_a_usage_error(tmp_path: Path) -> None:
    done = run(tmp_path, "benchmark.py", "--model", "none.tflite")
    assert done.returncode == 2
    assert "error: model 'none.tflite' does not exist" in done.stderr
    assert "could not measure" not in done.stderr


def keras_model(place: Path) -> None:
    """Write ``place``, in a process of its own: TensorFlow is not imported here."""
    code = (
        "import sys, keras\n"
        "from keras.layers import BatchNormalization, Conv2D, Dense, Flatten, ReLU\n"
        "keras.utils.set_random_seed(1)\n"
        "net = keras.Sequential([keras.Input((16, 16, 3)), Conv2D(16, 3), BatchNormalization(), ReLU(),\n"
        "    Conv2D(32, 3, strides=2, activation='relu'), Flatten(), Dense(10, activation='softmax')])\n"
        "net.save(sys.argv[1])\n"
    )
    env = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", code, str(place)], check=True, capture_output=True, env=env)


@pytest.fixture(scope="module")
def keras_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model.h5``, ``models/mnist.h5`` and ``models/cifar10.h5``, data beside the latter two."""
    folder = tmp_path_factory.mktemp("keras")
    (folder / "models").mkdir()
    keras_model(folder / "model.h5")
    for name in ("mnist", "cifar10"):
        shutil.copyfile(folder / "model.h5", folder / f"models/{name}.h5")
        np.savez(folder / f"models/{name}.npz", **samples(5, 120))
    return folder


@needs_tensorflow
def test_the_first_command_and_a_benchmark_of_what_it_made(keras_folder: Path) -> None:
    words = "--model ./models/mnist.h5 --output ./models/mnist_quantized.tflite --method post_training"
    done = run(keras_folder, "quantize_model.py", *words.split())
    assert done.returncode == 0, done.stderr
    made = report(keras_folder / "models/mnist_quantized.tflite")
    assert set(made["schemes"].values()) == {"w8a8"}
    words = "--model ./models/mnist_quantized.tflite --baseline ./models/mnist.h5 --time 4"
    done = run(keras_folder, "benchmark.py", *words.split())
    assert done.returncode == 0, done.stderr
    assert "of 60 samples" in done.stdout


@needs_tensorflow
def test_the_second_command_trains(keras_folder: Path) -> None:
    words = "--model ./models/cifar10.h5 --output ./models/cifar10_quant_aware.tflite --method quantization_aware"
    done = run(keras_folder, "quantize_model.py", *words.split(), "-o", "epochs=1")
    assert done.returncode == 0, done.stderr
    assert "takes the samples in models/cifar10.npz:x_train,y_train" in done.stderr
    made = report(keras_folder / "models/cifar10_quant_aware.tflite")
    assert set(made["schemes"].values()) == {"w8a8"}
    assert made["recipe"]["stages"] == [{"plugin": "tf.qat", "options": {"epochs": "1"}}]


@needs_tensorflow
def test_the_third_command_needs_neither_method_nor_data(keras_folder: Path) -> None:
    words = "--model model.h5 --output quantized_model.tflite"
    done = run(keras_folder, "quantize_model.py", *words.split())
    assert done.returncode == 0, done.stderr
    assert "dynamic range" in done.stderr
    assert set(report(keras_folder / "quantized_model.tflite")["schemes"].values()) <= {"w8d8", "w8"}


@needs_tensorflow
@pytest.mark.slow
def test_the_mnist_example_keeps_its_accuracy_in_a_quarter_of_the_size(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/mnist.npz"
    done = run(tmp_path, "examples/mnist/train.py", "--epochs", "1", "--from", source)
    assert done.returncode == 0, done.stderr
    words = "--model ./models/mnist.h5 --output ./models/mnist_quantized.tflite --method post_training"
    done = run(tmp_path, "quantize_model.py", *words.split())
    assert done.returncode == 0, done.stderr
    size = report(tmp_path / "models/mnist_quantized.tflite")["size"]
    assert size["before"] > 3.5 * size["after"]
    words = "--model ./models/mnist_quantized.tflite --baseline ./models/mnist.h5 --time 3 --json"
    accuracy = json.loads(run(tmp_path, "benchmark.py", *words.split()).stdout)["quality"]["accuracy"]
    assert accuracy["samples"] == 10_000
    assert accuracy["before"] > 0.97
    assert accuracy["after"] == pytest.approx(accuracy["before"], abs=0.002)


def test_the_cifar10_example_takes_its_files_from_a_folder_or_says_which_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "from"
    for name in ("models/resnet8_cifar10.h5", "data/cifar10.npz"):
        done = run(tmp_path, "examples/cifar10/fetch.py", "--from", folder)
        assert done.returncode == 1
        assert f"error: there is no {str(folder / name)!r}" in done.stderr
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(name)
    assert run(tmp_path, "examples/cifar10/fetch.py", "--from", folder).returncode == 0
    assert (tmp_path / "models/cifar10.h5").read_text() == "models/resnet8_cifar10.h5"
    assert (tmp_path / "models/cifar10.npz").read_text() == "data/cifar10.npz"


@pytest.mark.parametrize("name", ["a.h5", "a_quantized.tflite", "a.int8.tflite", "a-small.keras"])
def test_data_go_with_a_model_that_begins_with_their_name(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3)))
    found = data_beside(tmp_path / name, "make")
    assert found is not None
    assert found.data == str(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["ab.h5", "b_a.tflite"])
def test_data_do_not_go_with_a_model_of_another_name(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3)))
    assert data_beside(tmp_path / name, "make") is None


def test_of_two_names_that_fit_the_longer_one_counts(tmp_path: Path) -> None:
    for name in ("a", "a_b"):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((2, 3)))
    found = data_beside(tmp_path / "a_b_quantized.tflite", "judge")
    assert found is not None
    assert found.data == str(tmp_path / "a_b.npz")


@pytest.mark.parametrize(
    ("arrays", "make", "judge"),
    [
        (("x_train", "y_train", "x_test", "y_test"), ":x_train,y_train", ":x_test,y_test"),
        (("x_calib", "y_calib", "x_test", "y_test"), ":x_calib,y_calib", ":x_test,y_test"),
        (("x_train", "x_test"), ":x_train", ":x_test"),
        (("image", "labels"), "", ""),
    ],
)
def test_training_samples_make_and_test_samples_judge(
    tmp_path: Path, arrays: tuple[str, ...], make: str, judge: str
) -> None:
    place = tmp_path / "d.npz"
    np.savez(place, **{name: np.zeros(4) for name in arrays})
    assert fitting(str(place), "make") == f"{place}{make}"
    assert fitting(str(place), "judge") == f"{place}{judge}"


def test_a_choice_of_arrays_that_was_given_stands(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **samples(1, 4))
    assert fitting(f"{tmp_path / 'd.npz'}:x_test", "make") == f"{tmp_path / 'd.npz'}:x_test"
