"""One recipe carried out in its tool's environment: the file it made, and what that cost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.subject import Subject, write_whole

RECIPES = Path(__file__).parent / "recipe"
MEASURE = Path(__file__).parent / "measure.py"
LATE = 124


class Failed(Exception):
    """No model came of it; the text is one line."""


@dataclass(frozen=True)
class Cost:
    """What the process took, its imports and its children included. ``peak_bytes`` is of its largest process."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def attempt(
    interpreter: Path,
    script: str,
    options: Mapping[str, Any],
    subject: Subject,
    to: Path,
    *,
    source: Path,
    limit_s: float,
) -> Cost:
    """Let the script make ``to`` of ``source``.

    Raises:
        Failed: it ended with an error, wrote nothing, or took longer than ``limit_s`` seconds.
    """
    with tempfile.TemporaryDirectory() as scratch:
        part, told = Path(scratch) / f"made{to.suffix}", Path(scratch) / "job.json"
        write_whole(
            told,
            {
                "model": str(source),
                "name": subject.name,
                "samples": str(subject.samples),
                "to": str(part),
                "options": dict(options),
            },
        )
        log = to.with_suffix(".log")
        cost, code = _measured([str(interpreter), str(RECIPES / script), str(told)], Path(scratch), log, limit_s)
        if code:
            late = f"not done in {limit_s:.0f} s, of which the processor was its own for {cost.cpu_seconds:.0f}"
            raise Failed(late if code == LATE else last_line(log))
        if not part.exists():
            raise Failed("it wrote no model")
        shutil.copyfile(part, to)
    return cost


def last_line(log: Path) -> str:
    """The last line that says something, the error of a traceback; without the folders of this machine."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else "it ended without a word")[:300].replace(str(Path.home()), "~")


def _measured(command: list[str], folder: Path, log: Path, limit_s: float) -> tuple[Cost, int]:
    """The command's cost and exit code; it is killed at the limit."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": _path(command[0])}
    cost = folder / "cost.json"
    outer = [sys.executable, "-I", "-S", str(MEASURE), str(cost), str(limit_s), *command]
    with log.open("wb") as out:
        code = subprocess.call(outer, cwd=folder, env=os.environ | threads | quiet, stdout=out, stderr=out)
    return Cost(**json.loads(cost.read_text(encoding="utf-8"))), code


def _path(interpreter: str) -> str:
    """This project's import path for its own interpreter, none for the others."""
    return os.environ.get("PYTHONPATH", "") if interpreter == sys.executable else ""
