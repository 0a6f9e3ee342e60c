"""Who carries out trials: one interface, and the simplest that keeps it."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from qm.catalog import Catalog
from qm.errors import QmError
from qm.tuning.job import Done, Subject, TrialJob
from qm.tuning.lab import Lab

Scratch = Callable[[], Path]
"""Makes a new folder for a trial."""

PATIENCE_S = 2.0
"""How long a worker that is to end may take to unwind."""
TRIES = 2
"""A trial whose worker dies is handed to another once."""


class Executor(Protocol):
    """Takes trials and gives each back at its end, in any order. What is lost with its worker is tried once more."""

    @property
    def slots(self) -> int:
        """How many trials it carries out at a time."""
        ...

    @property
    def words(self) -> str:
        """What it is, with the threads of a worker."""
        ...

    @property
    def lost(self) -> int:
        """How many workers died so far."""
        ...

    def submit(self, job: TrialJob) -> None:
        """Take a trial."""
        ...

    def wait(self, timeout_s: float | None) -> Done | None:
        """The next trial at its end, None where there is none within the time."""
        ...

    def close(self) -> None:
        """Drop whatever is under way, and let all workers go."""
        ...


class Inline:
    """One trial after another, in this process. A trial that was begun is not cut short when time is up."""

    slots = 1
    lost = 0
    words = "in this process"

    def __init__(self, subject: Subject, scratch: Scratch, catalog: Catalog | None = None) -> None:
        self._lab = Lab(subject, catalog)
        self._scratch = scratch
        self._jobs: deque[TrialJob] = deque()

    def submit(self, job: TrialJob) -> None:
        """Take a trial."""
        self._jobs.append(job)

    def wait(self, timeout_s: float | None) -> Done | None:
        """Carry out the next trial."""
        job = self._jobs.popleft()
        folder = self._scratch()
        try:
            return Done(job=job, measured=self._lab.run(job, folder), folder=folder)
        except QmError as e:
            shutil.rmtree(folder, ignore_errors=True)
            return Done(job=job, error=e)

    def close(self) -> None:
        """Drop what waits."""
        self._jobs.clear()
