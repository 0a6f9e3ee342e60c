"""What a user of PyTorch gets wrong at the command line: one sentence, a hint, exit code 2, no file left behind."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest


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
