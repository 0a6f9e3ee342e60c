"""Packages of AOTInductor: compiled once for all tests of this file."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qm.plugin import Artifact, BenchmarkJob, ExportJob, LoadJob, NotReady, Plan, QuantizeJob, Scheme, UsageError
from qm_torch import aoti, description
from qm_torch.compiled import load_package
from qm_torch.manifest import KEY
from qm_torch.model import TorchModel
from qm_torch.package import export
from qm_torch.ptq import quantize
from qm_torch.session import open_package


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 16, 3)
        self.head = nn.Linear(16, 4)

    def forward(self, image):
        hidden = self.body(image).relu().mean((2, 3))
        return {"logits": self.head(hidden), "hidden": hidden}


class Listed(list):
    labels = None


def samples(count):
    rng = np.random.default_rng(3)
    return Listed({"image": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(count))


@pytest.fixture(scope="module")
def quantized() -> TorchModel:
    torch.manual_seed(0)
    batch = {0: torch.export.Dim("batch", max=8)}
    program = torch.export.export(Net().eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=(batch,))
    plan = Plan(dict.fromkeys(("body", "head"), Scheme.parse("w8a8")))
    return quantize(QuantizeJob(model=TorchModel(program, name="net"), plan=plan, data=samples(8)))


@pytest.fixture(scope="module")
def package(quantized, tmp_path_factory) -> Path:
    return export(ExportJob(model=quantized, path=tmp_path_factory.mktemp("package") / "net.pt2")).path


@pytest.fixture
def opened(package):
    return open_package(BenchmarkJob(artifact=Artifact(path=package, format="aoti"), threads=1))


def test_the_package_answers_as_the_program_does(quantized, opened):
    for batch in samples(4):
        before, after = quantized.run(batch), opened.run(batch)
        assert list(before) == list(after) == ["logits", "hidden"]
        # Kernels round sums of integers in another order than the reference: a step of eight bits at most.
        np.testing.assert_allclose(after["logits"], before["logits"], atol=0.02)


def test_a_package_tells_its_schemes_layers_and_names(quantized, package):
    told = load_package(LoadJob(path=package))
    assert told.schemes() == quantized.schemes() == dict.fromkeys(("body", "head"), Scheme.parse("w8a8"))
    assert list(told.layers()) == list(quantized.layers())
    assert [spec.name for spec in told.inputs()] == ["image"]


def test_any_batch_within_the_limits_runs(opened):
    batch = {"image": np.zeros((8, 3, 8, 8), np.float32)}
    assert opened.run(batch)["logits"].shape == (8, 4)


@pytest.mark.parametrize("shape", [(9, 3, 8, 8), (1, 3, 8, 9), (3, 8, 8)])
def test_a_wrong_shape_is_told_before_the_machine_code_sees_it(opened, shape):
    with pytest.raises(UsageError, match=r"takes float32 \[1 to 8, 3, 8, 8\]"):
        opened.run({"image": np.zeros(shape, np.float32)})


def test_a_missing_input_is_named(opened):
    with pytest.raises(UsageError, match="lack the input 'image'"):
        opened.run({"picture": np.zeros((1, 3, 8, 8), np.float32)})


def test_results_are_the_callers_own(opened):
    first = opened.run(samples(1)[0])["logits"]
    kept = first.copy()
    opened.run({"image": np.ones((1, 3, 8, 8), np.float32)})
    assert np.array_equal(first, kept)


def test_the_runtime_is_named_with_its_threads(opened):
    assert opened.runtime == f"AOTInductor torch {torch.__version__.partition('+')[0]}, 1 thread"


def test_the_package_holds_no_sources_and_no_paths_of_the_machine(package):
    with zipfile.ZipFile(package) as archive:
        assert not any(name.endswith(".cpp") for name in archive.namelist())
    assert b"qm-torch-" not in package.read_bytes()


def test_a_package_for_another_cpu_is_refused(package, tmp_path):
    strange = rewritten(package, tmp_path / "strange.pt2", lambda m: dataclasses.replace(m, isa=("AVX9000",)))
    with pytest.raises(UsageError, match="compiled for a CPU with AVX9000, which this one has not"):
        aoti.Package(strange)


def test_a_package_without_our_words_is_refused(package, tmp_path):
    bare = tmp_path / "bare.pt2"
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(bare, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"{}" if name.endswith(".json") else source.read(name))
    with pytest.raises(UsageError, match="does not say what its inputs and layers are called"):
        load_package(LoadJob(path=bare))


def test_a_flipped_byte_is_found_before_the_code_is_run(package, tmp_path):
    content = bytearray(package.read_bytes())
    content[len(content) // 2] ^= 0xFF
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(content)
    with pytest.raises(UsageError, match="is damaged"):
        load_package(LoadJob(path=broken))


def test_without_a_compiler_it_says_so_before_the_work(quantized, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NotReady, match=r"there is no C\+\+ compiler 'no-such-compiler'") as caught:
        export(ExportJob(model=quantized, path=tmp_path / "net.pt2"))
    assert "write a .pte file with --to" in caught.value.hint


def rewritten(package, place, change):
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(place, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("metadata.json"):
                told = json.loads(content)
                if KEY in told:
                    told[KEY] = change(aoti.Manifest.parse(told[KEY])).text()
                content = json.dumps(told).encode()
            target.writestr(name, content)
    return place


def test_the_isa_of_this_machine_is_told(package):
    assert aoti.read(package).isa == description.isa()
