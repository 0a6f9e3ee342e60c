"""``qm check``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qm.cli.flag import loss

if TYPE_CHECKING:
    from rich.text import Text

    from qm.check import Checked, Goal

SUMMARY = "Hold reports against goals, for continuous integration: exit code, JUnit XML, SARIF."

_SCALES = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_STEPS = {"": 0, "k": 1, "m": 2, "g": 3}


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument(
        "reports", metavar="REPORT", nargs="+", help="NAME.report.json, or what benchmark --json printed"
    )
    for name, (parse, metavar, told) in GOALS.items():
        parser.add_argument(f"--{name}", metavar=metavar, type=_goal(parse), help=told)
    parser.add_argument("--allow-unsure", action="store_true", help="let 'cannot tell' pass")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write JUnit XML")
    parser.add_argument("--sarif", metavar="FILE", type=Path, help="write SARIF 2.1.0")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = (
        "example:\n  qm check net.int8.onnx.report.json --max-drop 1% --max-size 100kB --min-speedup 1.2\n\n"
        "exit codes: 0 every goal is met, 1 one is missed or cannot be told, 2 usage, or the report lacks the figure,\n"
        "3 the audit had not accepted the artifact, 130 interrupted"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from qm.check import check, failure
    from qm.cli.screen import show_json

    outcomes = [check(report, _goals(args)) for report in args.reports]
    _write(args, outcomes)
    error = failure(outcomes, allow_unsure=args.allow_unsure)
    if args.json:
        reports = [outcome.model_dump(mode="json") for outcome in outcomes]
        show_json({"exit_code": error.exit_code if error else 0, "reports": reports})
    else:
        for outcome in outcomes:
            _print(outcome)
    if error is not None:
        raise error
    return 0


def nbytes(text: str) -> float:
    """``100kB``, ``1.5MB`` or ``300KiB`` in bytes; a bare number is bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(?:([kmg])(i?))?b?", text.strip(), re.IGNORECASE)
    if not found or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 100kB, 1.5MB or 300KiB")
    prefix = (found[2] or "").lower()
    return float(found[1]) * (1024 ** _STEPS[prefix] if found[3] else _SCALES[prefix])


def factor(text: str) -> float:
    """``1.2``, ``1.2x`` or ``120%`` as a number above 0."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([x%]?)", text.strip())
    value = float(found[1]) / (100 if found[2] == "%" else 1) if found else 0.0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a ratio such as 1.2 or 30%")
    return value


def decibel(text: str) -> float:
    """``20dB`` or ``20`` as a number."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(?:db)?", text.strip(), re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of decibels such as 20dB")
    return float(found[1])


def share(text: str) -> float:
    """``1%`` or ``0.01`` as a share below 1."""
    value = loss(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 1% or 0.01")
    return value


GOALS: dict[str, tuple[Callable[[str], float], str, str]] = {
    "max-drop": (share, "SHARE", "loss of accuracy that is allowed, such as 1%%: one point"),
    "max-size": (nbytes, "SIZE", "size of the file, such as 100kB, 1.5MB or 300KiB"),
    "max-ratio": (factor, "RATIO", "size over the original's, such as 0.3"),
    "min-speedup": (factor, "RATIO", "speed over the original's, such as 1.2"),
    "min-sqnr": (decibel, "DB", "SQNR of the worst output, such as 20dB"),
    "min-agreement": (share, "SHARE", "top-1 answers that stay as they were, such as 98%%"),
}


def _goal(parse: Callable[[str], float]) -> Callable[[str], tuple[float, str]]:
    """The bound, and the words it was given in."""
    return lambda text: (parse(text), text.strip())


def _goals(args: argparse.Namespace) -> list[Goal]:
    from qm.check import Goal

    told = {name: getattr(args, name.replace("-", "_")) for name in GOALS}
    return [Goal(name=name, bound=value[0], text=value[1]) for name, value in told.items() if value is not None]


def _write(args: argparse.Namespace, outcomes: Sequence[Checked]) -> None:
    """The files for CI: over those of the last run, but over nothing that was checked."""
    import json

    from qm.check.junit import junit
    from qm.check.sarif import sarif

    if args.junit is not None:
        _save(args.junit, "--junit", junit(outcomes, allow_unsure=args.allow_unsure), outcomes)
    if args.sarif is not None:
        made = json.dumps(sarif(outcomes, allow_unsure=args.allow_unsure), indent=2) + "\n"
        _save(args.sarif, "--sarif", made.encode(), outcomes)


def _save(path: Path, flag: str, content: bytes, outcomes: Sequence[Checked]) -> None:
    from qm.errors import UsageError
    from qm.file import written

    taken = {Path(p).resolve() for outcome in outcomes for p in (outcome.report, outcome.name)}
    hint = f"Name another file with {flag}."
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder", hint=hint)
    if path.resolve() in taken:
        raise UsageError(f"{flag} would overwrite {str(path)!r}, which is what is checked", hint=hint)
    try:
        with written(path, force=True) as temporary:
            temporary.write_bytes(content)
    except UsageError as e:
        raise UsageError(e.message, hint=e.hint if "mkdir" in e.hint else hint) from e


def _print(outcome: Checked) -> None:
    from rich.table import Table
    from rich.text import Text

    from qm.cli.screen import show

    rows = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(2):
        rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    for mark, what, seen in _rows(outcome):
        rows.add_row(mark, what, Text(seen))
    show(Text(outcome.name, style="bold"), rows)


def _rows(outcome: Checked) -> list[tuple[Text, str, str]]:
    from rich.text import Text

    from qm.report import Level

    styles = {"met": "green", "missed": "bold red", "cannot tell": "yellow", "no figure": "bold red"}
    rows = []
    if outcome.problem is not None:
        rows.append((Text("no report", "bold red"), "", outcome.problem.seen))
    if outcome.accepted is not None:
        mark = Text("met", "green") if outcome.accepted else Text("missed", "bold red")
        broken = [f.seen for f in outcome.findings if f.level is Level.BROKEN]
        words = f"{len(outcome.findings)} findings, none of them broken"
        rows.append((mark, "audit", words if outcome.accepted else "; ".join(broken) or "not accepted"))
    rows += [(Text(goal.answer, styles[goal.answer]), goal.goal, goal.seen) for goal in outcome.goals]
    return rows + [(Text("note", "cyan"), "", note) for note in outcome.notes]
