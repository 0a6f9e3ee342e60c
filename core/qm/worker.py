"""One child process for one artifact, opened there by its real runtime.

A runtime that crashes, hangs or eats the memory takes the child with it, never the caller; and two artifacts timed
against each other share no allocator, no thread pool and no cached state.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from threading import Timer
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import numpy as np

from qm.errors import PluginError
from qm.pipe import Failure, Opened, Order, Timed, receive, send
from qm.scheme import Scheme
from qm.types import Array, Artifact, Batch, Cache, Layer, Operator, OpTime, TensorSpec

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
GRACE_S = 5.0
TAIL_BYTES = 4096


class Worker:
    """An artifact open in a process of its own; close it, or use it as a context manager.

    ``benchmark`` and ``loader`` are full card names, such as ``onnx.run``; the loader is needed for ``layers``,
    ``schemes`` and ``activations`` only. With a ``cold`` cache every timed run begins with the caches emptied, which
    takes ``evict_s``. ``timeout_s`` bounds each single request.

    Raises:
        QmError: what the child raised, by its own type; PluginError where it crashed, was killed or did not answer.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        benchmark: str,
        loader: str | None = None,
        threads: int = 1,
        cache: Cache = "hot",
        timeout_s: float = 600.0,
    ) -> None:
        self.artifact = artifact
        self.benchmark = benchmark
        self.threads = threads
        self.cache: Cache = cache
        self.timeout_s = timeout_s
        self._held: Batch | None = None
        self._timed_out = False
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the worker
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "qm.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(threads),
        )
        order = Order(artifact=artifact, benchmark=benchmark, loader=loader, threads=threads, cache=cache)
        opened = cast(Opened, self._ask("open", order))
        self.runtime: str = opened.runtime
        self.inputs: tuple[TensorSpec, ...] = opened.inputs
        self.load_s: float = opened.load_s
        self.evict_s: float = opened.evict_s

    def run(self, batches: Iterable[Batch]) -> Iterator[dict[str, Array]]:
        """The outputs of each batch in turn; one is under way at a time, and none is kept."""
        for batch in batches:
            yield self._ask("run", _plain(batch))

    def block(self, batch: Batch, *, runs: int, drop: int) -> list[float]:
        """Seconds of each of ``runs`` runs in a row, after ``drop`` that are not timed."""
        return self.timed(batch, runs=runs, drop=drop).seconds

    def timed(self, batch: Batch, *, runs: int, drop: int) -> Timed:
        """A block, with processor time beside the wall's.

        The child's own clock times it, and the batch is sent once for as long as it is the same object.
        """
        if batch is not self._held:
            self._ask("hold", _plain(batch))
            self._held = batch
        return cast(Timed, self._ask("block", runs, drop))

    def profile(self, batch: Batch) -> list[OpTime]:
        """Time per operation, where the runtime can tell."""
        return cast(list[OpTime], self._ask("profile", _plain(batch)))

    def activations(self, batch: Batch, watch: Sequence[str]) -> dict[str, Array]:
        """Outputs by name, and the watched layers' activations by layer name, by the loader's model."""
        return cast(dict[str, Array], self._ask("watch", _plain(batch), tuple(watch)))

    def layers(self) -> list[Layer]:
        """The artifact's layers, as its loader reads them."""
        return cast(list[Layer], self._ask("layers"))

    def schemes(self) -> dict[str, Scheme]:
        """What each layer is in, as its loader reads it."""
        return cast(dict[str, Scheme], self._ask("schemes"))

    def operators(self) -> list[Operator]:
        """The artifact's operations, as its loader reads them."""
        return cast(list[Operator], self._ask("operators"))

    def peak_bytes(self) -> int:
        """Resident memory of the child at its worst so far, less what it held just before it opened the artifact."""
        return cast(int, self._ask("peak"))

    def close(self) -> None:
        """Let the child go; one that does not go is killed."""
        if self._process.poll() is None:
            with suppress(OSError):
                self._stdin.close()
            try:
                self._process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._release()

    @property
    def is_closed(self) -> bool:
        """Whether the child is gone, by our will or by its own."""
        return self._stdin.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Worker {self.artifact.path.name} by {self.benchmark}, {self.threads} threads>"

    @property
    def _stdin(self) -> BinaryIO:
        return cast(BinaryIO, self._process.stdin)

    @property
    def _stdout(self) -> BinaryIO:
        return cast(BinaryIO, self._process.stdout)

    def _ask(self, verb: str, *args: Any) -> Any:
        """Send one request and wait for its answer."""
        if self.is_closed:
            raise PluginError(self.benchmark, f"the process for {self.artifact.path.name!r} is closed")
        watchdog = Timer(self.timeout_s, self._give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            send(self._stdin, (verb, args))
            answer = receive(self._stdout)
        except (OSError, EOFError):
            raise self._obituary() from None
        except BaseException:
            # An interrupt leaves a half-read answer in the pipe: the child is of no more use.
            self._kill()
            raise
        finally:
            watchdog.cancel()
        if isinstance(answer, Failure):
            if verb == "open":
                self._kill()
            raise answer.error()
        return answer

    def _give_up(self) -> None:
        self._timed_out = True
        self._process.kill()

    def _kill(self) -> None:
        self._process.kill()
        self._release()

    def _release(self) -> None:
        self._process.wait()
        with suppress(OSError):
            self._stdin.close()
        self._stdout.close()
        self._stderr.close()

    def _obituary(self) -> PluginError:
        """Why the child is gone, its last words as a note."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        self._process.kill()
        code = self._process.wait()
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - TAIL_BYTES))
        words = self._stderr.read().decode(errors="replace").strip()
        self._release()
        message, hint = self._cause(code)
        error = PluginError(self.benchmark, message, hint=hint)
        if words:
            error.add_note(f"The child process wrote last:\n{words}")
        return error

    def _cause(self, code: int) -> tuple[str, str]:
        subject = f"the process that ran {self.artifact.path.name!r}"
        if self._timed_out:
            return (
                f"{subject} gave no answer within {self.timeout_s:g} s and was stopped",
                "Check that the model runs at all, and on one sample.",
            )
        if sys.platform != "win32" and code == -signal.SIGKILL:
            return (
                f"{subject} was killed, probably by the system for lack of memory",
                "Free some memory, or use fewer or smaller samples.",
            )
        if code < 0:
            return f"{subject} died of {_signal_name(-code)}", "Add --traceback to see what it wrote last."
        return f"{subject} ended with exit code {code}", "Add --traceback to see what it wrote last."


def _plain(batch: Batch) -> dict[str, Array]:
    return {name: np.asarray(value) for name, value in batch.items()}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment(threads: int) -> dict[str, str]:
    """This process's environment, with the same modules in reach and the same number of threads for every library."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONPATH": path}
