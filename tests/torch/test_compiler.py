"""A C++ compiler that is not there is missed before a model is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qm.__main__ import main


@pytest.fixture
def request_for(tmp_path, monkeypatch):
    """The words of a request for that file; the model in it is none, so that loading it would be another error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CXX", raising=False)
    Path("net.pt2").write_text("no model at all")
    np.savez("data.npz", image=np.zeros((4, 3, 8, 8), np.float32))

    def words(to, *more):
        return ["quantize", "net.pt2", "-p", "torch.ptq", "--data", "data.npz", "--to", to, *more]

    return words


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_without_a_compiler_a_package_is_refused_before_the_model_is_looked_at(request_for, monkeypatch, capsys, more):
    monkeypatch.setenv("PATH", "")
    assert main(request_for("out.pt2", *more)) == 2
    told = capsys.readouterr().err
    assert "error: a .pt2 package is compiled, and there is no C++ compiler 'g++'" in told
    assert all(way_out in told for way_out in ("apt install g++", "CXX", ".pte", "-p onnx.ptq"))
    assert sorted(p.name for p in Path().iterdir()) == ["data.npz", "net.pt2"]


def test_a_compiler_that_does_not_work_is_named(request_for, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "false -c")
    assert main(request_for("out.pt2")) == 2
    assert "the C++ compiler 'false -c' does not work" in capsys.readouterr().err


def test_a_file_that_is_not_compiled_needs_no_compiler(request_for, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    main(request_for("out.pte", "--dry-run"))
    assert "C++ compiler" not in capsys.readouterr().err


def test_asking_for_the_compiler_imports_no_framework(request_for, tmp_path):
    code = (
        "import sys; from qm.__main__ import main; "
        "main(sys.argv[1:]); print(sorted({'torch', 'torchao', 'executorch'} & set(sys.modules)))"
    )
    words = [*request_for("out.pt2"), "--dry-run"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
