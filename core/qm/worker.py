"""One child process for one artifact, opened there by its real runtime.

A runtime that crashes, hangs or eats the memory takes the child with it, never the caller; and two artifacts timed
against each other share no allocator, no thread pool and no cached state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from qm.errors import QmError
from qm.pipe import Opened, Order, Timed
from qm.process import Process
from qm.scheme import Scheme
from qm.types import Array, Artifact, Batch, Cache, Layer, Operator, OpTime, TensorSpec


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
        self._process = Process(
            "qm.child", threads=threads, plugin=benchmark, subject=f"the process that ran {artifact.path.name!r}"
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
        self._process.close()

    @property
    def is_closed(self) -> bool:
        """Whether the child is gone, by our will or by its own."""
        return self._process.is_closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Worker {self.artifact.path.name} by {self.benchmark}, {self.threads} threads>"

    def _ask(self, verb: str, *args: Any) -> Any:
        """Send one request and wait for its answer."""
        try:
            return self._process.ask(verb, *args, timeout_s=self.timeout_s)
        except QmError:
            if verb == "open" and not self.is_closed:
                self._process.kill()
            raise


def _plain(batch: Batch) -> dict[str, Array]:
    return {name: np.asarray(value) for name, value in batch.items()}
