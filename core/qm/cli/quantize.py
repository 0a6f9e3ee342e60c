"""``qm quantize``."""

from __future__ import annotations

import argparse
from pathlib import Path

from qm.cli.flag import seconds
from qm.cli.request import add_request, recipe_of

SUMMARY = "Make a model smaller and faster, check it, and report."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_request(parser)
    parser.add_argument("--benchmark", action="store_true", help="also time the result against the original")
    parser.add_argument("--time", type=seconds, default=20.0, help="how long the benchmark may take (20s)")
    parser.add_argument("--threads", metavar="N", type=int, default=1, help="threads of the benchmark (1)")
    parser.epilog = (
        "examples:\n"
        "  qm quantize net.onnx -p onnx.dynamic\n"
        "  qm quantize net.onnx -p onnx.ptq -o ranges=mse --data calib.npz --to net.int8.onnx\n\n"
        "exit codes: 0 done, 2 usage, 3 the audit failed, 4 a plugin failed, 130 interrupted"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from qm import page
    from qm.cli.session import run_of
    from qm.cli.show_report import print_report
    from qm.report import page_path

    draws = page.available()
    current = run_of(
        args, recipe_of(args), benchmark=args.benchmark, time_s=args.time, threads=args.threads, page=draws
    )
    if args.dry_run:
        print("\n".join(current.route.lines()))
        return 0
    report = current.quantize()
    if args.json:
        print(report.json_text(), end="")
    else:
        print_report(report)
        print(f"page: {page_path(Path(report.artifact.path))}" if draws else f"page: none; to get one, {page.HOW}")
    return 0
