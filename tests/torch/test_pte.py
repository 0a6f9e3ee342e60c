"""Programs for ExecuTorch: lowered once for all tests of this file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("executorch.runtime", reason="executorch is not installed")

import torch
from torch import nn

from qm.plugin import Artifact, BenchmarkJob, ExportJob, LoadJob, Plan, QuantizeJob, Scheme, Unsupported, UsageError
from qm_torch import ptq, weights
from qm_torch.compiled import load_pte
from qm_torch.lower import export
from qm_torch.model import TorchModel
from qm_torch.pte import open_session


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3)
        self.body = nn.Conv2d(32, 64, 3)
        self.head = nn.Linear(64, 4)

    def forward(self, image):
        hidden = self.body(self.stem(image).relu()).relu().mean((2, 3))
        return {"logits": self.head(hidden)}


class Listed(list):
    labels = None


def samples(count):
    rng = np.random.default_rng(3)
    return Listed({"image": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(count))


@pytest.fixture(scope="module")
def net() -> TorchModel:
    torch.manual_seed(0)
    batch = {0: torch.export.Dim("batch", max=8)}
    program = torch.export.export(Net().eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=(batch,))
    return TorchModel(program, name="net")


@pytest.fixture(scope="module")
def quantized(net) -> TorchModel:
    plan = Plan(dict.fromkeys(("stem", "body", "head"), Scheme.parse("w8a8")))
    return ptq.quantize(QuantizeJob(model=net, plan=plan, data=samples(8)))


@pytest.fixture(scope="module")
def lowered(quantized, tmp_path_factory) -> Path:
    return export(ExportJob(model=quantized, path=tmp_path_factory.mktemp("pte") / "net.pte")).path


@pytest.fixture
def opened(lowered):
    return open_session(BenchmarkJob(artifact=Artifact(path=lowered, format="pte"), threads=1))


def test_the_file_answers_as_the_program_does(quantized, opened):
    for batch in samples(4):
        before, after = quantized.run(batch), opened.run(batch)
        assert list(after) == ["logits"]
        # XNNPACK rounds each layer's result to eight bits too, which the program does not.
        np.testing.assert_allclose(after["logits"], before["logits"], atol=0.02)


def test_the_weights_are_integers_in_the_file(net, lowered):
    assert lowered.stat().st_size < 0.6 * net.nbytes()


def test_the_file_tells_its_schemes_and_layers(quantized, lowered):
    told = load_pte(LoadJob(path=lowered))
    assert told.schemes() == dict.fromkeys(("stem", "body", "head"), Scheme.parse("w8a8"))
    assert list(told.layers()) == list(quantized.layers())


def test_any_batch_within_the_limits_runs(opened):
    assert opened.run({"image": np.zeros((8, 3, 8, 8), np.float32)})["logits"].shape == (8, 4)


@pytest.mark.parametrize("shape", [(9, 3, 8, 8), (1, 3, 8, 9)])
def test_a_wrong_shape_is_a_sentence(opened, shape):
    with pytest.raises(UsageError, match=r"takes float32 \[1 to 8, 3, 8, 8\]"):
        opened.run({"image": np.zeros(shape, np.float32)})


def test_results_are_the_callers_own(opened):
    first = opened.run(samples(1)[0])["logits"]
    kept = first.copy()
    opened.run({"image": np.ones((1, 3, 8, 8), np.float32)})
    assert np.array_equal(first, kept)


def test_threads_cannot_change_under_a_file_that_is_open(lowered, opened):
    with pytest.raises(Unsupported, match="cannot be opened with 2 threads while another .pte file is open with 1"):
        open_session(BenchmarkJob(artifact=Artifact(path=lowered, format="pte"), threads=2))
    assert opened.run(samples(1)[0])


def test_a_file_written_by_others_runs_under_made_up_names(tmp_path):
    from executorch.exir import to_edge

    program = torch.export.export(nn.Linear(4, 2).eval(), (torch.ones(1, 4),))
    path = tmp_path / "other.pte"
    path.write_bytes(to_edge(program).to_executorch().buffer)
    model = load_pte(LoadJob(path=path))
    assert [str(spec) for spec in model.inputs()] == ["input_0 float32 [1, 4]"]
    assert model.run({"input_0": np.ones((1, 4), np.float32)})["output_0"].shape == (1, 2)
    with pytest.raises(Unsupported, match="written by others and does not tell its schemes"):
        model.schemes()


def test_weights_that_xnnpack_would_restore_to_float_are_refused(net, tmp_path):
    plan = Plan({"head": Scheme.parse("w8")})
    made = weights.quantize(QuantizeJob(model=net, plan=plan))
    with pytest.raises(Unsupported, match="no integer kernel for 1 of the layers of 'net', such as 'head'"):
        export(ExportJob(model=made, path=tmp_path / "net.pte"))


class Sum(nn.Module):
    """A block whose first result is read by a layer and, past it, by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3)
        self.first = nn.Conv2d(32, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 4)

    def forward(self, image):
        stem = self.stem(image).relu()
        return self.head((stem + self.second(self.first(stem).relu())).relu().mean((2, 3)))


@pytest.mark.parametrize("left", ["stem", "first", "second", "head"])
def test_any_layer_of_a_residual_block_may_stay_in_float(left, tmp_path):
    torch.manual_seed(0)
    model = TorchModel(torch.export.export(Sum().eval(), (torch.zeros(1, 3, 8, 8),)), name="sum")
    schemes = dict.fromkeys(("stem", "first", "second", "head"), Scheme.parse("w8a8")) | {left: Scheme()}
    made = ptq.quantize(QuantizeJob(model=model, plan=Plan(schemes), data=samples(8)))
    path = export(ExportJob(model=made, path=tmp_path / "sum.pte")).path
    runner = open_session(BenchmarkJob(artifact=Artifact(path=path, format="pte"), threads=1))
    for batch in samples(4):
        (before,), (after,) = made.run(batch).values(), runner.run(batch).values()
        # XNNPACK rounds each layer's result to eight bits too, which the program does not.
        np.testing.assert_allclose(after, before, atol=0.02)


def test_a_file_cut_short_is_refused(lowered, tmp_path):
    short = tmp_path / "short.pte"
    short.write_bytes(lowered.read_bytes()[:3000])
    with pytest.raises(UsageError, match="cannot be opened"):
        load_pte(LoadJob(path=short))
