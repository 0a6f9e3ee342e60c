"""Which of several artifacts no other beats in everything at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qm.page.entry import AXIS, ORIGINAL, TITLE, Entry, Point, measure_of
from qm.page.figure import AFTER, BEFORE, GRID, PAPER, WIDE, place, plot
from qm.page.markup import Html, join, paragraph

HEIGHT, INSIDE = 286, 218
"""Pixels of a panel with its axes, and without."""


@dataclass(frozen=True)
class Panel:
    """One quantity across: as it is drawn, and as merit, of which more is better."""

    axis: str
    merit: Sequence[Point]
    xs: Sequence[Point]
    original: float


def front(rows: Sequence[Sequence[Point]]) -> list[int]:
    """Rows that no other beats: none is better in some column, and in all others too or exactly even.

    More is better. What cannot be told apart keeps a row on the front.
    """

    def beats(one: Sequence[Point], other: Sequence[Point]) -> bool:
        stands = [a.stands(b) for a, b in zip(one, other, strict=True)]
        return 1 in stands and None not in stands

    return [i for i, row in enumerate(rows) if not any(beats(other, row) for other in rows)]


def pareto(chosen: Sequence[Entry]) -> Html:
    """Accuracy over size, and over speed where that is known of all; nothing for fewer than two artifacts."""
    measure = measure_of(chosen)
    if len(chosen) < 2 or measure is None:
        return Html()
    worth = [p for e in chosen if (p := e.worth(measure)) is not None]
    speeds = [p for e in chosen if (p := e.speed()) is not None]
    sizes = [e.size() for e in chosen]
    panels = [Panel("% of the original's bytes", [_negative(p) for p in sizes], sizes, 100.0)]
    if len(speeds) == len(chosen):
        panels.append(Panel("times as fast as the original", speeds, speeds, 1.0))
    names = [e.name for e in chosen]
    best = front(list(zip(*(p.merit for p in panels), worth, strict=True)))

    def draw(figure: Figure, width: int) -> None:
        across = (width - 70) / len(panels) - 30 if width == WIDE else width - 90
        for i, panel in enumerate(panels):
            left, top = (60 + i * (across + 60), 16) if width == WIDE else (60, 16 + i * HEIGHT)
            axes = place(figure, left, top, across - (i * 30 if width == WIDE else 0), INSIDE)
            axes.set_xlabel(panel.axis)
            axes.set_ylabel(AXIS[measure] if i == 0 or width != WIDE else "")
            _fill(axes, panel, worth, best, ORIGINAL.get(measure))

    title = f"{TITLE[measure]} against size and speed: {', '.join(names)}"
    key = [("after", "on the front"), ("before", "beaten, or the original")]
    respects = ", ".join(["size", *(["speed"] if len(panels) > 1 else []), TITLE[measure].lower()])
    return join(
        plot(title, draw, lambda width: HEIGHT if width == WIDE else HEIGHT * len(panels), key=key),
        paragraph(
            f"On the front of {respects}: {', '.join(f'{i + 1} {names[i]}' for i in best)}. An artifact is beaten "
            "where another is better in one respect beyond both intervals, and not in doubt in the others."
        ),
    )


def _negative(point: Point) -> Point:
    return Point(-point.value, -point.high, -point.low, point.text)


def _fill(axes: Axes, panel: Panel, ys: Sequence[Point], best: Sequence[int], original: float | None) -> None:
    axes.grid(visible=True, linewidth=0.6)
    axes.tick_params(color=GRID)
    line = _estimated_front(panel, ys)
    axes.plot([panel.xs[i].value for i in line], [ys[i].value for i in line], color=AFTER, linewidth=1, linestyle="--")
    for i, (x, y) in enumerate(zip(panel.xs, ys, strict=True)):
        colour = AFTER if i in best else BEFORE
        axes.plot([x.low, x.high], [y.value, y.value], color=colour, linewidth=1.5)
        axes.plot([x.value, x.value], [y.low, y.high], color=colour, linewidth=1.5)
        axes.plot([x.value], [y.value], "o", color=colour, markersize=15, markeredgecolor=PAPER)
        axes.text(x.value, y.value, str(i + 1), color=PAPER, ha="center", va="center_baseline", fontsize=10, zorder=5)
    if original is not None:
        axes.plot(
            [panel.original], [original], "s", markerfacecolor=PAPER, markeredgecolor=BEFORE, markersize=8, zorder=1
        )
        side = -7 if panel.original > sum(axes.get_xlim()) / 2 else 7
        at: dict[str, Any] = {"textcoords": "offset points", "ha": "right" if side < 0 else "left", "fontsize": 11}
        axes.annotate("original", (panel.original, original), xytext=(side, -15), **at)
    axes.margins(x=0.18, y=0.16)
    axes.locator_params(nbins=6)


def _estimated_front(panel: Panel, ys: Sequence[Point]) -> list[int]:
    """The front of this panel alone by its estimates, from left to right."""
    rows = [[Point.exact(m.value, ""), Point.exact(y.value, "")] for m, y in zip(panel.merit, ys, strict=True)]
    return sorted(front(rows), key=lambda i: panel.xs[i].value)
