"""A search on the terminal: a row a point of the front, then the model that was chosen and what became of the rest."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from qm.cli.screen import show, table
from qm.cli.show_contest import STYLES, labelled
from qm.cli.show_report import size
from qm.tuning import Best, Point, Tuning

BEST = "*"


def print_tuning(tuning: Tuning) -> None:
    """Print what was found."""
    lines = [*_answer(tuning), *_rest(tuning)]
    show(front_table(tuning.front, tuning.best), "", *(labelled(name, text) for name, text in lines))


def front_table(points: Sequence[Point], best: Best | None = None) -> Table:
    """A row a point, the largest first."""
    answers = any(p.kept is not None for p in points)
    judged = any(p.verdict is not None for p in points)
    optional = ["answers kept"] * answers + ["verdict"] * judged
    made = table(
        "method",
        "size",
        "ratio",
        "SQNR",
        "tried on",
        *optional,
        right=("size", "ratio", "SQNR", "tried on", "answers kept"),
    )
    for p in points:
        mark = f" {BEST}" if best is not None and p.name == best.name else ""
        cells: list[RenderableType] = [
            Text.assemble(p.name, (mark, "bold green")),
            size(p.nbytes),
            f"{p.ratio:.3f}",
            "identical" if p.sqnr_db is None else f"{p.sqnr_db:.1f} dB",
            str(p.tried_on),
        ]
        cells += ["" if p.kept is None else f"{100 * p.kept:.1f} %"] if answers else []
        cells += [_verdict(p)] if judged else []
        made.add_row(*cells)
    return made


def _verdict(point: Point) -> Text:
    if point.verdict is None:
        return Text("")
    answer = str(point.verdict.answer)
    return Text(answer, style=STYLES.get(answer, "yellow"))


def _answer(tuning: Tuning) -> list[tuple[str, str]]:
    best = tuning.best
    if best is None:
        return [("missed", f"nothing that was tried is smaller than the model, and {tuning.goal}")]
    chosen = f"{best.name}, {size(best.nbytes)}, {best.ratio:.3f} of the float size: {best.verdict.sentence}"
    if tuning.reached:
        lines = [("reached", f"{tuning.goal}: {chosen}")]
    else:
        missed = best.verdict.missed_by
        by = "" if missed is None else f", missed by {_amount(missed, tuning)}"
        lines = [("missed", f"{tuning.goal}{by}; the nearest is {chosen}")]
    lines += [("helps", text) for text in tuning.helps]
    return [*lines, ("file", best.file), ("recipe", best.recipe), ("report", best.report)]


def _amount(missed: float, tuning: Tuning) -> str:
    return f"{missed:.1f} dB" if "dB" in tuning.goal else f"{100 * missed:.1f} points at worst"


def _rest(tuning: Tuning) -> list[tuple[str, str]]:
    remembered = f", {tuning.remembered} remembered" if tuning.remembered else ""
    left = f", {tuning.untried} things not begun" if tuning.untried else ""
    over = "" if tuning.finished else "; time was up"
    workers = tuning.executor + (f", {tuning.lost_workers} of which died" if tuning.lost_workers else "")
    lines = [
        (
            "search",
            f"{tuning.trials} trials in {tuning.seconds:.0f} s{remembered}{left}, {workers}{over}",
        ),
        ("front", f"{tuning.folder}: {len(tuning.front)} models, each with its recipe"),
        ("note", f"verdicts are on {tuning.judged_on} samples that no trial saw; SQNR and answers kept are of trials"),
    ]
    if not tuning.labelled:
        lines.append(("note", "the samples have no labels: an answer that changed counts as lost"))
    lines += [("note", text) for text in tuning.notes]
    lines += [("left out", f"{name}: {reason}") for name, reason in tuning.left_out.items()]
    return lines + [("failed", f"{name}: {reason}") for name, reason in tuning.failed.items()]
