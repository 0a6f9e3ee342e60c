"""Size, speed and accuracy against the original: dots between the ends of their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qm.page.entry import ACCURACY, AXIS, ORIGINAL, TITLE, Entry, Point, measure_of
from qm.page.figure import AFTER, BAD, BEFORE, INK, MUTED, PAPER, WIDE, place, plot, shortened
from qm.page.markup import Html, join, paragraph

ROW, HEAD, FOOT = 42, 30, 44
"""Pixels of a row, and of a panel above and below its rows."""
BEHIND = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1}
"""What keeps a text readable where a line passes behind it."""


@dataclass(frozen=True)
class Panel:
    """One quantity of every entry; ``reference`` is what the original has of it."""

    title: str
    axis: str
    points: Sequence[Point | None]
    reference: float | None
    missing: str
    floor: float = 0.0
    """Half the width of the band about the reference in which nothing can be told."""
    margin: float | None = None


def overview(chosen: Sequence[Entry]) -> Html:
    """The dots, one row an entry and one panel a quantity."""
    panels = _panels(chosen)
    names = [f"{i + 1}  {e.name}" for i, e in enumerate(chosen)] if len(chosen) > 1 else [""]

    def height(width: int) -> int:
        tall = HEAD + ROW * len(names) + FOOT
        return tall if width == WIDE else tall * len(panels)

    title = f"Size, speed and accuracy of {', '.join(e.name for e in chosen)} against the original"
    notes = [p.missing for p in panels if any(point is None for point in p.points)]
    key = [("before", "the original"), ("after", "with its 95 % interval")]
    band = [" The grey band is the noise floor: what a model may differ from itself here and now."]
    return join(
        plot(title, _drawing(panels, names), height, *(band if panels[1].floor else []), key=key),
        (paragraph(note, class_="note") for note in dict.fromkeys(notes)),
    )


def _panels(chosen: Sequence[Entry]) -> list[Panel]:
    measure = measure_of(chosen)
    every = "" if len(chosen) == 1 else " for all by one measure"
    made_up = any(q.synthetic for e in chosen if (q := e.report.quality))
    floors = [e.report.speed.noise_floor for e in chosen if e.report.speed is not None]
    margins = [q.accuracy.margin for e in chosen if (q := e.report.quality) and q.accuracy and q.accuracy.margin]
    return [
        Panel("Size", "% of the original's bytes", [e.size() for e in chosen], 100.0, ""),
        Panel(
            "Speed",
            "times as fast as the original",
            [e.speed() for e in chosen],
            1.0,
            f"Speed was not measured{every}: add --benchmark to qm quantize.",
            floor=max(floors, default=0.0),
        ),
        Panel(
            (TITLE[measure] if measure else "Accuracy") + (" on made-up inputs" if made_up else ""),
            AXIS[measure] if measure else "",
            [e.worth(measure) if measure else None for e in chosen],
            ORIGINAL.get(measure or ""),
            f"How right the outputs are is not known{every}: give samples with --data.",
            margin=-100 * margins[0] if measure == ACCURACY and margins else None,
        ),
    ]


def _drawing(panels: Sequence[Panel], names: Sequence[str]) -> Callable[[Figure, int], None]:
    def draw(figure: Figure, width: int) -> None:
        left = 0 if names == [""] else 160 if width == WIDE else 100
        tall, gap = ROW * len(names), 26
        across = (width - left - gap * len(panels)) / len(panels) if width == WIDE else width - left - 2 * gap
        for i, panel in enumerate(panels):
            x = left + gap / 2 + i * (across + gap) if width == WIDE else left + gap
            y = HEAD if width == WIDE else HEAD + i * (HEAD + tall + FOOT)
            axes = place(figure, x, y, across, tall)
            _fill(axes, panel, len(names))
            if i == 0 or width != WIDE:
                axes.set_yticks(range(len(names)), [shortened(n, 22 if width == WIDE else 14) for n in names])
                axes.tick_params(axis="y", length=0, labelcolor=INK)

    return draw


def _fill(axes: Axes, panel: Panel, rows: int) -> None:
    axes.set_title(panel.title, pad=10)
    axes.set_ylim(rows - 0.5, -0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    known = [p for p in panel.points if p is not None]
    if not known:
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.text(0, 0.5, "not measured", transform=axes.transAxes, color=MUTED, va="center")
        return
    axes.set_xlabel(panel.axis)
    _limit(axes, panel, known)
    if panel.reference is not None:
        if panel.floor:
            low, high = panel.reference / (1 + panel.floor), panel.reference * (1 + panel.floor)
            axes.axvspan(low, high, color=BEFORE, alpha=0.18, linewidth=0)
        axes.axvline(panel.reference, color=BEFORE, linewidth=1.5)
    if panel.margin is not None:
        axes.axvline(panel.margin, color=BAD, linewidth=1.2, linestyle=(0, (4, 3)))
    for row, point in enumerate(panel.points):
        _dot(axes, row, point)


def _dot(axes: Axes, row: int, point: Point | None) -> None:
    if point is None:
        axes.text(axes.get_xlim()[0], row, "not measured", color=MUTED, va="center", fontsize=11)
        return
    axes.plot([point.low, point.high], [row, row], color=AFTER, linewidth=2.5, marker="|", markersize=9)
    axes.plot([point.value], [row], "o", color=AFTER, markersize=7)
    low, high = axes.get_xlim()
    middle = (point.value - low) / (high - low)
    side = "left" if middle < 0.3 else "right" if middle > 0.7 else "center"
    at = {"left": low, "center": point.value, "right": high}[side]
    axes.text(at, row - 0.32, point.text, ha=side, va="bottom", fontsize=11, bbox=BEHIND)


def _limit(axes: Axes, panel: Panel, known: Sequence[Point]) -> None:
    """The original and all intervals in sight, and zero too where the scale begins there."""
    ends = [v for p in known for v in (p.low, p.high)]
    if panel.reference is not None:
        ends.append(panel.reference)
    else:
        ends.append(0.0)
    if panel.margin is not None:
        ends.append(panel.margin)
    low, high = min(ends), max(ends)
    from_zero = panel.title in ("Size", "Speed")
    low = 0.0 if from_zero else low
    air = 0.08 * (high - low) or 1.0
    axes.set_xlim(low if from_zero else low - air, high + air)
    axes.locator_params(axis="x", nbins=5)
