"""Work for TensorFlow in a process of its own: its 600 MB, its noise and its crashes stay there.

The child is a module with ``if __name__ == "__main__": process.serve(work)``. It is handed one JSON object on its
standard input, whose end tells it that its parent is gone, and writes events, one JSON object a line, on its standard
output; all that libraries print goes to its error stream, which is shown to nobody unless it dies.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

from qm.plugin import NotReady, PluginError, QmError, Unsupported, UsageError

Event = dict[str, Any]
Emit = Callable[[Event], None]

PATIENCE_S = 20.0
"""How long a child may take to save what it has when it is interrupted."""

MARK = "\x1e"
"""Stands before each event, so that what is printed by others is told apart. Source: RFC 7464."""

SETTINGS = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}

_KINDS: Mapping[str, type[QmError]] = {
    "NotReady": NotReady,
    "Unsupported": Unsupported,
    "UsageError": UsageError,
}


class Child:
    """A child at work. Walk through ``events`` to its end; then ``result`` is there."""

    def __init__(self, child: subprocess.Popen[str], log: IO[str], what: str) -> None:
        self._child, self._log, self._what = child, log, what
        self.result: Event = {}

    @property
    def pid(self) -> int:
        return self._child.pid

    def events(self) -> Iterator[Event]:
        """What the child tells on its way.

        Raises:
            QmError: as the child raised it.
            PluginError: the child died.
        """
        assert self._child.stdout is not None
        done = False
        for line in self._child.stdout:
            _, mark, text = line.rpartition(MARK)
            if not mark:
                continue  # Printed before serve() took the output over.
            event = json.loads(text)
            if "result" in event:
                self.result, done = event["result"], True
            elif "error" in event:
                raise _raised(event["error"], self._what)
            else:
                yield event
        self._child.wait()
        if not done:
            raise PluginError("tf", f"{self._what} failed: {self._last_words()}")

    def _last_words(self) -> str:
        code = self._child.returncode
        if code in (-signal.SIGKILL, 137):
            return "its process was killed, as happens when memory runs out"
        if code is not None and code < 0:
            return f"its process died of {signal.Signals(-code).name}"
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"its process ended with code {code}"


@contextmanager
def started(module: str, job: Event, *, what: str, patience_s: float = PATIENCE_S) -> Iterator[Child]:
    """A child at work on ``job``; ended when the block is left, in whatever way. ``what`` names it in errors."""
    command = [sys.executable, "-P", "-m", module]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **SETTINGS},
            process_group=0,  # Ctrl-C reaches the parent alone, which tells the child once.
        )
        try:
            assert child.stdin is not None
            with suppress(BrokenPipeError):  # It died at once; its last words tell why.
                child.stdin.write(json.dumps(job) + "\n")
                child.stdin.flush()
            yield Child(child, log, what)
        finally:
            _end(child, patience_s)


def run(module: str, job: Event, *, what: str) -> Event:
    """The result of a child that tells nothing on its way; raises as ``Child.events`` does."""
    with started(module, job, what=what, patience_s=0) as child:
        for _ in child.events():
            pass
        return child.result


def _end(child: subprocess.Popen[str], patience_s: float) -> None:
    try:
        if child.poll() is None and patience_s:
            child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.wait(patience_s)
    finally:  # A second interrupt does not wait.
        if child.poll() is None:
            child.kill()
            child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def _raised(error: Event, what: str) -> QmError:
    kind = _KINDS.get(error["kind"])
    if kind is None:
        return PluginError("tf", f"{what} failed: {error['message']}")
    return kind(error["message"], hint=error["hint"])


def serve(work: Callable[[Event, Emit], Event]) -> None:
    """Be the child: do the job that stands on standard input, and tell events and the result on standard output."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(event: Event) -> None:
        told.write(MARK + json.dumps(event) + "\n")
        told.flush()

    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        emit({"result": work(job, emit)})
    except KeyboardInterrupt:
        sys.exit(130)
    except QmError as e:
        emit({"error": {"kind": type(e).__name__, "message": e.message, "hint": e.hint}})
    except Exception as e:  # noqa: BLE001  The border of the process: the parent raises it.
        emit({"error": {"kind": type(e).__name__, "message": shortened(f"{type(e).__name__}: {e}"), "hint": ""}})


def _die_with_parent() -> None:
    while os.read(0, 1024):  # Not sys.stdin, whose lock would be held when the interpreter ends.
        pass
    os._exit(1)


_NOT_THE_CAUSE = ("failed to legalize", "failed while converting", "Lowering tensor list ops is failed")


def shortened(text: str) -> str:
    """The sentence of a TensorFlow message that matters: without where in its code, and what it was about to do."""
    for line in text.splitlines():
        found = re.search(r"error: (.*)", line)
        if found and not any(words in found[1] for words in _NOT_THE_CAUSE):
            return _without_place(found[1])[:300]
    text = re.sub(r"\x1b\[[\d;]*m", "", text)
    lines = [line.strip() for line in text.partition("Arguments received by ")[0].splitlines() if line.strip()]
    told = [
        line
        for line in lines
        if not re.match(r'File "|in user code|Traceback|Exception encountered when calling|\[Op:|\{\{', line)
    ]
    return " ".join(" ".join(told or lines).split())[:300]


def _without_place(text: str) -> str:
    """A message without the ``loc(...)`` in front of it, which may hold brackets and names with colons."""
    if not text.startswith("loc("):
        return text.strip()
    depth = 0
    for at, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == ")" and depth == 0:
            return text[at + 1 :].lstrip(": ").strip()
    return text.strip()
