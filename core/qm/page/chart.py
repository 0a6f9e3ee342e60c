"""Charts that planners brought: one panel a series, one bar a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qm.chart import Chart
from qm.page.entry import Entry
from qm.page.figure import AFTER, GRID, MUTED, WIDE, place, plot
from qm.page.markup import Html, details, join, paragraph, section, table

HEAD, PANEL, FOOT = 34, 104, 46
"""Pixels above the bars of a panel, of the bars, and below those of the last one."""
LABELLED = 3
LISTED = 8


def charts(entry: Entry) -> Html:
    """A section for each chart of the report."""
    return join(section(chart.title, _chart(chart, entry)) for chart in entry.report.charts)


def _chart(chart: Chart, entry: Entry) -> Html:
    known = {name: values for name, values in chart.series.items() if any(v is not None for v in values)}
    if not known:
        return Html()
    tall = (HEAD + PANEL) * len(known) + FOOT
    listed = _listed(chart, list(known.values()))
    return join(
        plot(f"{chart.title} of {entry.name}", _drawing(chart, known), lambda _: tall),
        paragraph(chart.reading, class_="note") if chart.reading else Html(),
        _table(chart, known, listed),
        details(f"All {len(chart.names)}", _table(chart, known, range(len(chart.names))))
        if len(listed) < len(chart.names)
        else Html(),
    )


def _listed(chart: Chart, series: Sequence[Sequence[float | None]]) -> list[int]:
    """The names whose values reach farthest, in any series, the farthest first."""
    reach = [max((abs(v) for values in series if (v := values[i]) is not None), default=0.0) for i in _all(chart)]
    return sorted(_all(chart), key=lambda i: -reach[i])[:LISTED]


def _all(chart: Chart) -> range:
    return range(len(chart.names))


def _table(chart: Chart, series: Mapping[str, Sequence[float | None]], places: Sequence[int]) -> Html:
    rows = [(str(i + 1), chart.names[i], *(_number(values[i]) for values in series.values())) for i in places]
    return table(
        ("#", "name", *(f"{name}, {chart.unit}" for name in series)), rows, numbers=(0, *range(2, len(series) + 2))
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}".replace("-", "−")


def _drawing(chart: Chart, series: Mapping[str, Sequence[float | None]]) -> Callable[[Figure, int], None]:
    def draw(figure: Figure, width: int) -> None:
        for row, (name, values) in enumerate(series.items()):
            axes = place(figure, 58, HEAD + row * (HEAD + PANEL), width - 74, PANEL)
            _bars(axes, values)
            axes.set_title(f"{name}, {chart.unit}", pad=8)
            axes.set_xlim(0.3, len(chart.names) + 0.7)
            axes.locator_params(axis="x", nbins=10 if width == WIDE else 5, integer=True)
            axes.locator_params(axis="y", nbins=4)
            if row < len(series) - 1:
                axes.set_xticklabels([])
            else:
                axes.set_xlabel(chart.across)

    return draw


def _bars(axes: Axes, values: Sequence[float | None]) -> None:
    """One panel, its farthest bars by number; each has a scale of its own, since series may differ by orders."""
    known = [(i + 1, v) for i, v in enumerate(values) if v is not None]
    axes.grid(visible=True, axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.bar([i for i, _ in known], [v for _, v in known], width=0.76, color=AFTER)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_color(GRID)
    low, high = min(0.0, *(v for _, v in known)), max(0.0, *(v for _, v in known))
    air = 0.2 * (high - low) or 1.0
    axes.set_ylim(low - air * (low < 0), high + air * (high > 0))
    for i, value in sorted(known, key=lambda pair: -abs(pair[1]))[:LABELLED]:
        below = value < 0
        at = (0, -3 if below else 3)
        axes.annotate(
            str(i),
            (i, value),
            xytext=at,
            textcoords="offset points",
            ha="center",
            va="top" if below else "bottom",
            fontsize=10.5,
        )
