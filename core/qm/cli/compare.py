"""``qm compare``."""

from __future__ import annotations

import argparse

from qm.cli.flag import add_terms, terms_of

SUMMARY = "Compare models of any formats on the same samples by the same clock: size, speed, accuracy, Pareto front."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("models", metavar="MODEL", nargs="+", help="model files; the others are held against the first")
    add_terms(parser)
    parser.epilog = (
        "example:\n"
        "  qm compare net.onnx net.int8.onnx net.fp16.onnx --data test.npz --max-drop 1%\n\n"
        "exit codes: 0 done, 2 usage, 4 the runtime of a model failed, 130 interrupted"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from qm.api import compare
    from qm.cli.live import Live
    from qm.cli.screen import write
    from qm.cli.show_contest import print_contest

    with Live() as live:
        contest = compare(args.models, progress=live, watch=live.watch, **terms_of(args))
    if args.json:
        write(contest.json_text())
    else:
        print_contest(contest)
    return contest.exit_code
