"""``qm benchmark``."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qm.bench import BenchmarkReport

SUMMARY = "Time a model on its real runtime, against a baseline and on labelled samples where they are given."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("artifact", metavar="ARTIFACT", help="the model file to measure")
    parser.add_argument("--baseline", metavar="MODEL", help="the model to compare it with, timed in alternation")
    parser.add_argument("--data", metavar="D", help="samples: .npz, .npy, a folder of images, .toml, module:function")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads of the runtime (1)")
    parser.add_argument("--precision", type=share, default=0.02, help="stop when the interval is this narrow (2%%)")
    parser.add_argument("--time", type=seconds, default=60.0, help="stop after this long in any case (60s)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of all that is random (0)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "exit codes: 0 done, 2 usage, 4 a runtime failed, 130 interrupted"


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from qm.api import benchmark
    from qm.progress import Bars

    report = benchmark(
        args.artifact,
        baseline=args.baseline,
        data=args.data,
        threads=args.threads,
        precision=args.precision,
        time_s=args.time,
        seed=args.seed,
        progress=Bars(),
    )
    if args.json:
        print(report.model_dump_json(indent=1))
    else:
        _print(report)
    return 0


def _print(report: BenchmarkReport) -> None:
    from qm.cli.show_report import quality_words, size

    ratio = ""
    if report.baseline is not None:
        ratio = f", {report.artifact.nbytes / report.baseline.nbytes:.2f} of {report.baseline.path}"
    print(report.artifact.path)
    print(f"size      {size(report.artifact.nbytes)}{ratio}")
    if report.latency is not None:
        print(f"time      {report.latency.sentence()}")
    if report.speed is not None:
        print(f"speed     {report.speed.sentence()}")
        print(f"before    {report.speed.before.sentence()}")
        print(f"after     {report.speed.after.sentence()}")
    if report.accuracy is not None:
        print(f"accuracy  {report.accuracy:.1%} of {report.samples} samples")
    if report.quality is not None:
        for words in quality_words(report.quality):
            print(f"answers   {words}")
    for note in report.notes:
        print(f"note      {note}")


def seconds(text: str) -> float:
    """``90``, ``90s``, ``1.5m`` or ``1h`` in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smh]?)", text)
    if not found or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 60s or 2m")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def share(text: str) -> float:
    """``2%`` or ``0.02`` as a share."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(%?)", text)
    value = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 2% or 0.02")
    return value
