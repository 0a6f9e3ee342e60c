"""What is imported when: asked of a child process's sys.modules, never timed."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

HEAVY = {"pydantic", "numpy", "pluggy", "importlib.metadata", "rich"}
FRAMEWORKS = {"onnx", "onnxruntime", "torch", "tensorflow", "keras", "ai_edge_litert"}


def modules_after(code: str) -> set[str]:
    """The modules that are loaded in a fresh interpreter once ``code`` has run."""
    code += "\nimport sys as _s, json as _j; _s.stderr.write('\\n' + _j.dumps(sorted(_s.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def command(*words: str) -> str:
    return f"from qm.__main__ import main\ntry: main({list(words)!r})\nexcept SystemExit: pass"


@pytest.mark.parametrize("words", [("--help",), (), ("quantize", "--help"), ("show", "--help"), ("demo", "--help")])
def test_help_loads_nothing_heavy(words):
    assert not modules_after(command(*words)) & HEAVY


def test_importing_the_package_loads_nothing_heavy():
    assert not modules_after("import qm") & HEAVY


def test_listing_plugins_imports_none_of_them():
    loaded = modules_after(command("plugins"))
    points = {point.value for point in importlib.metadata.entry_points(group="qm.v1")}
    assert points
    assert not loaded & points


@pytest.mark.parametrize("module", sorted(p.value for p in importlib.metadata.entry_points(group="qm.v1")))
def test_a_declaration_module_imports_no_framework(module):
    assert not modules_after(f"import {module}") & FRAMEWORKS


def test_listing_methods_imports_no_framework():
    assert not modules_after(command("plugins", "--methods")) & FRAMEWORKS
