"""Does the clock call a model faster or slower than itself? Sets one artifact against itself, again and again.

    python benchmarks/clock_aa.py [MODEL] [--comparisons 60] [--time 15] [--load 1] [--threads 1]

MODEL is the demo's network by default. 60 comparisons take 15 minutes at most, for each ends when its time is up.
Meanwhile other processes keep cores busy (--load). Two figures come out: in how many comparisons the ratio was wrong by
more than 5 %, and how many 95 % intervals held 1. Exit code 1 where a figure misses its goal.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import resources
from pathlib import Path

from qm.catalog import Catalog
from qm.clock import compare
from qm.synthetic import synthetic
from qm.types import Artifact
from qm.worker import Worker

WRONG = 0.05
MOST_WRONG = 3 / 60
LEAST_HELD = 53 / 60
BUSY = "while True: pass"


def main() -> int:
    """Run the comparisons; print each as it comes, then both figures."""
    options = _options()
    begun = time.perf_counter()
    opener = opener_of(options.model, options.threads)
    with opener() as worker:
        (batch,) = synthetic(worker.inputs, 1, 0)
        print(f"{options.model.name} against itself by {worker.runtime}; {options.load} busy processes beside it")
    wrong = held = by_cpu = 0
    with busy(options.load):
        for i in range(options.comparisons):
            start = time.perf_counter()
            # The noise floor is not part of the question, so none is taken.
            found = compare(opener, opener, batch, time_s=options.time, precision=options.precision, noise=0.0, seed=i)
            took_s = time.perf_counter() - start
            wrong += abs(found.ratio - 1) > WRONG
            held += found.low <= 1 <= found.high
            by_cpu += found.cpu is not None and found.cpu.low <= 1 <= found.cpu.high
            shape = f"{found.rounds} x {found.blocks // found.rounds} blocks, {took_s:.1f} s"
            print(f"{i + 1:3}  {found.ratio:.3f}  {found.low:.3f} to {found.high:.3f}  {shape}", flush=True)
    n = options.comparisons
    most, least = math.floor(MOST_WRONG * n), math.ceil(LEAST_HELD * n)
    print(f"wrong by more than {WRONG:.0%}: {wrong} of {n} (goal: at most {most})")
    print(f"95 % intervals that hold 1: {held} of {n} (goal: at least {least})")
    print(f"the same by processor time: {by_cpu} of {n}")
    print(f"took {(time.perf_counter() - begun) / 60:.1f} minutes")
    return int(wrong > most or held < least)


def demo_model() -> Path:
    """The network that the demo quantizes."""
    return Path(str(resources.files("qm.demo") / "digits.onnx"))


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that do nothing, as fast as they can."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def opener_of(model: Path, threads: int) -> partial[Worker]:
    """Opens the model in a fresh process."""
    catalog = Catalog()
    fmt = catalog.loader(model).card.gives
    artifact = Artifact(path=model, format=fmt)
    return partial(Worker, artifact, benchmark=catalog.benchmark(fmt).plugin, threads=threads)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=demo_model())
    parser.add_argument("--comparisons", type=int, default=60)
    parser.add_argument("--time", type=float, default=15.0, help="seconds for one comparison")
    parser.add_argument("--precision", type=float, default=0.02, help="half width of the interval at which to stop")
    parser.add_argument("--load", type=int, default=1, help="busy processes beside it")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
