"""Trials on the nodes of a Ray cluster: the model and the data are shipped once, and what dies is tried elsewhere."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from weakref import finalize

from qm.errors import NotReady, PluginError, QmError
from qm.manager import blame
from qm.pipe import Failure
from qm.process import THREAD_VARIABLES
from qm.tuning.executor import TRIES, Scratch
from qm.tuning.job import Done, Measured, Subject, TrialJob
from qm.tuning.lab import Lab
from qm.tuning.parcel import Parcel, packed, unpack

Answer = tuple[Measured, bytes] | Failure
STARTS = 3
"""A worker that does not come up is started again so often in a row, all workers together."""


class Hand:
    """A worker on some node: the subject is unpacked there and opened once."""

    def __init__(self, parcel: Parcel) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="qm-tune-"))
        finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._lab = Lab(parcel.opened(self._folder))

    def ready(self) -> None:
        """Answer once there."""

    def run(self, job: TrialJob) -> Answer:
        """Carry out a trial; the file comes back as bytes."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name)
            try:
                with blame(job.recipe.stages[-1].plugin, f"trying {job.name!r}"):
                    measured = self._lab.run(job, folder)
            except QmError as e:
                return Failure.of(e)
            return measured, packed(folder.iterdir())


@dataclass
class _Slot:
    """One worker as the driver sees it: what it was asked last, and for which trial, None while it comes up."""

    actor: Any
    answer: Any
    job: TrialJob | None = None


class Cluster:
    """Workers on the cluster that is running, or that ``RAY_ADDRESS`` names, or on this machine; one core each.

    A trial that is lost with its worker or its node is handed to another worker once.

    Raises:
        NotReady: Ray is not installed.
    """

    def __init__(self, subject: Subject, scratch: Scratch, *, workers: int | None) -> None:
        self._ray = _ray()
        if not self._ray.is_initialized():
            self._ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
            self._started = True
        else:
            self._started = False
        self.slots = workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._scratch = scratch
        self._parcel = self._ray.put(Parcel.of(subject))
        self._tries: dict[str, int] = {}
        self.lost = 0
        self._starts = 0
        self._jobs: deque[TrialJob] = deque()
        self._idle: list[Any] = []
        self._slots = [self._start() for _ in range(self.slots)]

    @property
    def words(self) -> str:
        """``4 Ray workers of 1 thread each``."""
        return f"{self.slots} Ray worker{'s' if self.slots != 1 else ''} of 1 thread each"

    def submit(self, job: TrialJob) -> None:
        """Take a trial."""
        self._jobs.append(job)
        self._hand_out()

    def wait(self, timeout_s: float | None) -> Done | None:
        """The next trial at its end.

        Raises:
            PluginError: no worker comes up.
        """
        until = None if timeout_s is None else monotonic() + timeout_s
        while True:
            left = None if until is None else max(0.0, until - monotonic())
            ready, _ = self._ray.wait([slot.answer for slot in self._slots], num_returns=1, timeout=left)
            if not ready:
                return None
            slot = next(s for s in self._slots if s.answer == ready[0])
            done = self._take(slot)
            self._hand_out()
            if done is not None:
                return done

    def close(self) -> None:
        """Let all workers go, and Ray too where it was started here."""
        for actor in [*self._idle, *(slot.actor for slot in self._slots)]:
            self._ray.kill(actor)
        self._slots, self._idle = [], []
        self._jobs.clear()
        if self._started:
            self._ray.shutdown()

    def _hand_out(self) -> None:
        while self._jobs and self._idle:
            actor, job = self._idle.pop(), self._jobs.popleft()
            self._slots.append(_Slot(actor, actor.run.remote(job), job))

    def _take(self, slot: _Slot) -> Done | None:
        """What a worker answered; None where it only came up, or was lost and its trial is tried again."""
        self._slots.remove(slot)
        try:
            answer: Answer | None = self._ray.get(slot.answer)
        except self._ray.exceptions.RayError as e:
            return self._lost(slot, e)
        self._starts = 0
        self._idle.append(slot.actor)
        if slot.job is None or answer is None:
            return None
        if isinstance(answer, Failure):
            return Done(job=slot.job, error=answer.error())
        measured, content = answer
        folder = self._scratch()
        unpack(content, folder)
        return Done(job=slot.job, measured=measured, folder=folder)

    def _lost(self, slot: _Slot, reason: Exception) -> Done | None:
        self._ray.kill(slot.actor)
        self.lost += 1
        lost = f"the worker died: {str(reason).strip().splitlines()[0]}"
        if slot.job is None:
            self._starts += 1
            if self._starts > STARTS * self.slots:
                raise PluginError("ray", lost, hint="Check that the same packages are installed on every node.")
        self._slots.append(self._start())
        if slot.job is None:
            return None
        self._tries[slot.job.key] = self._tries.get(slot.job.key, 0) + 1
        if self._tries[slot.job.key] < TRIES:
            self._jobs.appendleft(slot.job)
            return None
        return Done(job=slot.job, error=PluginError("ray", lost))

    def _start(self) -> _Slot:
        """A new worker, on whichever node has a core to spare."""
        hand = self._ray.remote(Hand).options(
            num_cpus=1, scheduling_strategy="SPREAD", runtime_env={"env_vars": _variables()}
        )
        actor = hand.remote(self._parcel)
        return _Slot(actor, actor.ready.remote())


def _ray() -> Any:
    try:
        importlib.metadata.distribution("ray")
    except importlib.metadata.PackageNotFoundError:
        raise NotReady(
            "the executor ray needs ray, which is not installed",
            hint="Install it: pip install 'quantized-model[ray]'",
        ) from None
    import ray

    return ray


def _variables() -> dict[str, str]:
    """One thread for every library, our own settings, and the same modules in reach on nodes that share the disk."""
    ours = {name: value for name, value in os.environ.items() if name.startswith("QM_")}
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**ours, **dict.fromkeys(THREAD_VARIABLES, "1"), "PYTHONPATH": path}
