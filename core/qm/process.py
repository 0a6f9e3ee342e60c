"""A module of ours run as a child that answers requests, one at a time, over pipes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from typing import Any, BinaryIO, cast

from qm.errors import PluginError
from qm.pipe import Failure, receive, send

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
GRACE_S = 5.0
TAIL_BYTES = 4096


class Gone(PluginError):
    """The child crashed, was killed or did not answer."""


class Process:
    """The child, seen from the parent. ``subject`` is what it is called in errors, which blame ``plugin``.

    It needs no ``__main__`` guard in the script that starts it, as it is a fresh interpreter that runs ``module``.
    """

    def __init__(self, module: str, *, threads: int, plugin: str, subject: str) -> None:
        self.plugin, self.subject = plugin, subject
        self._timeout_s = 0.0
        self._timed_out = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(threads),
        )

    @property
    def pid(self) -> int:
        """The child's number."""
        return self._child.pid

    def poll(self) -> int | None:
        """The child's exit code, None while it runs."""
        return self._child.poll()

    @property
    def is_closed(self) -> bool:
        """Whether the child is gone, by our will or by its own."""
        return self._stdin.closed

    def ask(self, verb: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Send one request and wait for its answer.

        Raises:
            QmError: what the child raised, by its own type.
            Gone: the child is gone.
        """
        if self.is_closed:
            raise Gone(self.plugin, f"{self.subject} is closed")
        watchdog = None if timeout_s is None else Timer(timeout_s, self._give_up)
        if watchdog is not None:
            self._timeout_s = timeout_s or 0.0
            watchdog.daemon = True
            watchdog.start()
        try:
            send(self._stdin, (verb, args))
            answer = receive(self._stdout)
        except (OSError, EOFError, ValueError):
            raise self._obituary() from None
        except BaseException:
            # An interrupt leaves a half-read answer in the pipe: the child is of no more use.
            self.kill()
            raise
        finally:
            if watchdog is not None:
                watchdog.cancel()
        if isinstance(answer, Failure):
            raise answer.error()
        return answer

    def close(self) -> None:
        """Let the child go; one that does not go is killed."""
        if self.poll() is None:
            with suppress(OSError):
                self._stdin.close()
            try:
                self._child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._release()

    def kill(self) -> None:
        """End the child at once."""
        self._child.kill()
        self._release()

    def stop(self, *, at_once: bool = False) -> None:
        """End the child from another thread than the one that waits for its answer, which then finds it gone."""
        if at_once:
            self._child.kill()
        else:
            self._child.terminate()

    @property
    def _stdin(self) -> BinaryIO:
        return cast(BinaryIO, self._child.stdin)

    @property
    def _stdout(self) -> BinaryIO:
        return cast(BinaryIO, self._child.stdout)

    def _give_up(self) -> None:
        self._timed_out = True
        self._child.kill()

    def _release(self) -> None:
        self._child.wait()
        with suppress(OSError):
            self._stdin.close()
        self._stdout.close()
        self._stderr.close()

    def _obituary(self) -> Gone:
        """Why the child is gone, its last words as a note."""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(GRACE_S)
        self._child.kill()
        code = self._child.wait()
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - TAIL_BYTES))
        words = self._stderr.read().decode(errors="replace").strip()
        self._release()
        message, hint = self._cause(code)
        error = Gone(self.plugin, message, hint=hint)
        if words:
            error.add_note(f"The child process wrote last:\n{words}")
        return error

    def _cause(self, code: int) -> tuple[str, str]:
        if self._timed_out:
            return (
                f"{self.subject} gave no answer within {self._timeout_s:g} s and was stopped",
                "Check that the model runs at all, and on one sample.",
            )
        if sys.platform != "win32" and code == -signal.SIGKILL:
            return (
                f"{self.subject} was killed, probably by the system for lack of memory",
                "Free some memory, or use fewer or smaller samples.",
            )
        if code < 0:
            return f"{self.subject} died of {_signal_name(-code)}", "Add --traceback to see what it wrote last."
        return f"{self.subject} ended with exit code {code}", "Add --traceback to see what it wrote last."


@contextmanager
def pipes() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """In the child: requests and answers. What a library prints goes to standard error, and it reads nothing."""
    with os.fdopen(os.dup(0), "rb") as requests, os.fdopen(os.dup(1), "wb") as answers:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        yield requests, answers


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment(threads: int) -> dict[str, str]:
    """This process's environment, with the same modules in reach and the same number of threads for every library."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONPATH": path}
