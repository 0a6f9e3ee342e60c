"""Does the clock's interval hold a ratio that is known? Sets a model against one that does its work twice.

    python benchmarks/clock_ratio.py [MODEL] [--long 120] [--comparisons 20] [--time 10] [--load 1] [--threads 1]

MODEL is an .onnx file, the demo's network by default. The other model is the same graph beside a copy of itself on the
same input, both results put out. One long run tells the true ratio, near a half; then short ones are taken, each with
its interval. Meanwhile other processes keep cores busy (--load). Exit code 1 where too few intervals hold the ratio of
the long run. That has an interval of its own, which is printed with the number of intervals that meet it: the more it
leaves open, the longer it should be.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from clock_aa import LEAST_HELD, busy, demo_model, opener_of
from onnx import compose, numpy_helper

from qm.clock import compare
from qm.synthetic import synthetic

NEVER = 0.0
"""A precision that is never reached, so that the whole time is used."""
NUDGE = 1e-3
"""The copy's weights are larger by this share, or the runtime might find that both are the same and run one."""


def main() -> int:
    """The long run, the short ones, and how many of these hold the ratio of that."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        double = Path(folder) / f"{options.model.stem}.twice.onnx"
        onnx.save(twice(onnx.load(options.model)), double)
        once, both = (opener_of(path, options.threads) for path in (options.model, double))
        with once() as worker:
            (batch,) = synthetic(worker.inputs, 1, 0)
            print(f"{options.model.name} against twice its work by {worker.runtime}; {options.load} busy processes")
        with busy(options.load):
            long = compare(once, both, batch, time_s=options.long, precision=NEVER, noise=0.0)
            print(f"long run: {long.ratio:.4f}  {long.low:.4f} to {long.high:.4f}  {long.rounds} rounds", flush=True)
            held = met = 0
            for i in range(options.comparisons):
                start = time.perf_counter()
                found = compare(once, both, batch, time_s=options.time, noise=0.0, seed=i + 1)
                holds = found.low <= long.ratio <= found.high
                held += holds
                met += found.low <= long.high and found.high >= long.low
                shape = f"{found.rounds} x {found.blocks // found.rounds} blocks, {time.perf_counter() - start:.1f} s"
                mark = "" if holds else "  misses"
                print(f"{i + 1:3}  {found.ratio:.4f}  {found.low:.4f} to {found.high:.4f}  {shape}{mark}", flush=True)
    least = math.floor(LEAST_HELD * options.comparisons)
    print(f"95 % intervals that hold the long run's ratio: {held} of {options.comparisons} (goal: at least {least})")
    print(f"that meet its interval: {met} of {options.comparisons}")
    return int(held < least)


def twice(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph beside a copy of itself that reads the same inputs; the outputs of both."""
    copy = compose.add_prefix(model, "again/", rename_inputs=False)
    for tensor in copy.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values * np.float32(1 + NUDGE), tensor.name))
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.node.extend(copy.graph.node)
    made.graph.initializer.extend(copy.graph.initializer)
    made.graph.output.extend(copy.graph.output)
    onnx.checker.check_model(made)
    return made


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=demo_model())
    parser.add_argument("--long", type=float, default=120.0, help="seconds for the run that tells the true ratio")
    parser.add_argument("--comparisons", type=int, default=20)
    parser.add_argument("--time", type=float, default=10.0, help="seconds for one short comparison")
    parser.add_argument("--load", type=int, default=1, help="busy processes beside it")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
