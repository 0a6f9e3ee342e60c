"""The C++ compiler that AOTInductor needs on the machine where a package is made. No framework is imported here."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

from qm.plugin import NotReady

_HINT = (
    "Install one (on Debian: apt install g++) or name it with CXX; or do without: write a .pte file with --to, "
    "or quantize by way of .onnx with -p onnx.ptq, onnx.dynamic or onnx.weights."
)


def check_compiler() -> None:
    """Raise NotReady where there is no C++ compiler that works, before any work is done."""
    named = os.environ.get("CXX", "g++")
    command = shlex.split(named)
    if not command or shutil.which(command[0]) is None:
        raise NotReady(f"a .pt2 package is compiled, and there is no C++ compiler {named!r}", hint=_HINT)
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    except OSError as e:
        raise NotReady(f"the C++ compiler {named!r} cannot be run: {e.strerror}", hint=_HINT) from e
    if done.returncode != 0:
        raise NotReady(f"the C++ compiler {named!r} does not work: {done.stderr.strip()[:200]}", hint=_HINT)
