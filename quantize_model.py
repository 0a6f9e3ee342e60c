"""Quantize a Keras or TensorFlow model.

A short way to say qm quantize MODEL -p tf.ptq, or -p tf.qat. Flags that are not listed here are those of qm quantize,
and go to it as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from pathlib import Path

from qm.__main__ import Parser
from qm.__main__ import main as run_qm

METHODS = {"post_training": "tf.ptq", "quantization_aware": "tf.qat"}


def main() -> int:
    """Spell the command for ``qm`` and run it; its exit code."""
    args, rest = parser().parse_known_args()
    words = ["quantize", args.model, "-p", METHODS[args.method], *rest, "--to", args.output]
    if data := data_for(args, rest):
        words += ["--data", data]
    output = Path(args.output)
    if Path(args.model).exists():
        with contextlib.suppress(OSError):  # qm says why the folder is not there.
            output.parent.mkdir(parents=True, exist_ok=True)
    is_ours = output.with_name(f"{output.name}.report.json").is_file()
    if args.force or is_ours:
        words.append("--force")
        if output.is_file():
            tell(f"replaces {output}" + (", which an earlier run wrote" if is_ours else ""))
    tell(f"runs {shlex.join(['qm', *words])}")
    sys.argv = ["qm", *words]  # The report keeps the command.
    return run_qm(words)


def parser() -> Parser:
    """The flags of the script itself."""
    made = Parser(prog="quantize_model.py", description=__doc__, allow_abbrev=False)
    made.add_argument("--model", required=True, help=".h5, .keras, .tflite or a SavedModel folder")
    made.add_argument("--output", "--to", required=True, help="the .tflite file to write; its folder is made")
    made.add_argument("--method", choices=METHODS, default="post_training", help="post_training is the default")
    made.add_argument(
        "--data", metavar="D", help="samples, as qm takes them; NAME.npz beside NAME.h5 by default, where that is there"
    )
    made.add_argument("--force", action="store_true", help="replace a file that was not written by an earlier run")
    return made


def data_for(args: argparse.Namespace, rest: list[str]) -> str | None:
    """The samples to quantize with, None where there are none."""
    from qm.cli.beside import data_beside, fitting

    if args.data is not None:
        return fitting(args.data, "make")
    beside = data_beside(Path(args.model), "make")
    if beside is not None:
        tell(f"takes the samples in {beside.data}: {beside.how}")
        return beside.data
    if args.method == "post_training" and not {"--scheme", "--recipe"} & {word.split("=")[0] for word in rest}:
        tell("has no samples, so weights alone are quantized ahead (dynamic range); --data makes it full integer")
    return None


def tell(text: str) -> None:
    """Say what is done on the user's behalf; standard output is for the result."""
    print(f"quantize_model.py {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
