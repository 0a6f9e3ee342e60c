"""``qm benchmark``."""

from __future__ import annotations

import argparse

from qm.cli.flag import add_terms, terms_of

SUMMARY = "Time a model on its real runtime, against a baseline and on labelled samples where they are given."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("artifact", metavar="ARTIFACT", help="the model file to measure")
    parser.add_argument("--baseline", metavar="MODEL", help="the model to compare it with, timed in alternation")
    add_terms(parser)
    parser.epilog = "exit codes: 0 done, 2 usage, 4 a runtime failed, 130 interrupted"


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from qm.api import benchmark
    from qm.cli.live import Live
    from qm.cli.screen import write
    from qm.cli.show_benchmark import print_benchmark

    with Live() as live:
        report = benchmark(args.artifact, baseline=args.baseline, progress=live, watch=live.watch, **terms_of(args))
    if args.json:
        write(report.json_text())
    else:
        print_benchmark(report)
    return 0
