"""Artifacts of qm_torch beside each other: answers, size, and speed with one thread, taken in turns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qm.plugin import Artifact, BenchmarkJob, ExportJob, QuantizeJob, Session
from qm_torch import lower, package
from qm_torch.model import TorchModel
from qm_torch.session import open_package


def written(model: TorchModel, path: Path) -> Path:
    """The model compiled or lowered, by the file's suffix."""
    export = package.export if path.suffix == ".pt2" else lower.export
    return export(ExportJob(model=model, path=path)).path


def opened(path: Path) -> Session:
    """The artifact in its runtime, one thread."""
    is_package = path.suffix == ".pt2"
    artifact = Artifact(path=path, format="aoti" if is_package else "pte")
    job = BenchmarkJob(artifact=artifact, threads=1)
    if is_package:
        return open_package(job)
    from qm_torch.pte import open_session  # ExecuTorch may be missing.

    return open_session(job)


def answers(session: Session, batches: Sequence[Mapping[str, Any]]) -> Any:
    return np.concatenate([next(iter(session.run(batch).values())) for batch in batches])


def speedups(sessions: Sequence[Session], batches: Sequence[Mapping[str, Any]], rounds: int) -> list[float]:
    """How many times faster than the first each is: the median over rounds of the ratio of times."""
    times = np.empty((rounds, len(sessions)))
    for r in range(-3, rounds):
        for i, session in enumerate(sessions):
            start = time.perf_counter()
            session.run(batches[r % len(batches)])
            if r >= 0:
                times[r, i] = time.perf_counter() - start
    return [float(ratio) for ratio in np.median(times[:, :1] / times, axis=0)]


def told(job: QuantizeJob) -> str:
    return "; ".join(job.notes)
