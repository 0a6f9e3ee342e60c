"""Across frameworks: a planner that knows none of them, and one program beside its ONNX file and its .pte file.

The network is lowered once and compiled once for all tests of this file.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import qm
from qm import clock
from qm.contest import Contest
from qm.plugin import ExportJob, Scheme
from qm_torch.model import TorchModel

pytest.importorskip("executorch.runtime", reason="executorch is not installed")

pytestmark = pytest.mark.slow


class Net(nn.Module):
    """Two layers, the first of which the samples below make hard to compute in integers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return {"logits": self.head(self.first(x).relu())}


@pytest.fixture(scope="module", autouse=True)
def _hurry():
    """One round and few blocks: what is tested here is not how well things are timed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "LEAST_ROUNDS", 1)
        patch.setattr(clock, "LEAST_TIMING_S", 0.0)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The program ``net.pt2`` and labelled samples ``data.npz``."""
    place = tmp_path_factory.mktemp("cross")
    torch.manual_seed(0)
    program = torch.export.export(Net().eval(), (torch.zeros(2, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, place / "net.pt2")
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    x[:, 0] *= 300.0  # One scale for all inputs: a step of it is larger than most values of the others.
    np.savez(place / "data.npz", x=x, y=TorchModel(program, name="net").run({"x": x})["logits"].argmax(1))
    return place


@pytest.fixture(scope="module")
def planned(folder):
    """The report of ``net.pte``, planned by the planner of the toy framework."""
    methods = [("toy.protect", {"count": 1}), "torch.ptq"]
    return qm.quantize(folder / "net.pt2", methods, data=folder / "data.npz", to=folder / "net.pte")


def test_a_planner_of_the_toy_framework_plans_for_pytorch(planned):
    assert [line.split()[0] for line in planned.route[:4]] == ["load", "plan", "quantize", "export"]
    assert planned.plan == {"first": "float", "head": "w8a8"}
    assert qm.load(planned.artifact.path).schemes() == {"first": Scheme(), "head": Scheme.parse("w8a8")}


@pytest.fixture(scope="module")
def contest(folder, planned) -> Contest:
    """The program, its ONNX file and its .pte file, compared."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from qm_torch.interchange import export

    export(ExportJob(model=qm.load(folder / "net.pt2"), path=folder / "net.onnx"))
    names = ("net.pt2", "net.onnx", "net.pte")
    return qm.compare([folder / name for name in names], data=folder / "data.npz", time_s=2.0)


def test_a_program_its_onnx_file_and_its_pte_stand_in_one_table(contest):
    assert contest.exit_code == 0 and contest.first == contest.timed_against == "net.pt2"
    assert [e.latency.runtime.split()[0] for e in contest.entries] == ["AOTInductor", "onnxruntime", "ExecuTorch"]


def test_the_same_model_answers_alike_in_two_frameworks(contest):
    onnx = contest.entries[1]
    # Identical, or sums of floats in another order: about 120 dB.
    assert onnx.quality.sqnr_db is None or onnx.quality.sqnr_db > 100.0


def test_a_pte_and_the_program_it_was_made_from_are_both_run_by_executorch(folder, planned, cli):
    outcome = cli("benchmark", f"{folder / 'net.pte'}", "--baseline", f"{folder / 'net.pt2'}", "--time", "2s", "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    before, after = told["speed"]["before"], told["speed"]["after"]
    assert before["runtime"] == after["runtime"] and after["runtime"].startswith("ExecuTorch")
    assert any("net.pt2 was exported to .pte for this" in note for note in told["notes"])
