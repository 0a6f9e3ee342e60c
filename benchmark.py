"""Measure a model: its inference time, its size and its accuracy.

A short way to say qm benchmark MODEL. Flags that are not listed here, such as --baseline, are those of qm benchmark,
and go to it as they are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qm.__main__ import Parser
from qm.__main__ import main as run_qm


def main() -> int:
    """Spell the command for ``qm`` and run it; its exit code."""
    args, rest = parser().parse_known_args()
    words = ["benchmark", args.model, *rest]
    data = data_for(args)
    if data is not None:
        words += ["--data", data]
    code = run_qm(words)
    if data is None and code == 0:
        tell("could not measure accuracy: it has no samples; give some with labels, --data FILE.npz:x_test,y_test")
    return code


def parser() -> Parser:
    """The flags of the script itself."""
    made = Parser(prog="benchmark.py", description=__doc__, allow_abbrev=False)
    made.add_argument("--model", required=True, help="the model to measure, quantized or not")
    made.add_argument(
        "--data",
        metavar="D",
        help="samples, as qm takes them; by default those that the report beside the model names, or NAME.npz beside "
        "NAME_quantized.tflite, less those that made the model",
    )
    return made


def data_for(args: argparse.Namespace) -> str | None:
    """The samples to judge by, None where there are none."""
    from qm.cli.beside import data_beside, fitting

    if args.data is not None:
        return fitting(args.data, "judge")
    beside = data_beside(Path(args.model), "judge")
    if beside is None:
        return None
    tell(f"takes the samples in {beside.data}: {beside.how}")
    return beside.data


def tell(text: str) -> None:
    """Say what is done on the user's behalf; standard output is for the result."""
    print(f"benchmark.py {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
