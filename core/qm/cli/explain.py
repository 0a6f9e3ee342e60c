"""``qm explain``."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from qm.cli.flag import seconds

SUMMARY = "Say why an artifact is slower or worse than the model it was made of, and try remedies."


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("artifact", metavar="ARTIFACT", help="the quantized model file")
    parser.add_argument("--baseline", metavar="MODEL", required=True, help="the model that it was made of")
    parser.add_argument("--data", metavar="D", help="samples: .npz, .npy, a folder of images, .toml, module:function")
    parser.add_argument("--samples", metavar="N", type=count, help="how many samples judge (32)")
    parser.add_argument("--goal", metavar="DB", type=decibel, help="error to bring it to, such as 20dB (6 dB better)")
    parser.add_argument("--time", metavar="S", type=seconds, default=120.0, help="stop trying after this long (120s)")
    parser.add_argument("--threads", metavar="N", type=count, default=1, help="threads of the runtime (1)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of all that is random (0)")
    parser.add_argument("--recipe", metavar="FILE", help="write the recipe that mends it, in TOML or JSON")
    parser.add_argument("--force", action="store_true", help="overwrite the recipe")
    parser.add_argument("--no-try", dest="tries", action="store_false", help="measure only, and try no remedy")
    parser.add_argument("--no-time", dest="times", action="store_false", help="explain the error alone, not the speed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "exit codes: 0 done, 2 usage, 4 a plugin failed, 130 interrupted (what was found is printed)"


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from qm.cli.screen import write
    from qm.cli.show_explanation import print_explanation
    from qm.diagnosis import Question, explain
    from qm.file import refuse_overwrite
    from qm.progress import Bars

    place = Path(args.recipe) if args.recipe else None
    if place is not None:
        refuse_overwrite(place, force=args.force)
    question = Question(
        artifact=Path(args.artifact),
        baseline=Path(args.baseline),
        data=args.data,
        samples=args.samples,
        time_s=args.time,
        goal_db=args.goal,
        tries=args.tries,
        times=args.times,
        threads=args.threads,
        seed=args.seed,
        recipe_to=place,
    )
    explanation = explain(question, progress=Bars())
    if place is not None and explanation.recommended is not None:
        explanation.recommended.write(place, force=args.force)
    if args.json:
        write(explanation.model_dump_json(indent=1) + "\n")
    else:
        print_explanation(explanation, recipe=place)
    return 130 if explanation.stopped_by == "interrupt" else 0


def decibel(text: str) -> float:
    """``20``, ``20dB`` or ``20 dB``."""
    found = re.fullmatch(r"(-?\d+(?:\.\d*)?)\s*(?:db)?", text, re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not an error such as 20dB")
    return float(found[1])


def count(text: str) -> int:
    """A number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)
