"""Error by layer, in the order in which layers run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qm.page.entry import Entry, decibels
from qm.page.figure import AFTER, BAD, BEFORE, MUTED, WIDE, place, plot
from qm.page.markup import Html, join, paragraph, table

WORST = 5
LISTED = 8


@dataclass(frozen=True)
class Row:
    """One layer by its number in the plan; ``sqnr_db`` is None where its output is identical."""

    number: int
    name: str
    scheme: str
    sqnr_db: float | None

    @property
    def is_quantized(self) -> bool:
        """Whether the artifact has it in anything but float."""
        return self.scheme not in ("float", "")


def error_by_layer(entry: Entry) -> Html:
    """SQNR along the network, the worst layers by number and name; nothing where it is not known."""
    report = entry.report
    numbers = {name: i + 1 for i, name in enumerate(report.plan)}
    rows = [
        Row(numbers.get(e.layer, i + 1), e.layer, report.schemes.get(e.layer, ""), e.sqnr_db)
        for i, e in enumerate(report.error_by_layer)
    ]
    known = [(row.sqnr_db, row) for row in rows if row.sqnr_db is not None]
    if not known:
        return Html()
    ranked = sorted(known, key=lambda pair: pair[0])
    marked = [row for _, row in ranked[: min(WORST, max(1, len(known) // 4))]]
    in_float = [("before", "in float")] if not all(row.is_quantized for row in rows) else []
    return join(
        plot(
            f"Error by layer of {entry.name}",
            _drawing(rows, marked),
            lambda _: 252,
            key=[("after", "quantized"), *in_float, ("bad", "the worst")],
        ),
        paragraph(_reading(rows), class_="note"),
        table(
            ("#", "layer", "scheme", "SQNR, dB"),
            [(str(row.number), row.name, row.scheme, decibels(sqnr)) for sqnr, row in ranked[:LISTED]],
            numbers=(0, 3),
        ),
    )


def _drawing(rows: Sequence[Row], marked: Sequence[Row]) -> Callable[[Figure, int], None]:
    values = [row.sqnr_db for row in rows if row.sqnr_db is not None]
    low, high = min(values), max(values)
    air = high - low or 1.0
    top = high + 0.08 * air

    def draw(figure: Figure, width: int) -> None:
        axes = place(figure, 52, 12, width - 72, 190)
        axes.grid(visible=True, axis="y", linewidth=0.6)
        axes.plot([r.number for r in rows if r.sqnr_db is not None], values, color=MUTED, linewidth=0.8, alpha=0.6)
        for row in rows:
            _dot(axes, row, top, worst=row in marked)
        axes.set_ylim(low - 0.16 * air, top + 0.06 * air)
        axes.set_xlim(0, rows[-1].number + 1)
        axes.set_xlabel("layer, in the order in which they run")
        axes.set_ylabel("SQNR, dB: higher is better")
        axes.locator_params(axis="x", nbins=10 if width == WIDE else 5, integer=True)

    return draw


def _dot(axes: Axes, row: Row, top: float, *, worst: bool) -> None:
    colour = BAD if worst else AFTER if row.is_quantized else BEFORE
    value, marker = (top, "^") if row.sqnr_db is None else (row.sqnr_db, "o")
    axes.plot([row.number], [value], marker, color=colour, markersize=5)
    if worst:
        below: dict[str, Any] = {"xytext": (0, -15), "textcoords": "offset points", "ha": "center", "fontsize": 11}
        axes.annotate(str(row.number), (row.number, value), **below)


def _reading(rows: Sequence[Row]) -> str:
    """What to make of it: where the curve falls, not where it is low."""
    values = np.array([np.nan if row.sqnr_db is None else row.sqnr_db for row in rows])
    text = "The error of a layer holds what came in from the layers before it, so look at where the curve falls"
    if len(rows) > 1 and np.isfinite(drops := np.diff(values)).any():
        i = int(np.nanargmin(drops))
        if drops[i] < 0:
            text += f": most from {rows[i].name} to {rows[i + 1].name}, by {-drops[i]:.1f} dB"
    identical = int(np.isnan(values).sum())
    return text + (f". A triangle is a layer whose output is identical ({identical})." if identical else ".")
