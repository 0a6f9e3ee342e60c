"""The other end of a pool's process: opens the subject and carries out its trials.

Run as ``python -m qm.tuning.child``; it ends when its parent does, in the middle of a trial too.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

from qm.errors import QmError
from qm.manager import blame
from qm.pipe import Failure, receive, send
from qm.process import pipes
from qm.tuning.executor import PATIENCE_S
from qm.tuning.job import Measured, Subject, TrialJob
from qm.tuning.lab import Lab


class Desk:
    """Does what the parent asks."""

    lab: Lab

    def open(self, subject: Subject) -> None:
        """Take the subject; it is read at the first trial."""
        self.lab = Lab(subject)

    def run(self, job: TrialJob, folder: Path) -> Measured:
        """Carry out one trial."""
        with blame(job.recipe.stages[-1].plugin, f"trying {job.name!r}"):
            return self.lab.run(job, folder)


def serve(answers: BinaryIO, requests: SimpleQueue[Any]) -> None:
    """Do what is asked, request after request."""
    desk = Desk()
    while True:
        verb, args = requests.get()
        try:
            answer = getattr(desk, verb)(*args)
        except QmError as e:
            answer = Failure.of(e)
        try:
            send(answers, answer)
        except BrokenPipeError:
            return


def listen(stream: BinaryIO, requests: SimpleQueue[Any]) -> None:
    """Take requests in; when the parent is gone, unwind what is under way, so that temporary files go, and end."""
    while True:
        try:
            requests.put(receive(stream))
        except EOFError:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE_S)
            os._exit(1)


def main() -> None:
    """Serve until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    requests: SimpleQueue[Any] = SimpleQueue()
    with pipes() as (stream, answers):
        Thread(target=listen, args=(stream, requests), daemon=True).start()
        with suppress(KeyboardInterrupt):
            serve(answers, requests)


if __name__ == "__main__":
    main()
