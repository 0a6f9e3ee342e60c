"""An explanation on the terminal: what was lost, where, what was tried, and the causes last, where they are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from qm.cli.screen import show, table
from qm.cli.show_report import size
from qm.diagnosis.pair import some

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from qm.diagnosis import Explanation
    from qm.diagnosis.explanation import LayerError, Timing

SHOWN = 10


def print_explanation(explanation: Explanation, *, recipe: Path | None) -> None:
    """Print the explanation."""
    parts: list[RenderableType] = [Text(_headline(explanation), style="bold"), ""]
    if explanation.errors:
        parts += [*_errors(explanation), ""]
    if explanation.timing is not None:
        parts += [*_times(explanation.timing), ""]
    if explanation.remedies:
        parts += [Text("tried", style="bold"), _remedies(explanation), ""]
    parts += [Text(line) for line in _exclusion(explanation)]
    parts += [Text(f"· {note}", style="dim") for note in explanation.notes]
    parts += ["", *_causes(explanation)]
    if recipe is not None and explanation.recommended is not None:
        parts.append(Text(f"recipe: {recipe}", style="dim"))
    show(*parts)


def _headline(e: Explanation) -> str:
    made_up = " made-up" if e.synthetic else ""
    words = [f"{_db(e.sqnr_db)} to {e.baseline.path} on {e.samples}{made_up} samples"]
    if e.agreement is not None and not e.synthetic:
        words.append(f"top-1 agreement {e.agreement:.1%}")
    words.append(f"{e.artifact.nbytes / e.baseline.nbytes:.2f} of its size")
    if e.speed is not None:
        words.append(e.speed.sentence())
    return f"{e.artifact.path}: {', '.join(words)}"


def _errors(e: Explanation) -> list[RenderableType]:
    exact = e.saturation is not None
    alone = any(row.alone_db is not None for row in e.errors)
    columns = ["layer", "kind", "scheme", "output dB"] + ["exact dB"] * exact + ["arises here"]
    columns += ["alone dB", "of the error"] * alone
    rows = sorted(e.errors, key=_blame, reverse=True)[:SHOWN]
    more = len(e.errors) - len(rows)
    made = table(*columns, right=tuple(columns[3:]))
    for row in rows:
        cells = [row.layer, row.kind, row.scheme or "", _number(row.sqnr_db)]
        cells += [_number(row.exact_sqnr_db)] * exact + [f"{row.arises:.0%}"]
        cells += [_number(row.alone_db), "" if row.share is None else f"{row.share:.0%}"] * alone
        made.add_row(*map(Text, cells))
    return [Text(f"error by layer{f', the worst {SHOWN}' if more else ''}", style="bold"), made]


def _blame(row: LayerError) -> tuple[float, float]:
    added = row.arises * 10 ** (-row.sqnr_db / 10) if row.sqnr_db is not None else 0.0
    return row.share if row.share is not None else -1.0, added


def _times(timing: Timing) -> list[RenderableType]:
    title = f"time by operation, {timing.before_us:,.0f} us before and {timing.after_us:,.0f} us after"
    made = table("operation", "before us", "after us", "of the time", right=("before us", "after us", "of the time"))
    for kind in timing.kinds[:SHOWN]:
        share = kind.after_us / timing.after_us if timing.after_us else 0.0
        made.add_row(Text(kind.kind), f"{kind.before_us:,.0f}", f"{kind.after_us:,.0f}", f"{share:.0%}")
    if timing.borders:
        made.add_row(
            Text(f"borders ({timing.borders} of these)"), "", f"{timing.border_us:,.0f}", f"{timing.border_share:.0%}"
        )
    return [Text(title, style="bold"), made]


def _remedies(e: Explanation) -> Table:
    timed = any(r.speed is not None for r in e.remedies)
    columns = ("remedy", "dB", "gain", "size", *(["speed, to the artifact's"] * timed))
    made = table(*columns, right=columns[1:])
    for r in e.remedies:
        speed = "" if r.speed is None else f"{r.speed.ratio:.2f} ({r.speed.low:.2f} to {r.speed.high:.2f})"
        gain = "" if r.gain_db is None else f"{r.gain_db:+.1f}"
        made.add_row(Text(r.what), _number(r.sqnr_db), gain, size(r.nbytes), *([speed] * timed))
    return made


def _exclusion(e: Explanation) -> Iterator[str]:
    found = e.exclusion
    if found is None:
        return
    goal = f"the goal of {found.goal_db:.1f} dB"
    if found.layers is None:
        yield f"no list of layers to leave in float was found that reaches {goal}"
    elif not found.layers:
        yield f"no layer need stay in float to reach {goal}"
    else:
        smallest = "the smallest list found" if found.minimal else "the smallest list found in time"
        yield f"to leave in float: {', '.join(found.layers)} ({smallest} that reaches {goal}: {_db(found.sqnr_db)})"


def _causes(e: Explanation) -> Iterator[Text]:
    if not e.causes:
        yield Text("causes: nothing stands out", style="bold")
    is_faster = e.speed is not None and e.speed.answer == "faster"
    for number, cause in enumerate(e.causes, 1):
        about = "not faster still" if cause.about == "slower" and is_faster else cause.about
        yield Text.assemble((f"{number}. {about}: ", "bold"), cause.sentence)
        if len(cause.layers) > 1:
            yield Text(f"   layers: {some(cause.layers)}", style="dim")
        if cause.next:
            yield Text.assemble(("   next: ", "bold"), cause.next)


def _db(value: float | None) -> str:
    return "no error" if value is None else f"{value:.1f} dB"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
