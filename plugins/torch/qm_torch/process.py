"""Work for a compiler, or a training, in a process of its own: its memory, its noise and its crashes stay there.

The child is a module with ``if __name__ == "__main__": process.serve(work)``. It reads one JSON object from its
standard input, whose end tells it that its parent is gone, and writes events, one JSON object a line, to its standard
output, the result last; all that libraries print goes to its error stream, of which nothing is shown unless it dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from qm.plugin import NotReady, PluginError, QmError, Unsupported, UsageError

Job = dict[str, Any]
Emit = Callable[[Job], None]

SETTINGS = {
    "TORCHAO_FORCE_SKIP_LOADING_SO_FILES": "1",
    # What compiles in the child is the child itself: no pool of workers that outlives it.
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
SHOWN = 300
PATIENCE_S = 20.0
"""How long a child that keeps what it has done may take to do so when it is interrupted."""

_KINDS: Mapping[str, type[QmError]] = {
    "NotReady": NotReady,
    "Unsupported": Unsupported,
    "UsageError": UsageError,
}


@contextmanager
def workshop() -> Iterator[Path]:
    """A folder for what parent and child hand each other, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="qm-torch-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


class Child:
    """A child at work. Walk through ``events`` to its end; then ``result`` is there."""

    def __init__(self, child: subprocess.Popen[bytes], log: IO[bytes], what: str) -> None:
        self._child, self._log, self._what = child, log, what
        self.result: Job = {}

    def events(self) -> Iterator[Job]:
        """What the child tells on its way.

        Raises:
            QmError: as the child raised it.
            PluginError: the child died, or ran into what it did not expect.
        """
        assert self._child.stdout is not None
        for line in self._child.stdout:
            event: Job = json.loads(line)
            if "error" in event:
                raise _raised(event["error"], self._what)
            if "result" in event:
                self.result = event["result"]
                return
            yield event
        self._child.wait()
        raise PluginError("torch", f"{self._what} failed: {_last_words(self._child.returncode, self._log)}")


@contextmanager
def started(module: str, job: Job, *, what: str, folder: Path, patience_s: float = PATIENCE_S) -> Iterator[Child]:
    """A child at work on ``job``; ended when the block is left, in whatever way.

    ``what`` names it in errors, temporary files go to ``folder``.
    """
    command = [sys.executable, "-P", "-m", module]
    settings = {**SETTINGS, "TMPDIR": str(folder), "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **settings, "PYTHONPATH": path},
            cwd=folder,
            process_group=0,  # Ctrl-C reaches the parent alone, and the child ends with it.
        )
        try:
            assert child.stdin is not None
            with suppress(BrokenPipeError):  # It died at once; its last words tell why.
                child.stdin.write(json.dumps(job).encode() + b"\n")
                child.stdin.flush()
            yield Child(child, log, what)
        finally:
            _end(child, patience_s)


def run(module: str, job: Job, *, what: str, folder: Path) -> Job:
    """The result of a child that tells nothing on its way; raises as ``Child.events`` does."""
    with started(module, job, what=what, folder=folder, patience_s=0) as child:
        for _ in child.events():
            pass
        return child.result


def _end(child: subprocess.Popen[bytes], patience_s: float) -> None:
    """See that the child is gone, and what it started (a C++ compiler) with it."""
    try:
        if child.poll() is None and patience_s:
            child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.wait(patience_s)
    finally:  # A second interrupt does not wait.
        if child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def _last_words(code: int, log: IO[bytes]) -> str:
    if code in (-signal.SIGKILL, 137):
        return "its process was killed, as happens when memory runs out"
    if code < 0:
        return f"its process died of {signal.Signals(-code).name}"
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:SHOWN] if lines else f"its process ended with code {code}"


def _raised(error: Job, what: str) -> QmError:
    kind = _KINDS.get(error["kind"])
    if kind is None:
        return PluginError("torch", f"{what} failed: {error['message']}")
    return kind(error["message"], hint=error["hint"])


def serve(work: Callable[[Job, Emit], Job]) -> None:
    """Be the child: do the job that stands on standard input, and tell events and the result on standard output."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(event: Job) -> None:
        told.write(json.dumps(event) + "\n")
        told.flush()

    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        emit({"result": work(job, emit)})
    except KeyboardInterrupt:
        os._exit(130)
    except QmError as e:
        emit({"error": {"kind": type(e).__name__, "message": e.message, "hint": e.hint}})
    except Exception as e:  # noqa: BLE001  The border of the process: the parent raises it.
        emit({"error": {"kind": type(e).__name__, "message": first_sentence(e), "hint": ""}})
    os._exit(0)  # Nothing is left to do, and native libraries have crashed while they were taken down.


def first_sentence(error: BaseException) -> str:
    """The type of an error and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:SHOWN]


def _die_with_parent() -> None:
    while os.read(0, 1024):  # Not sys.stdin, whose lock would be held when the interpreter ends.
        pass
    os.killpg(0, signal.SIGKILL)
