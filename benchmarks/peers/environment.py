"""A virtual environment for each tool, made once: tools pin what others pin otherwise, and must not meet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HERE = "project"
"""The environment that runs the league, with this project in it."""

PACKAGES: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime==1.31.1", "onnx==1.23.2", "numpy==2.4.6"),
    "nncf": ("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.31.1", "numpy==2.4.6"),
    "olive": ("torch==2.13.0", "olive-ai==0.13.0", "onnx==1.23.2", "onnxruntime==1.31.1", "requests"),
    "aimet": ("torch==2.13.0", "aimet-onnx==2.42.0", "onnxruntime==1.31.1"),
    "quark": ("torch==2.13.0", "amd-quark==0.13", "onnxruntime==1.31.1"),
    "neural-compressor": ("onnx-neural-compressor==1.0", "onnxruntime==1.31.1", "prettytable", "scipy"),
    "ai-edge-quantizer": ("ai-edge-quantizer==0.10.0", "ai-edge-litert==2.3.0"),
    "torchao": ("torch==2.13.0", "torchao==0.18.0", "executorch==1.5.1"),
    "tensorflow": ("tensorflow==2.21.0", "keras==3.15.1", "h5py==3.14.0"),
}
"""What each environment is made of: the tool, and what it needs and does not say."""

SOURCE = "antlr4-python3-runtime"
"""What there is no wheel of: pure Python, which ExecuTorch needs."""

MADE = "league.txt"


class NotInstalled(Exception):
    """An environment cannot be made; the text is the last line of the installer's complaint."""


def python(name: str, folder: Path) -> Path:
    """The interpreter of the environment, which is made in ``folder`` where it is not there or not as it should be.

    Raises:
        NotInstalled: it cannot be made.
    """
    if name == HERE:
        return Path(sys.executable)
    place, wanted = folder / name, "\n".join(PACKAGES[name]) + "\n"
    made, interpreter = place / MADE, place / "bin" / "python"
    if made.exists() and made.read_text(encoding="utf-8") == wanted:
        return interpreter
    print(f"installing {name}: {', '.join(PACKAGES[name])}", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(place)])
    built = ["--only-binary", ":all:", "--no-binary", SOURCE]
    _run([str(interpreter), "-m", "pip", "install", "--quiet", *built, *PACKAGES[name]])
    # Written last, so that an environment that was cut off is made anew.
    made.write_text(wanted, encoding="utf-8")
    return interpreter


def versions(interpreter: Path) -> dict[str, str]:
    """Every package of the environment with its version."""
    command = [str(interpreter), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {package["name"].lower(): package["version"] for package in json.loads(done.stdout)}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise NotInstalled(lines[-1] if lines else f"exit code {done.returncode}")
