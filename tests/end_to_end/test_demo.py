import os
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from qm.report import Report

pytest.importorskip("onnxruntime")

FILES = ("digits.onnx", "digits.npz")
NO_NETWORK = """
import socket

def refuse(*args, **kwargs):
    raise OSError("the demo must not use the network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def demo(*args, **env):
    return subprocess.run(
        [sys.executable, "-m", "qm", "demo", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What the demo printed, cut off from the network, and the folder with what it wrote."""
    barred = tmp_path_factory.mktemp("barred")
    (barred / "sitecustomize.py").write_text(NO_NETWORK)
    folder = tmp_path_factory.mktemp("demo") / "new"
    done = demo("--to", folder, PYTHONPATH=str(barred), COLUMNS="80")
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


@pytest.fixture(scope="module")
def reports(shown):
    return [Report.read(path) for path in sorted(shown[1].glob("*.report.json"))]


def test_three_methods_are_compared_with_the_original_in_one_table(shown):
    rows = {line.split()[0]: line.split() for line in shown[0].splitlines() if line.strip()}
    for method in ("float", "onnx.ptq", "onnx.dynamic", "onnx.fp16"):
        assert rows[method][2] == "kB"


def test_the_table_fits_a_terminal_of_80_columns(shown):
    table = [line for line in shown[0].splitlines() if line.startswith(("float", "onnx."))]
    assert len(table) == 4
    assert max(map(len, table)) <= 80


def test_it_ends_with_the_command_for_a_model_of_ones_own(shown):
    assert shown[0].splitlines()[-1] == "  qm quantize MODEL.onnx -p onnx.ptq --data SAMPLES.npz"


def test_each_result_has_a_report_with_its_accuracy_and_speed(reports):
    assert len(reports) == 3
    for report in reports:
        assert report.accepted
        assert report.quality.accuracy.samples >= 500
        assert report.speed.low <= report.speed.ratio <= report.speed.high


def test_each_result_is_smaller_and_nearly_as_right(reports):
    for report in reports:
        assert report.size.ratio < 0.6
        assert report.quality.accuracy.after >= 0.98


def test_a_second_demo_in_the_same_folder_overwrites_nothing(shown):
    before = {path: path.stat().st_mtime_ns for path in shown[1].iterdir()}
    again = demo("--to", shown[1])
    assert again.returncode == 2
    assert "exists" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in shown[1].iterdir()} == before


def test_without_its_methods_it_writes_nothing(tmp_path):
    result = demo("--to", tmp_path / "new", QM_BLOCK="onnx")
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is no method 'onnx.ptq'")
    assert not (tmp_path / "new").exists()


def test_model_and_samples_take_at_most_300_kilobytes():
    assert sum(len(resources.files("qm.demo").joinpath(name).read_bytes()) for name in FILES) <= 300_000


def test_the_model_is_right_on_98_percent_of_the_images():
    import onnxruntime

    with resources.as_file(resources.files("qm.demo")) as folder:
        samples = np.load(folder / "digits.npz")
        session = onnxruntime.InferenceSession(folder / "digits.onnx", providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"image": samples["x"].astype(np.float32)})
    assert np.mean(logits.argmax(axis=1) == samples["y"]) >= 0.98
