"""Trials in processes of their own: one that crashes or eats the memory takes nobody along."""

from __future__ import annotations

import os
import pickle
import shutil
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic

from qm.errors import QmError, UsageError
from qm.process import Gone, Process
from qm.tuning.executor import PATIENCE_S, TRIES, Scratch
from qm.tuning.job import Done, Subject, TrialJob


class Pool:
    """``workers`` processes, each with the model and the samples open, and the same number of threads.

    Raises:
        UsageError: the samples cannot be handed to another process.
    """

    def __init__(self, subject: Subject, scratch: Scratch, *, workers: int) -> None:
        try:
            pickle.dumps(subject)
        except Exception as e:
            raise UsageError(
                f"the data, a {type(subject.data).__name__}, cannot be handed to another process",
                hint="Give arrays or a path, or use the executor inline.",
            ) from e
        self.slots = workers
        self.lost = 0
        self.threads = max(1, cores() // workers)
        self._subject, self._scratch = subject, scratch
        self._jobs: SimpleQueue[TrialJob | None] = SimpleQueue()
        self._done: SimpleQueue[Done] = SimpleQueue()
        self._tries: dict[str, int] = {}
        self._processes: list[Process | None] = [None] * workers
        self._closing = False
        self._threads = [Thread(target=self._serve, args=(slot,), daemon=True) for slot in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def words(self) -> str:
        """``2 processes of 1 thread each``."""
        return f"{_many(self.slots, 'process', 'processes')} of {_many(self.threads, 'thread', 'threads')} each"

    def submit(self, job: TrialJob) -> None:
        """Take a trial."""
        self._jobs.put(job)

    def wait(self, timeout_s: float | None) -> Done | None:
        """The next trial at its end."""
        try:
            return self._done.get(timeout=timeout_s)
        except Empty:
            return None

    def close(self) -> None:
        """End every process: those that do not unwind soon are killed."""
        self._closing = True
        for _ in self._threads:
            self._jobs.put(None)
        for at_once in (False, True):
            for process in self._processes:
                if process is not None and not process.is_closed:
                    process.stop(at_once=at_once)
            until = monotonic() + PATIENCE_S
            for thread in self._threads:
                thread.join(None if at_once else max(0.0, until - monotonic()))

    def _serve(self, slot: int) -> None:
        while (job := self._jobs.get()) is not None and not self._closing:
            done = self._carry_out(slot, job)
            if done is not None:
                self._done.put(done)
        process = self._processes[slot]
        if process is not None and not process.is_closed:
            process.kill()

    def _carry_out(self, slot: int, job: TrialJob) -> Done | None:
        """The trial at its end; None where it is to be tried again."""
        folder = self._scratch()
        try:
            measured = self._process(slot).ask("run", job, folder)
            return Done(job=job, measured=measured, folder=folder)
        except QmError as e:
            shutil.rmtree(folder, ignore_errors=True)
            self._tries[job.key] = self._tries.get(job.key, 0) + 1
            self.lost += isinstance(e, Gone) and not self._closing
            if isinstance(e, Gone) and self._tries[job.key] < TRIES and not self._closing:
                self._jobs.put(job)
                return None
            return Done(job=job, error=e)

    def _process(self, slot: int) -> Process:
        process = self._processes[slot]
        if process is None or process.is_closed:
            process = Process(
                "qm.tuning.child", threads=self.threads, plugin="qm", subject=f"worker {slot + 1} of {self.slots}"
            )
            self._processes[slot] = process
            if self._closing:
                process.stop(at_once=True)
            process.ask("open", self._subject)
        return process


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"
