"""What calibration saw of the tensors that lose most, with the range that the integers cover."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qm.page.entry import Entry
from qm.page.figure import AFTER, BEFORE, MUTED, WIDE, place, plot, shortened
from qm.page.markup import Html, details, join, table
from qm.report import Spread

EACH = 190


def activations(entry: Entry) -> Html:
    """One histogram a tensor, worst first; nothing where the method hands none over."""
    spreads = entry.report.activations
    if not spreads:
        return Html()

    def draw(figure: Figure, width: int) -> None:
        columns = 3 if width == WIDE else 1
        across = width / columns
        for i, spread in enumerate(spreads):
            left, top = i % columns * across, i // columns * EACH
            axes = place(figure, left + 60, top + 42, across - 74, EACH - 76)
            _fill(axes, spread, int((across - 50) / 7))

    drawing = plot(
        f"Histograms of the activations with the largest error expected in {entry.name}",
        draw,
        lambda width: EACH * math.ceil(len(spreads) / (3 if width == WIDE else 1)),
        "Share of values on a logarithmic scale. What lies outside of the range is clipped to its ends; a wide range "
        "makes coarse steps.",
        key=[("before", "values seen in calibration"), ("after", "the range that the integers cover")],
    )
    rows = [(s.tensor, s.layer, _range(s.edges[0], s.edges[-1]), _range(s.low, s.high), str(s.bits)) for s in spreads]
    head = ("tensor", "first used at", "seen", "range", "bits")
    return join(drawing, details("Their names and ranges", table(head, rows, numbers=(4,))))


def _range(low: float, high: float) -> str:
    return f"{low:.4g} to {high:.4g}".replace("-", "−")


def _fill(axes: Axes, spread: Spread, letters: int) -> None:
    axes.text(0, 1.27, shortened(spread.layer or spread.tensor, letters), transform=axes.transAxes, fontweight="bold")
    axes.text(0, 1.09, _words(spread), transform=axes.transAxes, color=MUTED, fontsize=11)
    seen = [count for count in spread.counts if count > 0]
    axes.axvspan(spread.low, spread.high, color=AFTER, alpha=0.13, linewidth=0)
    axes.set_yscale("log")
    floor = min(seen, default=1e-6) / 2
    axes.stairs([max(c, floor) for c in spread.counts], spread.edges, baseline=floor, fill=True, color=BEFORE)
    for end in (spread.low, spread.high):
        axes.axvline(end, color=AFTER, linewidth=1.5)
    axes.set_ylim(floor, 1.5)
    axes.minorticks_off()
    decades = range(-2, math.ceil(math.log10(floor)) - 1, -2)
    axes.set_yticks([10.0**d for d in decades], [f"{100 * 10.0**d:g} %" for d in decades])
    ends = (*spread.edges[:1], *spread.edges[-1:], spread.low, spread.high)
    air = 0.04 * (max(ends) - min(ends) or 1)
    axes.set_xlim(min(ends) - air, max(ends) + air)
    axes.locator_params(axis="x", nbins=4)


def _words(spread: Spread) -> str:
    error = "exact" if spread.sqnr_db is None else f"{spread.sqnr_db:.1f} dB expected"
    share = 100 * spread.clipped
    clipped = "none clipped" if not share else f"{share:.2g} % clipped" if share >= 0.001 else "< 0.001 % clipped"
    return f"{error}, {clipped}" + ("" if spread.bits == 8 else f", {spread.bits} bits")
