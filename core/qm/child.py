"""The other end of a worker: opens one artifact by its real runtime and does what the parent asks.

Run as ``python -m qm.child``; it speaks the messages of ``qm.pipe`` on its standard input and output.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter, process_time
from typing import BinaryIO

import numpy as np

from qm.catalog import Catalog
from qm.errors import PluginError, QmError
from qm.eviction import Eviction
from qm.manager import blame
from qm.memory import Memory
from qm.pipe import Failure, Opened, Order, Timed, receive, send
from qm.plugin import Benchmark, BenchmarkJob, Loader, LoadJob, Step
from qm.process import pipes
from qm.scheme import Scheme
from qm.types import Array, Batch, Layer, Model, Operator, OpTime, Session


@dataclass
class Bay:
    """One artifact, open, and the batch at hand."""

    order: Order
    session: Session
    memory: Memory
    catalog: Catalog
    eviction: Eviction | None = None
    batch: Batch = field(default_factory=dict)

    def run(self, batch: Batch) -> dict[str, Array]:
        outputs = self.session.run(batch)
        if not isinstance(outputs, Mapping):
            raise PluginError(
                self.order.benchmark, f"run returned {type(outputs).__name__}, not a dict of arrays by output name"
            )
        return {name: np.asarray(value) for name, value in outputs.items()}

    def hold(self, batch: Batch) -> None:
        self.batch = batch

    def block(self, runs: int, drop: int) -> Timed:
        run, batch, seconds = self.session.run, self.batch, [0.0] * runs
        collecting = gc.isenabled()
        gc.disable()
        try:
            for _ in range(drop):
                run(batch)
            if self.eviction is not None:
                return self._cold_block(runs, self.eviction)
            cpu_s = process_time()
            for i in range(runs):
                start = perf_counter()
                run(batch)
                seconds[i] = perf_counter() - start
            cpu_s = process_time() - cpu_s
        finally:
            if collecting:
                gc.enable()
        return Timed(seconds=seconds, cpu_s=cpu_s)

    def _cold_block(self, runs: int, eviction: Eviction) -> Timed:
        """The eviction is on neither clock."""
        run, batch, seconds, cpu_s = self.session.run, self.batch, [0.0] * runs, 0.0
        for i in range(runs):
            eviction.evict()
            cpu_start, start = process_time(), perf_counter()
            run(batch)
            seconds[i] = perf_counter() - start
            cpu_s += process_time() - cpu_start
        return Timed(seconds=seconds, cpu_s=cpu_s)

    def profile(self, batch: Batch) -> list[OpTime]:
        return list(self.session.profile(batch))

    def watch(self, batch: Batch, names: Sequence[str]) -> dict[str, Array]:
        return {name: np.asarray(value) for name, value in self.model.run(batch, watch=names).items()}

    def layers(self) -> list[Layer]:
        return list(self.model.layers())

    def schemes(self) -> dict[str, Scheme]:
        return dict(self.model.schemes())

    def operators(self) -> list[Operator]:
        return list(self.model.operators())

    def peak(self) -> int:
        return self.memory.peak_bytes()

    @cached_property
    def model(self) -> Model:
        """The artifact again, through the loader: what a runtime hides, the file tells."""
        if self.order.loader is None:
            raise PluginError(self.order.benchmark, "no loader was named to read the artifact's layers with")
        found = self.catalog.find(self.order.loader, Loader)
        job = LoadJob(path=self.order.artifact.path, options=found.card.options())
        step: Step[LoadJob, Model] = Step(self.order.loader, job, lambda: found.card.implementation()(job))
        return self.catalog.manager.perform("load", step, Model)


DOING = {
    "run": "running",
    "hold": "holding a batch for",
    "block": "running",
    "profile": "profiling",
    "watch": "watching the layers of",
    "layers": "listing the layers of",
    "schemes": "reading the schemes of",
    "operators": "listing the operations of",
    "peak": "weighing",
}


def opened(order: Order) -> tuple[Bay, Opened]:
    """Open the artifact, its runtime's import kept out of the load time and of the memory it takes."""
    catalog = Catalog()
    catalog.manager.activate(())
    found = catalog.find(order.benchmark, Benchmark)
    found.check_ready()
    with blame(order.benchmark, "importing it"):
        implementation = found.card.implementation()
    job = BenchmarkJob(artifact=order.artifact, threads=order.threads, options=found.card.options())
    step: Step[BenchmarkJob, Session] = Step(order.benchmark, job, lambda: implementation(job))
    # Before the baseline is taken: the buffer is ours and not the model's.
    eviction = Eviction() if order.cache == "cold" else None
    evict_s = eviction.evict() if eviction is not None else 0.0
    memory = Memory.now()
    start = perf_counter()
    session = catalog.manager.perform("benchmark", step, Session)
    load_s = perf_counter() - start
    with blame(order.benchmark, f"asking {order.name} for its inputs"):
        told = Opened(runtime=str(session.runtime), inputs=tuple(session.inputs()), load_s=load_s, evict_s=evict_s)
    return Bay(order, session, memory, catalog, eviction), told


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Do what is asked until the parent hangs up."""
    bay: Bay | None = None
    while True:
        try:
            verb, args = receive(requests)
        except EOFError:
            return
        try:
            if bay is None:
                bay, answer = opened(args[0])
            else:
                with blame(bay.order.benchmark, f"{DOING[verb]} {bay.order.name}"):
                    answer = getattr(bay, verb)(*args)
            send(answers, answer)
        except QmError as e:
            send(answers, Failure.of(e))
        except BrokenPipeError:
            return


def main() -> None:
    """Keep the pipes to ourselves: what a library prints goes to standard error, and it reads nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pipes() as (requests, answers):
        serve(requests, answers)


if __name__ == "__main__":
    main()
