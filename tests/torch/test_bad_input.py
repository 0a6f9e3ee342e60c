"""What a user of PyTorch gets wrong at the command line: one sentence, a hint, exit code 2, no file left behind."""

from __future__ import annotations

import importlib.metadata
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from qm.plugin import Plan, QuantizeJob, Scheme
from qm_torch import weights


@pytest.fixture
def cli(cli, saved, tmp_path):
    """Run a command in a folder with a program and samples."""
    shutil.copy(saved, tmp_path / "net.pt2")
    np.savez(tmp_path / "data.npz", image=images(40))
    return cli


def images(count, *, size=8):
    return np.random.default_rng(0).standard_normal((count, 3, size, size)).astype(np.float32)


PTQ = ("-p", "torch.ptq", "--data", "data.npz")


def package(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data/aotinductor/model/model.so", b"\x7fELF")


def pte(path):
    path.write_bytes(b"\x00\x00\x00\x00ET12")


@pytest.mark.parametrize(("name", "made", "fmt"), [("packed.pt2", package, "aoti"), ("net.pte", pte, "pte")])
def test_what_was_compiled_is_run_and_not_quantized(cli, name, made, fmt):
    made(Path(name))
    outcome = cli("quantize", name, *PTQ)
    outcome.check_refused(f"error: {name!r} is of format {fmt}, which can be run and not be quantized")
    assert "hint:  Give the torch model it was made from, which torch.load or torch.factory reads." in outcome.err
    assert "problems" not in outcome.err


BROKEN = {
    "empty": (lambda path: path.write_bytes(b""), "'net.pt2' is empty"),
    "text": (lambda path: path.write_text("this is not a model\n"), "'net.pt2' is no zip archive"),
    # So short a piece leaves whole the archive of the sample inputs, which is the last one inside.
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "'net.pt2' is damaged or cut short"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "no installed plugin loads the folder 'net.pt2'"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("words", [("quantize", "net.pt2", *PTQ), ("inspect", "net.pt2"), ("benchmark", "net.pt2")])
def test_a_broken_program_is_refused(cli, kind, words):
    spoil, said = BROKEN[kind]
    spoil(Path("net.pt2"))
    cli(*words).check_refused(said)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (images(8, size=9), "axis 2: 9 where 8 is expected"),
        (np.where(np.arange(8) == 3, np.nan, images(8)), "array 'image' of 'odd.npz' holds NaN in sample 0"),
    ],
)
def test_samples_that_do_not_fit_are_refused(cli, image, said):
    np.savez("odd.npz", image=image.astype(np.float32))
    cli("quantize", "net.pt2", "-p", "torch.ptq", "--data", "odd.npz").check_refused(said)


def test_a_quantized_program_is_not_quantized_again(cli, small):
    plan = Plan({"head": Scheme.parse("w8")})
    torch.export.save(weights.quantize(QuantizeJob(model=small, plan=plan)).program, "once.pt2")
    cli("quantize", "once.pt2", "-p", "torch.weights", "--to", "twice.pt2").check_refused("is quantized already")


NETS = """
    class Net(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    class Branch(nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x
            return x * 2

    def net(): return Net(), torch.zeros(1, 4)
    def branch(): return Branch(), torch.zeros(1, 4)
    def raises(): raise ValueError("no luck")
"""
BY_FUNCTION = ("-p", "torch.weights", "--to", "out.pt2")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "function 'nets:raises' raised ValueError: no luck"),
        ("branch", "what it does depends on the values of its inputs (nets.py, line 11)"),
        ("nte", "module 'nets' has no function 'nte'"),
    ],
)
def test_a_function_that_makes_no_model_is_refused(cli, nets, name, said):
    nets(NETS)
    cli("quantize", f"nets:{name}", *BY_FUNCTION).check_refused(said)


def test_weights_that_do_not_fit_are_told_by_their_first_three_keys(cli, nets):
    nets(NETS)
    torch.save({"other": torch.zeros(1)}, "w.pt")
    outcome = cli("quantize", "nets:net", "-o", "weights=w.pt", *BY_FUNCTION)
    outcome.check_refused("they lack 0.weight, 0.bias, 2.weight and 1 more, and have no place for other")


@pytest.fixture
def no_executorch(monkeypatch):
    """As if ExecuTorch had not been installed."""
    real = importlib.metadata.distribution

    def without(name):
        if name == "executorch":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without)


@pytest.mark.parametrize(
    "words", [("quantize", "net.pt2", *PTQ, "--to", "out.pte"), ("inspect", "net.pte"), ("benchmark", "net.pte")]
)
def test_a_pte_without_executorch_says_what_to_install(cli, no_executorch, words):
    pte(Path("net.pte"))
    cli(*words).check_refused("needs executorch, which is not installed", "pip install 'quantized-model[executorch]'")
