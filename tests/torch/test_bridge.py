"""A float program goes through ONNX where the method asked for takes ONNX."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import onnx

import qm
from qm.catalog import Catalog
from qm.errors import RouteError, Unsupported
from qm.plugin import ExportJob, Plan, QuantizeJob, Scheme
from qm.recipe import Recipe, Stage
from qm.route import find_route
from qm_torch.interchange import export
from qm_torch.ptq import quantize


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32))
    return path


@pytest.fixture
def written(small, tmp_path):
    return onnx.load(str(export(ExportJob(model=small, path=tmp_path / "net.onnx")).path))


def test_onnx_ptq_takes_a_program_by_way_of_float_onnx(saved, data, tmp_path):
    report = qm.quantize(saved, ["onnx.ptq"], data=data, to=tmp_path / "net.onnx")
    assert report.accepted and report.model.format == "torch" and report.artifact.format == "onnx"
    assert "convert    to onnx with torch.onnx, load that with onnx.load" in report.route
    assert report.quality is not None and report.quality.sqnr_db > 25.0


def test_the_way_is_shown_before_anything_is_done(saved, data, tmp_path):
    command = [sys.executable, "-m", "qm", "quantize", str(saved), "-p", "onnx.ptq", "--data", str(data), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "convert    to onnx with torch.onnx" in done.stdout


def test_layers_keep_their_names_on_the_way(small, written):
    names = {node.name for node in written.graph.node}
    assert {layer.name for layer in small.layers()} <= names


def test_inputs_and_outputs_keep_their_names(words, tmp_path):
    made = onnx.load(str(export(ExportJob(model=words, path=tmp_path / "net.onnx")).path))
    assert [value.name for value in made.graph.input] == ["ids"]
    assert [value.name for value in made.graph.output] == ["logits", "hidden"]


def test_the_batch_stays_free(written):
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_no_path_of_this_machine_is_in_the_file(written):
    assert str(Path(__file__).parent).encode() not in written.SerializeToString()


def test_a_quantized_program_is_not_written_as_onnx(small, tmp_path):
    rng = np.random.default_rng(0)
    samples = [{"image": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    plan = Plan({"head": Scheme.parse("w8a8")})
    made = quantize(QuantizeJob(model=small, plan=plan, data=_Listed(samples)))
    with pytest.raises(Unsupported, match="is quantized.*'head'"):
        export(ExportJob(model=made, path=tmp_path / "net.onnx"))


def test_what_writes_float_alone_ends_no_route(saved):
    from qm_torch.plugin import qm_cards

    if not any(card.name == "ptq" for card in qm_cards()):
        pytest.skip("torch.ptq has no card yet")
    recipe = Recipe(stages=(Stage(plugin="torch.ptq"),))
    with pytest.raises(RouteError, match="(?s)torch.onnx writes float models only.*onnx.ptq"):
        find_route(saved, recipe, Catalog(), to=saved.with_suffix(".onnx"), has_data=True)


def test_the_report_keeps_the_size_of_the_original(saved, data, tmp_path):
    qm.quantize(saved, ["onnx.dynamic"], data=data, to=tmp_path / "net.onnx")
    told = json.loads((tmp_path / "net.onnx.report.json").read_text())
    assert told["model"]["nbytes"] == saved.stat().st_size


class _Listed(list):
    labels = None
