"""``qm tune``."""

from __future__ import annotations

import argparse
from pathlib import Path

from qm.cli.check import decibel, share
from qm.cli.flag import seconds
from qm.cli.request import add_load

SUMMARY = "Find the smallest model within an allowed loss, over all installed methods and their options."

EXECUTORS = ("inline", "processes", "ray")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("model", metavar="MODEL", help="the model: a file, a folder, or package.module:function")
    add_load(parser)
    parser.add_argument(
        "--data", metavar="D", required=True, help="samples: .npz, .npy, a folder of images, .toml, module:function"
    )
    parser.add_argument("--max-drop", type=share, metavar="SHARE", default=0.01, help="loss that is allowed (1%%)")
    parser.add_argument("--min-sqnr", type=decibel, metavar="DB", help="the goal in place of it, such as 30dB")
    parser.add_argument("--time", type=seconds, help="stop the search after this long; the verdict comes on top")
    parser.add_argument("--to", metavar="FOLDER", type=Path, help="where the front goes (NAME.tune beside the model)")
    parser.add_argument("--target", metavar="T", default="host", help="the device: host (default), x86-vnni ...")
    parser.add_argument("--suffix", metavar=".S", help="the only kind of file that is wanted, such as .tflite")
    parser.add_argument("--samples", metavar="N", type=int, help="how many samples calibrate; the others judge")
    parser.add_argument("--executor", choices=EXECUTORS, default="processes", help="who carries out trials (processes)")
    parser.add_argument("--workers", metavar="N", type=int, help="how many trials at a time (one a core, at most 8)")
    parser.add_argument(
        "--resume", action="store_true", help="go on, and complain where there is nothing to go on from"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of all that is random (0)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = (
        "example:\n"
        "  qm tune net.onnx --data labelled.npz --max-drop 1% --time 10m\n\n"
        "exit codes: 0 the goal is reached, 1 it is missed and the nearest model is handed over, 2 usage,\n"
        "3 the audit failed, 4 a plugin failed, 130 interrupted: the same command goes on"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from qm import page
    from qm.api import tune
    from qm.cli.live_search import Searching
    from qm.cli.screen import write
    from qm.cli.show_tuning import print_tuning
    from qm.progress import Bars

    with Searching() as live:
        tuning = tune(
            args.model,
            data=args.data,
            max_drop=args.max_drop,
            min_sqnr_db=args.min_sqnr,
            time_s=args.time,
            to=args.to,
            target=args.target,
            suffix=args.suffix,
            samples=args.samples,
            seed=args.seed,
            load=args.load,
            executor=args.executor,
            workers=args.workers,
            resume=args.resume,
            page=page.available(),
            progress=Bars(),
            watch=live.watch,
        )
    if args.json:
        write(tuning.json_text())
    else:
        print_tuning(tuning)
    return tuning.exit_code
