"""Speed of ONNX files against the first of them, one thread, taken in turns so that a busy machine hurts all alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


def session(path: Path) -> ort.InferenceSession:
    """A session of one thread with all optimizations."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), settings, ["CPUExecutionProvider"])


def speedups(
    sessions: Sequence[ort.InferenceSession], batches: Sequence[Mapping[str, Any]], *, rounds: int = 60
) -> list[tuple[float, float, float]]:
    """How many times faster than the first each session is: the median over rounds of the ratio of CPU times, and the
    2.5th and 97.5th percentile of 2,000 medians of rounds drawn again (bootstrap, seed 0)."""
    times = np.empty((rounds, len(sessions)))
    for r in range(-3, rounds):
        for i, s in enumerate(sessions):
            start = time.thread_time()
            s.run(None, dict(batches[r % len(batches)]))
            if r >= 0:
                times[r, i] = time.thread_time() - start
    ratios = times[:, :1] / times
    again = np.random.default_rng(0).integers(0, rounds, (2000, rounds))
    medians = np.median(ratios[again], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5], axis=0)
    return [tuple(map(float, row)) for row in zip(np.median(ratios, axis=0), low, high, strict=True)]
